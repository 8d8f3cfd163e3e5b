"""Which image files are copies of one another, without reading them all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def content_digests(paths: Sequence[Path], stamps: Sequence[str]) -> list[str]:
    """A digest for each file, equal only for equal bytes.

    stamps   of length and some bytes (`ImageFact.stamp`): a file whose stamp is its own is not read again

    Raises OSError for a file that went away.
    """
    counts = Counter(stamps)
    digests: list[str] = []
    for path, stamp in zip(paths, stamps, strict=True):
        digests.append(stamp if counts[stamp] == 1 else f"{stamp}-{_sha256(path)}")
    return digests


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
