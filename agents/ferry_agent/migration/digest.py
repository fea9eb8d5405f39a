"""The digest of a whole memory, which ``verify`` compares."""

import xxhash
from numpy import uint8
from numpy.typing import NDArray

_SLICE_PAGES = 4096


def memory_digest(pages: NDArray[uint8]) -> bytes:
    """XXH3-128 over all pages, 16 bytes. For a thread of its own: hashing releases the interpreter lock."""
    digest = xxhash.xxh3_128()
    for first in range(0, len(pages), _SLICE_PAGES):
        digest.update(pages[first : first + _SLICE_PAGES].data)
    return digest.digest()
