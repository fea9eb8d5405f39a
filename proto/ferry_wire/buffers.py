"""How the C library treats the large buffers that page frames pass through."""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_buffers() -> None:
    """Have glibc reuse large buffers instead of mapping each anew.

    By default every page frame costs hundreds of page faults in gRPC and in Python, which is a third of
    the throughput. One heap for all threads: what is freed in one thread serves the others, where heaps of
    their own would each keep buffers of the stream (18 to 30 MiB are held by a move in place of 53 to 127, at
    the same speed). Elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**30)
        mallopt(_M_TOP_PAD, 64 * 2**20)
