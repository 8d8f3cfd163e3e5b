"""The bytes of tiles at an address."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.remote.coalesce import Range
from wsi_pipeline.remote.remote_file import RemoteFile


class RemoteTileBytes:
    """A remote file as `TileBytes`."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, fewer at the end of the file."""
        return self._file.read(offset, count)

    def expect(self, ranges: Sequence[Range], *, in_order: bool) -> None:
        """Read ranges now, all at once, or begin to read them in the order in which they will be asked for."""
        if in_order:
            self._file.read_ahead(ranges)
        else:
            self._file.read_many(ranges)

    def close(self) -> None:
        """Stop reading."""
        self._file.close()
