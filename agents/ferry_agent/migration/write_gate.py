"""Lets threads write to the memory of an arriving VM, until the memory is somebody else's."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WriteGate:
    """Open at first. Once it is shut, nobody enters any more. For any threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._shut = False

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Inside, memory may be written to, unless this gives False."""
        with self._lock:
            may = not self._shut
            self._inside += may
        try:
            yield may
        finally:
            with self._lock:
                self._inside -= may

    def shut_if_idle(self) -> bool:
        """Shut it, unless somebody is inside; whether it is shut."""
        with self._lock:
            self._shut = self._shut or not self._inside
            return self._shut

    def shut(self) -> None:
        """Shut it. Who is inside already may go on writing for a moment."""
        with self._lock:
            self._shut = True
