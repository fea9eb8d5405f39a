"""What an attempt has sent, as it goes along."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What was sent: ``frames``, ``pages`` and ``checksum_sum`` (modulo 2^64) are what Final says.

    They count what the target has written, or will have once everything has arrived. ``bytes_sent`` counts
    all that was handed over, ``bytes_acked`` what the target is known to have checked and written.
    """

    frames: int = 0
    pages: int = 0
    checksum_sum: int = 0
    bytes_sent: int = 0
    bytes_acked: int = 0
    compressed_pages: int = 0
    compressed_bytes: int = 0
    saved_bytes: int = 0
    """Bytes that did not have to be sent for it."""

    @property
    def bytes_copied(self) -> int:
        """What has arrived, and what did not have to travel for it."""
        return self.bytes_acked + self.saved_bytes

    def add(self, pages: int, checksum: int) -> None:
        """Another frame."""
        self.frames += 1
        self.pages += pages
        self.checksum_sum = (self.checksum_sum + checksum) % 2**64

    def remove(self, pages: int, checksum: int) -> None:
        """A frame that the target has not written after all."""
        self.frames -= 1
        self.pages -= pages
        self.checksum_sum = (self.checksum_sum - checksum) % 2**64
