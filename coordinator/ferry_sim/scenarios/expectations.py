"""What must come of a scenario: how things are at the end, what the log has, and figures of moves."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ferry_sim.scenarios.bounds import BoundOf, NearnessOf
from ferry_sim.scenarios.fields import Name, Names, NodeStates, Pattern, VmStates
from ferry_types.events import Level
from ferry_types.migrations import MigrationState, TransportOption


class Part(BaseModel):
    """A part of a scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VmEnd(Part):
    """How a VM must be at the end; what is not named does not matter. A list: any of these."""

    state: VmStates = Field(default=(), description="a state as vm show has it, or gone; or some of them")
    node: Names = Field(default=(), description="its owner, or none if it has no host; or some of them")


class End(Part):
    """How things must be at the end."""

    vms: dict[Name, VmEnd] = Field(default_factory=dict)
    nodes: dict[Name, NodeStates] = Field(default_factory=dict)


class Event(Part):
    """An event of the log; a number alone is its id."""

    id: int | None = Field(default=None, description="Windows event ID")
    log: str | None = Field(default=None, description="name of the log")
    level: Level | None = None
    node: Name | None = None
    vm: Name | None = None
    message: Pattern | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_id(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name at least one of id, log, level, node, vm, message")
        return self


class MoveFigures(Part):
    """What a move is to have taken; live only. Names and units are those of ``migration show -o json``."""

    total_s: BoundOf | None = Field(default=None, description="from the request to the end")
    brownout_s: BoundOf | None = Field(default=None, description="copying while the guest runs")
    blackout_s: BoundOf | None = Field(default=None, description="the guest's pause")
    passes: BoundOf | None = None
    bytes_sent: BoundOf | None = None
    last_dirty_pages: BoundOf | None = Field(default=None, description="pages sent in the black-out")
    link_share: BoundOf | None = Field(
        default=None, description="of what the NICs of its network carry as payload, used by the passes"
    )
    times_arithmetic: BoundOf | None = Field(
        default=None,
        description="its whole time over that of its bytes at the rate that network and era allow",
    )


class EstimateFigures(Part):
    """How near the estimate that was made when the move began is to have been; live only."""

    total_s: NearnessOf | None = Field(default=None, description="brown-out and black-out together")
    brownout_s: NearnessOf | None = None
    blackout_s: NearnessOf | None = None
    passes: NearnessOf | None = None
    bytes_sent: NearnessOf | None = None


class Move(Part):
    """A live migration since the timeline began."""

    vm: Name
    source: Name | None = Field(default=None, alias="from")
    target: Name | None = Field(default=None, alias="to")
    state: MigrationState = MigrationState.COMPLETED
    reason: Pattern | None = None
    option: TransportOption | None = Field(default=None, description="how its memory was sent")
    figures: MoveFigures = MoveFigures()
    estimate: EstimateFigures = EstimateFigures()


class Drain(Part):
    """All moves by which a node was drained, taken together; live only."""

    node: Name
    total_s: BoundOf | None = Field(default=None, description="from the first request to the last end")
    moves: BoundOf | None = Field(default=None, description="how many were completed")
    at_once: BoundOf | None = Field(default=None, description="the most that had slots at one time")
    link_share: BoundOf | None = Field(
        default=None, description="of what the NICs of its network carry as payload, used from begin to end"
    )
    times_arithmetic: BoundOf | None = Field(
        default=None, description="its time over that of its bytes at the rate that network and era allow"
    )
    order: tuple[Name, ...] = Field(default=(), description="VMs in the order in which they got their slots")
