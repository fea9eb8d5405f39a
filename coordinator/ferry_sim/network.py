"""Streams between hosts and coordinators: ordered, slow, stalled, deaf, repeating themselves, cut.

And single messages between any two processes: late, repeated, lost, stopped by a split of the network.
"""

from collections.abc import Callable
from typing import Final, Protocol

from ferry_cluster import inputs as cluster_inputs
from ferry_host import inputs as host_inputs
from ferry_sim.clockwork import Clockwork
from ferry_sim.processes import Agent, Process, Reign, Stream
from ferry_types.messages import HostEnvelope, HostOrder

RECONNECT_S: Final = 0.2

COORDINATOR: Final = "coordinator"
"""How a severed way names whoever reigns."""


class Ends(Protocol):
    """Who speaks over the network."""

    @property
    def strays(self) -> list[Agent]:
        """Lives that reach nobody any more."""

    def newest(self) -> Reign | None:
        """The coordinator that a new connection reaches."""

    def submit(self, reign: Reign, event: cluster_inputs.Event) -> None:
        """A coordinator hears something."""

    def feed(self, agent: Agent, event: host_inputs.Event) -> None:
        """A host notices something, now or when it wakes up."""

    def obey(self, agent: Agent, order: HostOrder) -> None:
        """A host that is awake takes an order."""


