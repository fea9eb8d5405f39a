"""What a step does to the processes of a lab."""

import asyncio
import signal
from pathlib import Path
from typing import Final

from ferry.v1 import host_pb2
from ferry_cli.admin import LOOK_S, connect_host
from ferry_cli.lab import lifecycle, processes
from ferry_cli.lab.state import COORDINATOR, WITNESS
from ferry_sim.scenarios import steps
from ferry_types.errors import FerryError, failed

STOPPED_S: Final = 20.0
"""What an agent that is told to stop may take."""


class Hosts:
    """A lab's processes.

    ``alive``: nodes whose agents run and are not cut off; ``frozen``: processes that stand still.
    """

    def __init__(self, directory: Path, nodes: list[str]) -> None:
        self.alive = dict.fromkeys(nodes)
        self.frozen: set[str] = set()
        self._directory = directory
        self._one_at_a_time = asyncio.Lock()
        self._thaws: set[asyncio.Task[None]] = set()

    async def strike(self, fault: steps.Fault) -> None:
        """Do it. Raises FerryError if it cannot be done."""
        async with self._one_at_a_time:
            match fault:
                case steps.Power(on=True):
                    await self._start(fault.node)
                case steps.Power():
                    await self._kill(f"{fault.node}/power")
                case steps.Kill():
                    await self._kill(fault.node)
                case steps.Shutdown():
                    await self._shut_down(fault.node)
                case steps.Reboot():
                    await self._shut_down(fault.node)
                    await self._start(fault.node)
                case steps.Coordinator(start=start):
                    await self._process(COORDINATOR, start=start)
                case steps.Witness(start=start):
                    await self._process(WITNESS, start=start)
                case steps.TurnNic():
                    await self._turn_nic(fault)
                case steps.Freeze():
                    await self._freeze(fault)
                case _:
                    raise AssertionError(f"{fault} cannot be done live, and was to be refused before")

    def forget(self, node: str) -> None:
        """A node was evicted: its agent ends by itself."""
        self.alive.pop(node, None)

    async def close(self) -> None:
        """Have nobody wait any more for what was frozen."""
        for task in self._thaws:
            task.cancel()
        await asyncio.gather(*self._thaws, return_exceptions=True)

    async def _kill(self, name: str) -> None:
        await lifecycle.kill(self._directory, name, signal.SIGKILL)
        self.alive.pop(name.partition("/")[0], None)

    async def _start(self, node: str) -> None:
        await lifecycle.start(self._directory, node, joins=False)
        self.alive[node] = None

    async def _process(self, name: str, *, start: bool) -> None:
        if start:
            await lifecycle.start(self._directory, name, joins=False)
        else:
            await lifecycle.kill(self._directory, name, signal.SIGKILL)

    async def _shut_down(self, node: str) -> None:
        watchdog = lifecycle.existing_lab(self._directory).process(node).identity
        processes.send_signal(watchdog, signal.SIGTERM)
        if not await processes.await_state([watchdog], processes.RunState.DEAD, STOPPED_S):
            raise FerryError(failed(f"{node} does not stop within {STOPPED_S:.0f} s"))
        self.alive.pop(node, None)

    async def _turn_nic(self, fault: steps.TurnNic) -> None:
        address = lifecycle.existing_lab(self._directory).process(fault.node).address
        async with connect_host(address) as host:
            request = host_pb2.TurnNicRequest(nic=fault.nic, up=fault.up)
            turned = await host.TurnNic(request, timeout=LOOK_S)
        if turned.cut_off:
            self.alive.pop(fault.node, None)
        else:
            self.alive[fault.node] = None

    async def _freeze(self, fault: steps.Freeze) -> None:
        await lifecycle.kill(self._directory, fault.process, signal.SIGSTOP)
        self.frozen.add(fault.process)
        task = asyncio.create_task(self._thaw(fault))
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    async def _thaw(self, fault: steps.Freeze) -> None:
        await asyncio.sleep(fault.seconds)
        async with self._one_at_a_time:
            self.frozen.discard(fault.process)
            await lifecycle.kill(self._directory, fault.process, signal.SIGCONT)
