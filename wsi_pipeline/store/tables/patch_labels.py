"""Labels in a patch store: a class for each patch, or none, row for row with the coordinates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import amend_store, open_store
from wsi_pipeline.store.schema import COORDS, LABELS, PATCH_FORMAT, ROWS_PER_CHUNK, Header
from wsi_pipeline.store.store import ArraySpec, Store
from wsi_pipeline.wording import counted

CLASSES = "classes"
NO_LABEL = -1


@dataclass(frozen=True, eq=False)
class PatchLabels:
    """What each patch shows: `values` int16 (N,), indices into `classes`, or -1 for no label."""

    values: NDArray[np.int16]
    classes: tuple[str, ...]


def write_labels(path: Path, labels: NDArray[np.integer], classes: Sequence[str]) -> None:
    """Add labels (N,) to the patch store at `path` or replace them, atomically; everything else stays unchanged.

    labels    indices into `classes`, or -1 for no label

    Raises StoreError for another number of labels than patches, indices without a class, or classes that repeat.
    """
    with open_store(path) as store:
        Header.parse(store.attrs, PATCH_FORMAT, path)
        count = store.shape(COORDS)[0]
    names = _checked_classes(list(classes), path)
    values = np.asarray(labels)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise StoreError(f"{path}: labels must be integers ({count},), got {values.dtype} {values.shape}")
    _check_values(values, len(names), path)
    with amend_store(path) as writer:
        writer.remove(LABELS)
        attrs = {CLASSES: json.dumps(names)}
        writer.create(ArraySpec(LABELS, (count,), "int16", ROWS_PER_CHUNK, attrs=attrs))
        writer.write(LABELS, 0, values.astype(np.int16))


def read_labels(store: Store, count: int, path: Path) -> PatchLabels | None:
    """The labels of an open patch store of `count` patches, None if it has none. Raises StoreError if damaged."""
    if LABELS not in store.names():
        return None
    try:
        names = json.loads(store.array_attrs(LABELS)[CLASSES])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: labels lack their classes ({error})", todo=_AGAIN) from None
    values = store.read(LABELS)
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise StoreError(f"{path}: {counted(count, 'patch')} but labels {values.dtype} {values.shape}", todo=_AGAIN)
    classes = _checked_classes(names, path)
    _check_values(values, len(classes), path)
    return PatchLabels(values.astype(np.int16), tuple(classes))


_AGAIN = "Write the labels again as docs/format.md describes"


def _checked_classes(names: object, path: Path) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise StoreError(f"{path}: classes must be a list of names, got {names!r}", todo=_AGAIN)
    if len(set(names)) != len(names) or len(names) > np.iinfo(np.int16).max:
        raise StoreError(f"{path}: classes must be unique and at most {np.iinfo(np.int16).max}", todo=_AGAIN)
    return names


def _check_values(values: NDArray[np.integer], classes: int, path: Path) -> None:
    if len(values) and not (values.min() >= NO_LABEL and values.max() < classes):
        raise StoreError(
            f"{path}: labels must be -1 or 0 to {classes - 1}, got {values.min()} to {values.max()}", todo=_AGAIN
        )
