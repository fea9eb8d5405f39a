"""Bounds that every process keeps, as named constants."""

PAGE_SIZE = 4096
"""Bytes of a guest page, as on x86."""

VM_MEMORY_BYTES_MIN = 4 * 2**20
"""Less would leave the guest's books no room."""

VM_MEMORY_BYTES_MAX = 2**40
"""1 TB a VM: Hyper-V 2012 and 2012 R2."""

FRAME_PAGES_MAX = 512
"""Pages in one page frame: 2 MiB of payload, a huge page. Half of it costs a tenth of the rate."""

FRAME_ZERO_PAGES_MAX = 65_536
"""Zero pages that one frame may name."""

MESSAGE_BYTES_MAX = 4 * 2**20
"""Largest gRPC message that any server or client accepts."""

DEVICE_STATE_BYTES_MAX = 64 * 2**10
"""Largest saved device state."""

PASS_LIMIT_DEFAULT = 10
"""Passes over memory before the switch is forced (Hyper-V's own limit)."""

PASS_LIMIT_MAX = 100

HELPED_PASSES_MIN = 3
"""Help to converge compares passes after the first, so that it takes effect from the third on."""

BLACKOUT_ALLOWED_S_DEFAULT = 0.05
"""The switch may be made once what is left fits into this time."""

BLACKOUT_ALLOWED_S_MAX = 60.0

MIGRATION_LIMIT_DEFAULT = 2
"""Simultaneous live migrations per host (Hyper-V 2012 on)."""

MIGRATION_LIMIT_MAX = 64

HOST_MEMORY_BYTES_DEFAULT = 8 * 2**30

HOST_MEMORY_BYTES_MAX = 4 * 2**40
"""4 TB a host: Hyper-V 2012 and 2012 R2."""

SPAN_S_MAX = 7 * 86400.0
"""Longest time that an admin may name: a week."""

QUARANTINE_THRESHOLD_MAX = 100
"""Most losses that may be counted before a node is kept out: each of them is kept until then."""

ECHO_DATAGRAM_BYTES_MAX = 512

AUDIT_ERRORS_MAX = 100
"""Errors that an audit lists before it only counts."""
