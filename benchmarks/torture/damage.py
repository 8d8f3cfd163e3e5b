"""Flip bytes of stores and cut files: nothing may be read as something else, nothing may crash the reader.

    python -m benchmarks.torture.damage --cases 3000

Each case is one flipped bit or byte, or one cut, in a small store of every array there is, read whole afterwards. It
ends in one of: found (DamagedStoreError), harmless (the byte holds nothing; all is read as written), wrong (something
else was read), other (another error), crash (the reading process died).
"""

from __future__ import annotations

import random
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.torture.store_cases import Torture, content, make
from wsi_pipeline.errors import DamagedStoreError


def verdict(path: Path, whole: dict[str, Any]) -> str:
    """What reading the store comes to."""
    try:
        return "harmless" if content(path) == whole else "wrong"
    except DamagedStoreError:
        return "found"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"other: {type(error).__name__}: {str(error)[:80]}"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one bit or byte changed, or, once in ten, cut."""
    where = rng.randrange(len(data))
    if rng.random() < 0.1:
        return data[:where]
    out = bytearray(data)
    out[where] ^= rng.choice([0xFF, 1 << rng.randrange(8)])
    return bytes(out)


def _cases(sender: Connection, path: Path, seeds: range) -> None:
    whole = content(make(path))
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    bytes_of = {file: file.read_bytes() for file in files}
    for seed in seeds:
        rng = random.Random(seed)
        victim = rng.choices(files, [len(bytes_of[file]) for file in files])[0]
        victim.write_bytes(damaged(bytes_of[victim], rng))
        sender.send(verdict(path, whole))
        victim.write_bytes(bytes_of[victim])


TORTURE = Torture(_cases, fine=("found", "harmless"))


if __name__ == "__main__":
    sys.exit(TORTURE.main(__doc__, 3000, share=5))