class Network:
    """All streams. ``repeats``: probability that a message is delivered twice; ``losses``: that a single one
    never is.

    One direction of a stream keeps its order, as TCP does; what is on its way to nobody any more is lost.
    """

    def __init__(self, clockwork: Clockwork, ends: Ends) -> None:
        self.repeats = 0.0
        self.losses = 0.0
        self._clockwork = clockwork
        self._ends = ends
        self._streams: dict[int, Stream] = {}
        self._cut_off: dict[str, float] = {}
        self._apart: dict[str, float] = {}
        """Processes on one side of a split, and until when; they reach each other and nobody else."""
        self._mute: dict[frozenset[str], float] = {}
        """Pairs that do not reach each other, and until when."""
        self.severed: set[tuple[str, str]] = set()
        """(Sender, receiver) between whom nothing passes until somebody mends it."""
        self._hurt: list[Stream] = []
        """Connections that have lost something to a severed way."""

    @property
    def streams(self) -> list[Stream]:
        """Those that a coordinator still holds."""
        return list(self._streams.values())

    def stream(self, number: int) -> Stream | None:
        """The one of that number, if a coordinator still holds it."""
        return self._streams.get(number)

    # --- messages ---------------------------------------------------------------------------------

    def to_host(self, number: int, order: HostOrder) -> None:
        """A coordinator sends an order."""
        stream = self._streams.get(number)
        if stream is not None:
            agent = stream.agent
            self._travel(stream, "down", order, lambda: agent.do(lambda: self._ends.obey(agent, order)))

    def to_coordinator(self, agent: Agent, envelope: HostEnvelope) -> None:
        """A host says something, if it is connected."""
        if agent.stream is not None:
            reign = agent.stream.reign
            message = cluster_inputs.HostMessage(agent.stream.number, envelope)
            self._travel(
                agent.stream, "up", envelope, lambda: reign.do(lambda: self._ends.submit(reign, message))
            )

    def _travel(self, stream: Stream, direction: str, message: object, deliver: Callable[[], None]) -> None:
        clockwork = self._clockwork

        def arrive() -> None:
            if getattr(stream, direction) and direction not in stream.deaf:
                deliver()

        for _ in range(2 if clockwork.happens(self.repeats) else 1):
            arrives = max(clockwork.now + clockwork.delay(), stream.busy_until[direction])
            stream.busy_until[direction] = arrives
            lane = (stream.number, direction)
            clockwork.later(arrives - clockwork.now, arrive, message, lane)

    def pass_on(
        self, sender: Process, receiver: Process, message: object, deliver: Callable[[], None]
    ) -> None:
        """A message outside the streams: a request between hosts or to the witness, or its answer."""
        clockwork = self._clockwork

        def arrive() -> None:
            if receiver.alive and self._reaches(sender, receiver):
                deliver()

        for _ in range(2 if clockwork.happens(self.repeats) else 1):
            if not clockwork.happens(self.losses):
                clockwork.later(clockwork.delay(), arrive, (type(message).__name__, message))

    def split(self, names: list[str], seconds: float) -> None:
        """Set hosts, and the witness if it is named, apart from the others, but for their streams."""
        for name in names:
            self._apart[name] = self._clockwork.now + seconds

    def mute(self, names: frozenset[str], seconds: float) -> None:
        """Two hosts, or one and the witness, do not reach each other for a while."""
        self._mute[names] = self._clockwork.now + seconds

    def _reaches(self, sender: Process, receiver: Process) -> bool:
        if sender in self._ends.strays or receiver in self._ends.strays:
            return False
        if (sender.name or COORDINATOR, receiver.name or COORDINATOR) in self.severed:
            return False
        now = self._clockwork.now
        apart = [now < self._apart.get(process.name, 0.0) for process in (sender, receiver)]
        muted = now < self._mute.get(frozenset((sender.name, receiver.name)), 0.0)
        return apart[0] == apart[1] and not muted

    # --- connections ------------------------------------------------------------------------------

    def connect(self, agent: Agent) -> None:
        """A host opens its stream, again and again until a coordinator is there and reached."""
        if not agent.alive or agent.stream is not None or agent in self._ends.strays:
            return
        reign = self._ends.newest()
        cut_off = self._clockwork.now < self._cut_off.get(agent.name, 0.0)
        if reign is None or cut_off or self._deaf(agent.name):
            self.connect_later(agent, RECONNECT_S)
            return
        agent.stream = Stream(self._clockwork.number(), agent, reign)
        self._streams[agent.stream.number] = agent.stream
        self._ends.feed(agent, host_inputs.Connected())

    def connect_later(self, agent: Agent, after_s: float) -> None:
        """Have a host connect after so many seconds."""
        connect = ("connect", agent.incarnation)
        self._clockwork.later(after_s, lambda: agent.do(lambda: self.connect(agent)), connect)

    def end(self, number: int) -> None:
        """The coordinator ends a stream: the host hears of it behind what is on its way."""
        stream = self._streams.get(number)
        if stream is not None:
            self._travel(
                stream, "down", "the end", lambda: stream.agent.do(lambda: self._lose_host_end(stream))
            )
            closed = ("closed", stream.number)
            self._clockwork.later(self._clockwork.delay(), lambda: self._lose_coordinator_end(stream), closed)

    def drop(self, stream: Stream) -> None:
        """The host gives a stream up: what it said still arrives, perhaps behind its next Join."""
        self._lose_host_end(stream)
        self._travel(stream, "up", "the end", lambda: self._lose_coordinator_end(stream))

    def cut(self, stream: Stream) -> None:
        """A stream breaks, and what is on its way is lost."""
        down, up = stream.down, stream.up
        stream.down = stream.up = False
        if down:
            stream.agent.do(lambda: self._lose_host_end(stream))
        if up:
            stream.up = True
            self._lose_coordinator_end(stream)

    def stall(self, stream: Stream, direction: str, seconds: float) -> None:
        """Nothing arrives in one direction for a while, then all of it does."""
        stream.busy_until[direction] = max(stream.busy_until[direction], self._clockwork.now + seconds)

    def part(self, name: str, directions: tuple[str, ...], seconds: float) -> None:
        """Cut a host off from the coordinator for a while, one way or both.

        What is under way is lost for good; the connection breaks once that is over, or earlier if either end
        gives it up. A new one is not to be had before.
        """
        self._cut_off[name] = self._clockwork.now + seconds
        for stream in self.streams:
            if stream.agent.name == name:
                stream.deaf.update(directions)
                self._clockwork.later(seconds, lambda stream=stream: self.cut(stream))  # type: ignore[misc]

    def sever(self, sender: str, receiver: str) -> None:
        """From now on nothing passes that way; nobody is told."""
        self.severed.add((sender, receiver))
        for stream in self.streams:
            deaf = self._deaf(stream.agent.name)
            if deaf - stream.deaf:
                stream.deaf |= deaf
                self._hurt.append(stream)

    def mend(self, sender: str, receiver: str) -> None:
        """That way is open again; a connection that has lost something breaks, and is made anew."""
        self.severed.discard((sender, receiver))
        mended = [stream for stream in self._hurt if not self._deaf(stream.agent.name)]
        self._hurt = [stream for stream in self._hurt if stream not in mended]
        for stream in mended:
            self.cut(stream)

    def _deaf(self, name: str) -> set[str]:
        ways = {"up": (name, COORDINATOR), "down": (COORDINATOR, name)}
        return {direction for direction, way in ways.items() if way in self.severed}

    def _lose_host_end(self, stream: Stream) -> None:
        stream.down = False
        agent = stream.agent
        if agent.stream is stream:
            agent.stream = None
            self._ends.feed(agent, host_inputs.Disconnected())
            self.connect_later(agent, RECONNECT_S + self._clockwork.delay())

    def _lose_coordinator_end(self, stream: Stream) -> None:
        if stream.up:
            stream.up = False
            del self._streams[stream.number]
            closed = cluster_inputs.StreamClosed(stream.number)
            stream.reign.do(lambda: self._ends.submit(stream.reign, closed))
