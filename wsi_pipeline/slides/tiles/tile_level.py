"""One level of a tiled TIFF whose tiles are read and decoded here: bytes by position, pixels by `TileCodec`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.images.area_filter import block_mean
from wsi_pipeline.images.white import white
from wsi_pipeline.slides.tiff.decode import DECODE_ERRORS
from wsi_pipeline.slides.tiles.tile_codec import TileCodec

Pixels = NDArray[np.uint8]


class TileSource(Protocol):
    """Where the bytes of tiles are read from; for several threads."""

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, fewer at the end of the file."""

    def close(self) -> None:
        """Stop what is read in advance."""


@runtime_checkable
class ExpectsRanges(Protocol):
    """A source that can fetch what will be read beforehand, because each request takes long."""

    def expect(self, ranges: Sequence[tuple[int, int]], *, in_order: bool) -> None:
        """Read (start, stop) now, at the same time, or begin to read them in the order in which they will be needed."""


class TileBytes:
    """A local file read by position from any thread; closed when its last user releases it, never during a read."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, fewer at the end of the file."""
        return os.pread(self._descriptor, count, offset)

    def close(self) -> None:
        """Nothing is read in advance."""

    def read_at_once(self, offset: int, count: int) -> bytes | None:
        """The same, but None if that would wait for a disk or network, or if this system does not say."""
        flag = getattr(os, "RWF_NOWAIT", None)
        if flag is None:
            return None
        data = bytearray(count)
        try:
            found = os.preadv(self._descriptor, [data], offset, flag)
        except OSError:  # not in memory, or a file system that cannot tell
            return None
        return bytes(data) if found == count else None

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):  # absent if opening failed
            os.close(self._descriptor)


class TiledLevel:
    """The tiles of one TIFF page: see `base.StoredTiles`.

    page     tifffile's page: grid, offsets and sizes
    number   of the level, for messages
    remote   whether it pays to `expect` tiles
    """

    def __init__(self, page: Any, number: int, file: TileSource, codec: TileCodec) -> None:
        self.size = Size(int(page.imagewidth), int(page.imagelength))
        self.tile = Size(int(page.tilewidth), int(page.tilelength))
        self.columns, self.rows = -(-self.size.width // self.tile.width), -(-self.size.height // self.tile.height)
        self.scales = codec.scales
        self._offsets = np.asarray(page.dataoffsets, np.int64)
        self._counts = np.asarray(page.databytecounts, np.int64)
        if not len(self._offsets) == len(self._counts) == self.columns * self.rows:
            raise SlideError(f"its directory lists {len(self._counts)} of {self.columns * self.rows} tiles")
        self._number, self._file, self._codec = number, file, codec
        self.remote = isinstance(file, ExpectsRanges)

    def expect(self, places: NDArray[np.int64], *, in_order: bool) -> None:
        """Fetch the bytes of tiles before they are decoded, if they are not on this machine.

        places     (column, row) int64 (N, 2)
        in_order   they will be decoded in this order, each once; False: all are needed now
        """
        if isinstance(self._file, ExpectsRanges):
            self._file.expect(self.ranges(places[:, 1] * self.columns + places[:, 0]), in_order=in_order)

    def ranges(self, numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(start, stop) in the file of the tiles with these numbers, row by row; those the file lacks are left out."""
        there = numbers[~self.missing[numbers]]
        starts, stops = self._offsets[there], self._offsets[there] + self._counts[there]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def close(self) -> None:
        """Stop fetching in advance."""
        self._file.close()

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which tiles the file does not hold, in file order."""
        missing: NDArray[np.bool_] = (self._counts == 0) | (self._offsets == 0)
        return missing

    @property
    def counts(self) -> NDArray[np.int64]:
        """Bytes of each tile, in file order: row by row."""
        return self._counts

    def decode(self, column: int, row: int, shrink: int = 1, out: Pixels | None = None) -> Pixels:
        """RGB of one tile, shrunk: see `StoredTiles.decode`."""
        data = self._bytes(column, row)
        if data is None:
            return white(self.tile.width // shrink, self.tile.height // shrink)
        inside_x = min(self.tile.width, self.size.width - column * self.tile.width)
        inside_y = min(self.tile.height, self.size.height - row * self.tile.height)
        if (inside_x, inside_y) == (self.tile.width, self.tile.height):
            return self._decoded(data, column, row, shrink, out)
        whole = np.array(self._decoded(data, column, row, 1, None))
        whole[inside_y:], whole[:, inside_x:] = 255, 255
        return block_mean(whole, shrink)

    def raw(self, column: int, row: int, *, at_once: bool = False) -> bytes | None:
        """One tile as a JPEG file: see `StoredTiles.raw`. An edge tile shows what is stored beyond the level too."""
        data = self._bytes(column, row, at_once)
        try:
            return None if data is None else self._codec.as_jpeg(data)
        except DECODE_ERRORS as error:
            raise self._damaged(column, row, str(error)) from error

    def _decoded(self, data: bytes, column: int, row: int, shrink: int, out: Pixels | None) -> Pixels:
        try:
            pixels = self._codec.decode(data, shrink, out)
        except DECODE_ERRORS as error:
            raise self._damaged(column, row, " ".join(str(error).split()) or type(error).__name__) from error
        expected = (self.tile.height // shrink, self.tile.width // shrink, 3)
        if pixels.shape != expected:
            raise self._damaged(column, row, f"it holds {pixels.shape} values instead of {expected}")
        return pixels

    def _bytes(self, column: int, row: int, at_once: bool = False) -> bytes | None:
        """Compressed bytes of one tile; None if the file holds none, or if they cannot be read at once."""
        index = row * self.columns + column
        offset, count = int(self._offsets[index]), int(self._counts[index])
        if not offset or not count:
            return None
        if not at_once:
            data: bytes | None = self._file.read(offset, count)
        else:
            data = self._file.read_at_once(offset, count) if isinstance(self._file, TileBytes) else None
        if data is None:
            return None
        if len(data) < count:
            raise self._damaged(column, row, "the file ends before it")
        return data

    def _damaged(self, column: int, row: int, why: str) -> SlideError:
        x, y = column * self.tile.width, row * self.tile.height
        return SlideError(
            f"tile at ({x}, {y}) of level {self._number} does not decode: {why}",
            todo="The file is damaged there; copy it again from its source.",
        )
