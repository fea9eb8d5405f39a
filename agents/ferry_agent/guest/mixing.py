"""SplitMix64 (Steele, Lea, Flood 2014): the same well-mixed 64-bit numbers on every host."""

import numpy as np
from numpy.typing import NDArray

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
"""The odd increment of SplitMix64; also used as a multiplier that spreads small numbers."""

_MUL_1 = 0xBF58476D1CE4E5B9
_MUL_2 = 0x94D049BB133111EB


def mix(value: int) -> int:
    """Mix one number into 0..2**64-1."""
    value &= MASK
    value = (value ^ (value >> 30)) * _MUL_1 & MASK
    value = (value ^ (value >> 27)) * _MUL_2 & MASK
    return value ^ (value >> 31)


def mix_in_place(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix every number of an array, in place, and return the array."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(_MUL_1)
    values ^= values >> np.uint64(27)
    values *= np.uint64(_MUL_2)
    values ^= values >> np.uint64(31)
    return values
