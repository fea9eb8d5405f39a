"""Which rows of both cores' transition tables have been taken."""

from collections import Counter
from dataclasses import dataclass, field

from ferry_cluster.records import MigrationRecord, Record
from ferry_cluster.turn import MIGRATION_TRANSITIONS
from ferry_host.state import PHASE_TRANSITIONS
from ferry_sim.processes import Agent
from ferry_types.migrations import MigrationState
from ferry_types.vms import ImagePhase


@dataclass
class Coverage:
    """Counts of steps that were seen to be taken."""

    moves: Counter[tuple[MigrationState, MigrationState]] = field(default_factory=Counter)
    images: Counter[tuple[ImagePhase, ImagePhase]] = field(default_factory=Counter)
    _states: dict[str, MigrationState] = field(default_factory=dict)

    def stored(self, record: Record) -> None:
        """A record was committed."""
        if isinstance(record, MigrationRecord):
            before = self._states.get(record.id)
            if before is not None and before is not record.state:
                self.moves[before, record.state] += 1
            self._states[record.id] = record.state

    def look_at(self, agent: Agent) -> None:
        """A host has handled an event."""
        images = agent.host.state.images
        for name, image in images.items():
            before = agent.phases.get(name)
            if before is not image.phase:
                if before is not None:
                    self.images[before, image.phase] += 1
                agent.phases[name] = image.phase
        if len(agent.phases) > len(images):
            agent.phases = {name: phase for name, phase in agent.phases.items() if name in images}

    def add(self, other: "Coverage") -> None:
        """Take another seed's counts in."""
        self.moves.update(other.moves)
        self.images.update(other.images)

    def missing(self) -> list[str]:
        """Rows that were never taken, in words."""
        rows = [f"move {a} -> {b}" for a, b in MIGRATION_TRANSITIONS - self.moves.keys()]
        return sorted(rows + [f"image {a} -> {b}" for a, b in PHASE_TRANSITIONS - self.images.keys()])

    def __str__(self) -> str:
        rows = len(MIGRATION_TRANSITIONS) + len(PHASE_TRANSITIONS)
        missing = self.missing()
        left_out = f"; never: {', '.join(missing)}" if missing else ""
        return f"{rows - len(missing)} of {rows} rows of the transition tables{left_out}"
