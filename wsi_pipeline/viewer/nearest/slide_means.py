"""Mean features of each slide for distances between slides, computed once and kept in the run."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.run_dir import RunDir, existing_store, slug
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import StoreError, WsiPipelineError
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.inputs.alike import check_alike
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import FEATURE_FORMAT, FEATURES, IMPORTED, Header
from wsi_pipeline.viewer.nearest.kept_arrays import load_arrays, save_arrays

_ROWS = 16_384

Mean = NDArray[np.float32]


class SlideMeans:
    """slide_id -> mean feature (D,) float32 of one encoder; unchanged stores are not read again."""

    def __init__(self, run: RunDir, encoder: str) -> None:
        self._run, self._encoder, self._lock = run, encoder, threading.Lock()
        self._known: dict[str, tuple[int, str, Mean]] = {}
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
                    read = _mean_of(store)
                    if read is None:
                        continue
                    known, changed = (mark, *read), True
                    self._known[slide_id] = known
                found[slide_id] = known[2]
            if changed:
                self._save()
            return found

    def made(self, slide_ids: list[str]) -> dict[str, list[str]]:
        """These slides, whose means are known, by how their features were made: a digest of weights and settings."""
        found: dict[str, list[str]] = {}
        for slide_id in slide_ids:
            found.setdefault(self._known[slide_id][1], []).append(slide_id)
        return found

    def header(self, slide_id: str) -> Header:
        """Header of a slide's features. Raises StoreError if they cannot be read."""
        path = existing_store(self._run.feature_store(self._encoder, slide_id))
        header = read_header(path, FEATURE_FORMAT) if path else None
        if header is None:
            raise StoreError(f"the features of {slide_id} cannot be read")
        return header

    def check_alike(self, slide_ids: list[str]) -> None:
        """Raise MilError if two of these slides, whose means are known, were embedded differently."""
        one_of_each = [same[0] for same in self.made(slide_ids).values()]
        if len(one_of_each) > 1:
            check_alike([self.header(slide_id) for slide_id in one_of_each])

    def _load(self) -> None:
        self._loaded = True
        kept = load_arrays(self._file, ("ids", "marks", "digests", "means"))
        if kept is None or len({len(part) for part in kept}) != 1:
            return
        rows = zip(kept[0].tolist(), kept[1].tolist(), kept[2].tolist(), kept[3], strict=True)
        self._known = {str(name): (int(mark), str(made), mean) for name, mark, made, mean in rows}

    def _save(self) -> None:
        widths = [len(mean) for *_, mean in self._known.values()]
        kept = {key: item for key, item in self._known.items() if len(item[2]) == widths[-1]}
        marks = np.array([mark for mark, *_ in kept.values()], np.int64)
        means = np.stack([mean for *_, mean in kept.values()])
        made = np.array([made for _, made, _ in kept.values()], np.str_)
        save_arrays(self._file, {"ids": np.array(list(kept), np.str_), "marks": marks, "digests": made, "means": means})


def _mean_of(path: Path) -> tuple[str, Mean] | None:
    """How a store's features were made (a digest), and the mean of its rows; None if it has no rows or cannot be
    read.
    """
    try:
        with closing(open_store(path)) as store:
            header = Header.parse(store.attrs, FEATURE_FORMAT, path)
            rows, dim = store.shape(FEATURES)
            total = np.zeros(dim, np.float64)
            for first in range(0, rows, _ROWS):
                total += store.read(FEATURES, first, min(rows, first + _ROWS)).sum(axis=0, dtype=np.float64)
    except (WsiPipelineError, OSError):
        return None
    if not rows:
        return None
    own = {"encoder": dict(header.extra["encoder"]), "specs": dict(header.specs), "imported": IMPORTED in header.extra}
    return digest_of(**own)[:16], (total / rows).astype(np.float32)
