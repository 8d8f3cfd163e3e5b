"""A local stand-in for a remote TIFF file: its directories at their places, holes where its pixels are.

OpenSlide, which opens no address, thus tells the vendor, resolution and levels of a remote file as it does of a local
one, and the checks of damaged files work unchanged. Pixels must never be read from it but where they were filled in.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wsi_pipeline.remote.coalesce import Range
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.tiff_directories import directory_ranges


@contextmanager
def skeleton(file: RemoteFile) -> Iterator[Path]:
    """The stand-in of a remote TIFF file, in a temporary folder; named like the file."""
    ranges = directory_ranges(file)
    with tempfile.TemporaryDirectory(prefix="wsi-pipeline-") as folder:
        path = Path(folder) / file.name
        with path.open("wb") as made:
            made.truncate(file.size)
        fill_in(path, file, ranges)
        yield path


def fill_in(path: Path, file: RemoteFile, ranges: Sequence[Range]) -> None:
    """Write ranges of a remote file to their places in its stand-in."""
    with path.open("r+b") as made:
        for (start, _), data in zip(ranges, file.read_many(ranges), strict=True):
            made.seek(start)
            made.write(data)


class RemoteReader(io.RawIOBase):
    """A remote file as Python's readers of TIFF want it: seek and read. For one thread."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file, self._at = file, 0
        self.name = file.name

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read into a buffer; fewer bytes than it holds only at the end of the file."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._file.read(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
