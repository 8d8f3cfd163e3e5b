"""Short hashes of the patients and slides an adapter was tuned on.

They identify these patients later without naming them. Adapter files contain the hashes, and adapter files are shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LENGTH = 16


def name_hash(name: str) -> str:
    """The first 16 hexadecimal digits of a name's SHA-256."""
    return hashlib.sha256(f"wsi-pipeline group {name}".encode()).hexdigest()[:_LENGTH]


def name_hashes(names: Iterable[str]) -> list[str]:
    """The hashes of several names, unique and sorted."""
    return sorted({name_hash(name) for name in names})
