"""Files of an export: HDF5 and CSV written completely or not at all, and a record of which slides are done.

.wsi-pipeline/export.json         what the folder is an export of
.wsi-pipeline/<slide_id>.json     digest of what was exported, and the files with their sizes; written last
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.atomic import atomic_path, remove, write_text, write_text_if_changed

LEDGER = ".wsi-pipeline"
_ABOUT = "export.json"
_ROWS = 4096


def write_h5(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    attrs: Mapping[str, Mapping[str, Any]],
    root: Mapping[str, Any] | None = None,
) -> Path:
    """Write arrays with attributes to an HDF5 file, atomically; equal content gives equal bytes."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        for name, array in arrays.items():
            rows = max(1, min(_ROWS, len(array)))
            chunks = (rows, *array.shape[1:]) if array.size else None
            data = file.create_dataset(name, data=array, chunks=chunks, maxshape=_growing(array), track_times=False)
            data.attrs.update(attrs.get(name, {}))
        file.attrs.update(root or {})
    return path


def _growing(array: NDArray[Any]) -> tuple[int | None, ...] | None:
    return (None, *array.shape[1:]) if array.size else None


def write_npy(path: Path, array: NDArray[Any]) -> Path:
    """Write one array as .npy, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return path


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write a table as CSV, atomically and only if it differs; numbers with nine digits."""
    text = table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    write_text_if_changed(path, text)
    return path


@dataclass(frozen=True)
class Ledger:
    """The record of finished slides, in the export's hidden folder `.wsi-pipeline`."""

    folder: Path

    def begin(self, **facts: str) -> None:
        """Record what is exported here. Raises UsageError if the folder holds another export."""
        path = self.folder / LEDGER / _ABOUT
        known = _read(path)
        differing = [name for name, value in facts.items() if known.get(name, value) != value]
        if differing:
            found = ", ".join(f"{name} {known[name]}, not {facts[name]}" for name in differing)
            raise UsageError(f"{self.folder} holds another export: {found}", todo="Choose another folder with --out")
        if known != facts:
            write_text(path, json.dumps(facts, indent=2) + "\n")

    def done(self, slide_id: str, digest: str) -> bool:
        """Whether a slide was exported with this digest and its files still exist with their sizes."""
        known = _read(self._path(slide_id))
        files = known.get("files")
        return known.get("digest") == digest and isinstance(files, dict) and all(map(self._whole, files.items()))

    def files(self, slide_id: str) -> tuple[str, ...]:
        """Files of a slide, relative to the folder; none if it was left out or is not done."""
        return tuple(_read(self._path(slide_id)).get("files", {}))

    def holding(self) -> list[str]:
        """Slides with files written here, done or not, sorted by name."""
        places = sorted((self.folder / LEDGER / "slides").glob("*.json"))
        return [path.name.removesuffix(".json") for path in places if _read(path).get("files")]

    def record(self, slide_id: str, digest: str, files: Sequence[Path]) -> None:
        """Record that a slide is done; its files from an earlier export that are not in `files` are removed."""
        sizes = {str(path.relative_to(self.folder)): _size(path) for path in sorted(files)}
        for name in set(_read(self._path(slide_id)).get("files", {})) - set(sizes):
            if ".." not in Path(name).parts and not Path(name).is_absolute():
                remove(self.folder / name)
        write_text(self._path(slide_id), json.dumps({"digest": digest, "files": sizes}, indent=1) + "\n")

    def _path(self, slide_id: str) -> Path:
        return self.folder / LEDGER / "slides" / f"{slide_id}.json"

    def _whole(self, entry: tuple[str, Any]) -> bool:
        path = self.folder / entry[0]
        return path.exists() and _size(path) == entry[1]


def _size(path: Path) -> int:
    """Size of a file in bytes; for a folder, the number of its files at any depth."""
    return sum(1 for item in path.rglob("*") if item.is_file()) if path.is_dir() else path.stat().st_size


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none or it does not parse."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
