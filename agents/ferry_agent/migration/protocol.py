"""What both ends of a migration agree on, besides the messages of ``ferry/v1/migration.proto``.

One attempt, source to the left, Control (``=``) and a lane (``-``) on connections of their own. Option
``tcpip`` has one lane, ``smb`` several, both gRPC bulk streams; those of ``direct`` are raw sockets, and
``direct_wire`` says what is on them::

    Hello          ===========>
                   <===========  Accept
    opening frame  ----------->               no pages: proves the token, names the lane
                   <-----------  ack
    clock probes   ===========>               only between machines with clocks of their own
                   <===========  readings
    page frames    ----------->               pass after pass, the guest runs
                   <-----------  acks         at most IN_FLIGHT_FRAMES_MAX unacknowledged
    empty frame    ----------->               at the end of a pass whose last frame was full
    CloseLane      ===========>               smb: a lane is dead for the source
                   <===========  LaneClosed   so many of its frames were written; the rest goes elsewhere
    ClockProbe     ===========>               the pause is near: the target renews its lease
                   <===========  ClockReading
    (pause) last   ----------->
    Final          ===========>               the point of no return
    MemoryDigest   ===========>               with verify
                                  READY       told to the coordinator by the target, not to the source

All streams stay open until the source knows the outcome. If the control stream or the last lane ends before
READY (of ``direct``: any lane), the attempt is over.
"""

PROTOCOL_VERSION = 2

OPENING_S_MAX = 10.0
"""How long one end waits for the other's part of the opening (connection, Hello, Accept, opening frame)."""

SILENCE_S_MAX = 30.0
"""A source that sends nothing on either stream for so long before READY is cut off by the target."""

ANSWER_S_MAX = 30.0
"""A target that takes or acknowledges nothing for so long is given up by the source."""

IN_FLIGHT_FRAMES_MAX = 12
"""Unacknowledged frames on all lanes: 24 MiB at most. 8 cost a tenth of the rate on one machine; 16 gain
nothing, and a target that decompresses then holds up to 69 MiB where 48 do. Not of option ``direct``, whose
frames hold no copies of pages."""

ACK_EVERY_FRAMES = 8
"""Full frames between acknowledgements of a single lane; of several, each has its share of that. One that is
not full is acknowledged at once, with all before it."""

ACK_EVERY_COMPRESSED_FRAMES = 2
"""The same for option ``compression``: frames may be so small that half a window is soon through the wire,
and the source has to know how many are left on it."""

CLOCK_PROBES = 10
"""Exchanges for the clock offset; the one with the shortest round trip counts."""

PROGRESS_INTERVAL_S = 0.25
"""Progress is reported no more often than this, and at the end of every pass."""

ARM_AHEAD_S = 0.01
"""How long before a last pass has arrived, by its pace, the hand-off is armed, if not all was sent before: as
long as that takes where processors are busy."""

ROUSE_S_MAX = 0.005
"""What a source waits at most for the target to be ready for the pause, before it pauses the guest."""
