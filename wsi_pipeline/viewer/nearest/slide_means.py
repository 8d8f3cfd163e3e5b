"""Mean features of each slide for distances between slides, computed once and kept in the run."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.run_dir import RunDir, existing_store, slug
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import FEATURES
from wsi_pipeline.viewer.nearest.kept_arrays import load_arrays, save_arrays

_ROWS = 16_384

Mean = NDArray[np.float32]


class SlideMeans:
    """slide_id -> mean feature (D,) float32 of one encoder; unchanged stores are not read again."""

    def __init__(self, run: RunDir, encoder: str) -> None:
        self._run, self._encoder, self._lock = run, encoder, threading.Lock()
        self._known: dict[str, tuple[int, Mean]] = {}
        self._loaded = False

    @property
    def _file(self) -> Path:
        return self._run.view / f"means-{slug(self._encoder)}.npz"

    def of(self, slide_ids: list[str]) -> dict[str, Mean]:
        """Means of those slides that have features. New or changed stores are read and their means kept in the run."""
        with self._lock:
            if not self._loaded:
                self._load()
            changed = False
            found: dict[str, Mean] = {}
            for slide_id in slide_ids:
                store = existing_store(self._run.feature_store(self._encoder, slide_id))
                if store is None:
                    continue
                mark = store.stat().st_mtime_ns
                known = self._known.get(slide_id)
                if known is None or known[0] != mark:
                    mean = _mean_of(store)
                    if mean is None:
                        continue
                    known, changed = (mark, mean), True
                    self._known[slide_id] = known
                found[slide_id] = known[1]
            if changed:
                self._save()
            return found

    def _load(self) -> None:
        self._loaded = True
        kept = load_arrays(self._file, ("ids", "marks", "means"))
        if kept is None or len({len(part) for part in kept}) != 1:
            return
        rows = zip(kept[0].tolist(), kept[1].tolist(), kept[2], strict=True)
        self._known = {str(name): (int(mark), mean) for name, mark, mean in rows}

    def _save(self) -> None:
        widths = [len(mean) for _, mean in self._known.values()]
        kept = {key: item for key, item in self._known.items() if len(item[1]) == widths[-1]}
        marks = np.array([mark for mark, _ in kept.values()], np.int64)
        means = np.stack([mean for _, mean in kept.values()])
        save_arrays(self._file, {"ids": np.array(list(kept), np.str_), "marks": marks, "means": means})


def _mean_of(path: Path) -> Mean | None:
    """Mean of a store's rows; None if the store has no rows or cannot be read."""
    try:
        with closing(open_store(path)) as store:
            rows, dim = store.shape(FEATURES)
            total = np.zeros(dim, np.float64)
            for first in range(0, rows, _ROWS):
                total += store.read(FEATURES, first, min(rows, first + _ROWS)).sum(axis=0, dtype=np.float64)
    except (WsiPipelineError, OSError):
        return None
    return (total / rows).astype(np.float32) if rows else None
