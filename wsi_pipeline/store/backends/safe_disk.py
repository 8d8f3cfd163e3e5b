"""A file object for the HDF5 library that never fails a write: the library crashes when the disk is full.

HDF5 2.0 ends the process with a segmentation fault when it is closed after a failed write. So the first error is
kept for the caller to raise, and later writes are dropped.
"""

from __future__ import annotations

import os
from pathlib import Path


class SafeDisk:
    """What h5py needs of a file object.

    error   the first error of the disk, or None
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.error: OSError | None = None
        self._path = path
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | (os.O_CREAT | os.O_TRUNC if fresh else 0)
        self._handle = os.open(path, flags, 0o666)
        self._size, self._position = os.fstat(self._handle).st_size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, count: int) -> bytes:
        """`count` bytes from the position on; h5py knows a file object by this method."""
        out = bytearray(count)
        self.readinto(memoryview(out))
        return bytes(out)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer from the position on; with zeros where nothing was written."""
        os.lseek(self._handle, self._position, os.SEEK_SET)
        done = 0
        while done < len(buffer):
            part = os.read(self._handle, len(buffer) - done)
            if not part:
                buffer[done:] = bytes(len(buffer) - done)
                break
            buffer[done : done + len(part)] = part
            done += len(part)
        self._position += len(buffer)
        return len(buffer)

    def write(self, data: memoryview) -> int:
        """Write at the position, all of it; never raises."""
        if self.error is None:
            try:
                os.lseek(self._handle, self._position, os.SEEK_SET)
                left = memoryview(data)
                while left:
                    left = left[os.write(self._handle, left) :]
            except OSError as error:
                self._keep(error)
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)

    def truncate(self, size: int) -> int:
        """Make the file `size` bytes long; never raises."""
        if self.error is None:
            try:
                os.ftruncate(self._handle, size)
            except OSError as error:
                self._keep(error)
        self._size = size
        return size

    def flush(self) -> None:
        """Does nothing: writes are not buffered."""

    def close(self) -> None:
        """Release the file."""
        os.close(self._handle)

    def _keep(self, error: OSError) -> None:
        self.error = OSError(error.errno, os.strerror(error.errno or 0), str(self._path))
