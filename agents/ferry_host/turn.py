"""One event's turn in the host core: rules read and write the state through it, and it collects commands."""

from dataclasses import dataclass, field, replace

from ferry_host.commands import Command, Report
from ferry_host.state import PHASE_TRANSITIONS, HostState, Image
from ferry_types.errors import Refusal
from ferry_types.messages import FromHost, HostEnvelope, MigrationFailed, OrderRefused, SourceReleased
from ferry_types.vms import ImagePhase

ENDED_MOVES_MAX = 256
"""Outcomes that a host remembers in order to repeat them."""


class InvalidTransition(Exception):
    """A rule tried a step that the table does not have."""


@dataclass(slots=True)
class Turn:
    """The handling of one event at one time."""

    state: HostState
    now: float
    commands: list[Command] = field(default_factory=list)

    def do(self, *commands: Command) -> None:
        """Ask the agent for something."""
        self.commands.extend(commands)

    def report(self, body: FromHost) -> None:
        """Tell the coordinator, in the present session."""
        identity = self.state.identity
        self.do(Report(HostEnvelope(identity.incarnation, self.state.session, body)))

    def put(self, image: Image) -> Image:
        """Keep an image. Raises InvalidTransition if its phase may not follow the one before."""
        before = self.state.images.get(image.name)
        if (
            before is not None
            and before.phase is not image.phase
            and ((before.phase, image.phase) not in PHASE_TRANSITIONS)
        ):
            raise InvalidTransition(f"{image.name}: {before} -> {image}")
        self.state.images[image.name] = image
        return image

    def step(self, image: Image, phase: ImagePhase) -> Image:
        """Take an image to its next phase."""
        return self.put(replace(image, phase=phase))

    def refuse(self, vm: str, epoch: int, reason: Refusal) -> None:
        """Never run this VM under this epoch, and say so (rule O2)."""
        self.never_run(vm, epoch, reason)
        self.report(OrderRefused(vm, epoch, reason))

    def never_run(self, vm: str, epoch: int, reason: Refusal) -> None:
        """Remember that this epoch and those before it are over here."""
        known = self.state.refused.get(vm)
        if known is None or known[0] < epoch:
            self.state.refused[vm] = (epoch, reason)

    def end_move(self, migration_id: str, outcome: Refusal | SourceReleased) -> None:
        """Report how a move ended here, and remember it."""
        self.remember_end(migration_id, outcome)
        self.repeat_end(migration_id)

    def remember_end(self, migration_id: str, outcome: Refusal | SourceReleased) -> None:
        """Remember how a move ended here; the oldest are forgotten."""
        ended = self.state.ended_moves
        ended[migration_id] = outcome
        while len(ended) > ENDED_MOVES_MAX:
            del ended[next(iter(ended))]

    def repeat_end(self, migration_id: str) -> bool:
        """Report once more how a move ended here. False if it is not known to have ended."""
        outcome = self.state.ended_moves.get(migration_id)
        match outcome:
            case None:
                return False
            case Refusal():
                self.report(MigrationFailed(migration_id, outcome))
            case SourceReleased():
                self.report(outcome)
        return True
