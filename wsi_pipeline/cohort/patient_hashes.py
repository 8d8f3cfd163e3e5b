"""Marks of the patients and slides an adapter was tuned on: enough to find them again, too little to read their names.

They travel in the adapter file, which people share; so they are cut digests, not identifiers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LENGTH = 16


def mark(name: str) -> str:
    """Sixteen hexadecimal digits of a name's SHA-256."""
    return hashlib.sha256(f"wsi-pipeline group {name}".encode()).hexdigest()[:_LENGTH]


def marks(names: Iterable[str]) -> list[str]:
    """The marks of some names, each once, sorted."""
    return sorted({mark(name) for name in names})
