"""The lease's deadline as vCPU threads see it."""

import time


class LeaseGate:
    """Open while the monotonic clock is below the deadline (rule L1).

    One attribute is written by the event loop and read by vCPU threads; both are single operations.
    """

    __slots__ = ("deadline_s",)

    def __init__(self) -> None:
        self.deadline_s: float | None = None

    def is_open(self) -> bool:
        """Whether a quantum may begin, or something may be published, now."""
        deadline_s = self.deadline_s
        return deadline_s is not None and time.monotonic() < deadline_s
