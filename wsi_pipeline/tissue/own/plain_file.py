"""The bytes of a file that may be gzipped, up to a limit."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from wsi_pipeline.errors import UsageError

_GZIP = b"\x1f\x8b"


def read_plain(path: Path, most: int) -> bytes:
    """The content of a file, decompressed if it is gzipped.

    most   bytes, unpacked

    Raises OSError if it cannot be read, UsageError if it is larger or damaged.
    """
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if raw.startswith(_GZIP):
        try:
            with gzip.open(path) as packed:
                raw = packed.read(most + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"damaged gzip file ({error})") from None
    if len(raw) > most:
        raise UsageError(f"larger than the limit of {most >> 20} MB")
    return raw
