"""The bytes of a text file that may be packed with gzip, never more than a bound."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from wsi_pipeline.errors import UsageError

_GZIP = b"\x1f\x8b"


def read_plain(path: Path, most: int) -> bytes:
    """What a file holds, unpacked where it is gzip.

    most   bytes, unpacked

    Raises OSError where it cannot be read, UsageError where it is larger or does not unpack.
    """
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if raw.startswith(_GZIP):
        try:
            with gzip.open(path) as packed:
                raw = packed.read(most + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"gzip that does not unpack ({error})") from None
    if len(raw) > most:
        raise UsageError(f"too large: at most {most >> 20} MB are read")
    return raw
