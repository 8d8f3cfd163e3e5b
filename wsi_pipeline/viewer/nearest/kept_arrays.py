"""Arrays that the viewer keeps in the run to save time; a file that cannot be read counts as not there."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.system.atomic import atomic_path

_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def load_arrays(path: Path, names: Sequence[str]) -> tuple[NDArray[Any], ...] | None:
    """The named arrays of an npz file; None if it is missing, damaged or lacks one."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return tuple(kept[name] for name in names)
    except (*_DAMAGED, AttributeError):  # an npy file has no names
        return None


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an npz file in one step."""
    with atomic_path(path, durable=False) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
