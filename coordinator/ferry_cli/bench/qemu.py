"""The peers `qemu`, `qemu-multifd` and `qemu-zstd`: live migration between two QEMUs, over TCP."""

import asyncio
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from ferry_cli.bench.children import child
from ferry_cli.bench.memory import FreeMemory, warm_free_memory
from ferry_cli.bench.peers import PeerRun, PeerUnavailable, run_deadline_s
from ferry_cli.bench.qmp import Qmp
from ferry_cli.bench.stopwatch import Stopwatch
from ferry_types.errors import FerryError, failed
from ferry_types.limits import PAGE_SIZE

QEMU = "qemu-system-x86_64"
_MACHINE = "pc,memory-backend=ram,mem-merge=off"
MULTIFD_CHANNELS = (2, 4)
TRIALS_PER_CHANNEL_COUNT = 3
_BANDWIDTH_UNLIMITED_BYTES_PER_S = 2**40
"""QEMU's own limit is 128 MiB/s unless lifted."""

_OPTIONS = ("-S", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-accel", "tcg")
"""No vCPU has run when the move begins, and there is no device, so that memory is exactly the contents.
TCG, because vCPUs that never run need no KVM."""


class QemuPeer:
    """One QEMU to another, plain or with several multifd channels.

    Inside the stopwatch: from sending `migrate` to the source until both QEMUs have sent the event that the
    migration is complete; the target could then run its vCPUs. The source's memory is a shared mapping of the
    contents, present in its page table like a running guest's; the target's is anonymous, and QEMU asks for
    huge pages (`MADV_HUGEPAGE`) on every memory block that it makes.
    """

    def __init__(self, name: str = "qemu", channels: int = 0, compression: str = "none") -> None:
        """``compression``: of the multifd channels, as QEMU names it; at the level that it has by itself."""
        self.name = name
        self._channels = channels
        self._compression = compression
        self._behind: tuple[str, ...] = ()
        self._contents = Path("CONTENTS")
        self._memory_bytes = 0

    @property
    def command(self) -> str:
        """Both command lines, and what is then set on both over QMP."""
        settings = ", ".join(f"{name} {value}" for name, value in self._parameters().items())
        capabilities = ", ".join(self._capabilities())
        return (
            f"{shlex.join(self._target_argv())}\n{shlex.join(self._source_argv())}\n"
            f"capabilities: {capabilities}; parameters: {settings}"
        )

    async def prepare(self, contents: Path, memory_bytes: int, behind: tuple[str, ...] = ()) -> None:
        """Remember what to move, and over which link. Raises PeerUnavailable without a QEMU."""
        if shutil.which(QEMU) is None:
            hint = "install it: apt-get install qemu-system-x86; or leave it out of --against"
            raise PeerUnavailable(failed(f"peer {self.name} needs {QEMU}, which is not installed", hint))
        self._contents, self._memory_bytes, self._behind = contents, memory_bytes, behind

    async def run_once(self, free_memory: FreeMemory = FreeMemory.WARM) -> PeerRun:
        """A new pair of QEMUs, and one migration. Raises FerryError."""
        try:
            async with asyncio.timeout(run_deadline_s(self._memory_bytes)), self._pair() as (source, target):
                uri = await self._listen(target)
                await warm_free_memory(self._memory_bytes, free_memory)
                stopwatch = Stopwatch()
                await source.execute("migrate", {"uri": uri})
                await asyncio.gather(source.migration_end(), target.migration_end())
                run = PeerRun.of(stopwatch.stop(), self._memory_bytes, target.pid)
                await self._check(source, target)
                return run
        except TimeoutError as error:
            raise FerryError(failed(f"peer {self.name} did not finish in time")) from error

    async def close(self) -> None:
        """Nothing outlives a run."""

    @asynccontextmanager
    async def _pair(self) -> AsyncIterator[tuple[Qmp, Qmp]]:
        """Source and target, started and set up alike."""
        async with AsyncExitStack() as stack:
            qemus = []
            for side, argv in (("source", self._source_argv()), ("target", self._target_argv())):
                qemu = Qmp(await stack.enter_async_context(child(f"{self.name} {side}", argv)))
                await qemu.open()
                capabilities = [{"capability": name, "state": True} for name in self._capabilities()]
                await qemu.execute("migrate-set-capabilities", {"capabilities": capabilities})
                await qemu.execute("migrate-set-parameters", dict(self._parameters()))
                qemus.append(qemu)
            yield qemus[0], qemus[1]

    @staticmethod
    async def _listen(target: Qmp) -> str:
        """Have the target wait for its migration on a free port; the address for the source."""
        await target.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0"})
        address = (await target.execute("query-migrate"))["socket-address"][0]
        return f"tcp:{address['host']}:{address['port']}"

    async def _check(self, source: Qmp, target: Qmp) -> None:
        """Every page went over the wire, as itself or as zeros, and the target is where the source was."""
        ram = (await source.execute("query-migrate"))["ram"]
        status = (await target.execute("query-status"))["status"]
        if (ram["normal"] + ram["duplicate"]) * PAGE_SIZE < self._memory_bytes or status != "prelaunch":
            reason = f"the target is {status}, the source says {ram}"
            raise FerryError(failed(f"peer {self.name} has not moved all memory: {reason}"))

    def _capabilities(self) -> tuple[str, ...]:
        return ("events", "multifd") if self._channels else ("events",)

    def _parameters(self) -> dict[str, int | str]:
        parameters: dict[str, int | str] = {"max-bandwidth": _BANDWIDTH_UNLIMITED_BYTES_PER_S}
        if self._channels:
            parameters["multifd-channels"] = self._channels
            parameters["multifd-compression"] = self._compression
        return parameters

    def _source_argv(self) -> tuple[str, ...]:
        backend = f"memory-backend-file,mem-path={self._contents},share=on,prealloc=on"
        return self._argv(backend)

    def _target_argv(self) -> tuple[str, ...]:
        return (*self._argv("memory-backend-ram"), "-incoming", "defer")

    def _argv(self, backend: str) -> tuple[str, ...]:
        """Both sides' common command line around a memory backend."""
        memory = ("-object", f"{backend},id=ram,size={self._memory_bytes}", "-machine", _MACHINE)
        size = ("-m", f"{self._memory_bytes // 1024}K")
        return (*self._behind, QEMU, *_OPTIONS, *size, *memory, "-qmp", "stdio")


class QemuMultifdPeer:
    """The better of several channel counts, found by trials beforehand; otherwise like `QemuPeer`."""

    def __init__(self, name: str = "qemu-multifd", compression: str = "none") -> None:
        self.name = name
        self._compression = compression
        self._chosen = QemuPeer(name, MULTIFD_CHANNELS[0], compression)
        self._trials = "no trials yet"

    @property
    def command(self) -> str:
        """Of the better one, and what the trials showed."""
        return f"{self._chosen.command}\n{self._trials}"

    async def prepare(self, contents: Path, memory_bytes: int, behind: tuple[str, ...] = ()) -> None:
        """Try the channel counts in turn. Raises PeerUnavailable, FerryError."""
        candidates = {
            channels: QemuPeer(self.name, channels, self._compression) for channels in MULTIFD_CHANNELS
        }
        totals_s: dict[int, list[float]] = {channels: [] for channels in candidates}
        for peer in candidates.values():
            await peer.prepare(contents, memory_bytes, behind)
        for _ in range(TRIALS_PER_CHANNEL_COUNT):
            for channels, peer in candidates.items():
                totals_s[channels].append((await peer.run_once()).total_s)
        medians_s = {channels: median(totals) for channels, totals in totals_s.items()}
        self._chosen = candidates[min(medians_s, key=medians_s.__getitem__)]
        told = (f"{channels} channels {total_s:.3f} s" for channels, total_s in medians_s.items())
        self._trials = f"medians of {TRIALS_PER_CHANNEL_COUNT} trials: {', '.join(told)}"

    async def run_once(self, free_memory: FreeMemory = FreeMemory.WARM) -> PeerRun:
        """Like `QemuPeer`."""
        return await self._chosen.run_once(free_memory)

    async def close(self) -> None:
        """Nothing outlives a run."""
