"""What both ends of a migration agree on, besides the messages of ``ferry/v1/migration.proto``.

One attempt, source to the left, Control (``=``) and Bulk (``-``) on connections of their own::

    Hello          ===========>
                   <===========  Accept
    opening frame  ----------->               no pages: proves the token on the second stream
                   <-----------  ack
    clock probes   ===========>               only between machines with clocks of their own
                   <===========  readings
    page frames    ----------->               pass after pass, the guest runs
                   <-----------  acks         at most IN_FLIGHT_FRAMES_MAX unacknowledged
    empty frame    ----------->               at the end of a pass whose last frame was full
    (pause) last   ----------->
    Final          ===========>               the point of no return
    MemoryDigest   ===========>               with verify
                                  READY       told to the coordinator by the target, not to the source

Both streams stay open until the source knows the outcome. If either ends before READY, the attempt is over.
"""

PROTOCOL_VERSION = 1

OPENING_S_MAX = 10.0
"""How long one end waits for the other's part of the opening (connection, Hello, Accept, opening frame)."""

SILENCE_S_MAX = 30.0
"""A source that sends nothing on either stream for so long before READY is cut off by the target."""

ANSWER_S_MAX = 30.0
"""A target that takes or acknowledges nothing for so long is given up by the source."""

IN_FLIGHT_FRAMES_MAX = 16
"""Unacknowledged frames: 32 MiB of payload at most. Half of it costs 5 to 10 % of the rate on one machine."""

ACK_EVERY_FRAMES = 8
"""Full frames between acknowledgements; one that is not full is acknowledged at once, with all before it."""

CLOCK_PROBES = 10
"""Exchanges for the clock offset; the one with the shortest round trip counts."""

PROGRESS_INTERVAL_S = 0.25
"""Progress is reported no more often than this, and at the end of every pass."""
