"""fractions.csv: the fraction of each class in each slide of a run, by one adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import STORE_SUFFIXES, RunDir, existing_store, slug
from wsi_pipeline.errors import StoreError
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.store.schema import CLASS_FORMAT, PATCH_FORMAT, Header
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.locks import LockedError, locked

LOCK_WAIT_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Fractions:
    """One row per classified slide; `table` as in fractions.csv, `left_out` the slides classified with other settings.

    headers   slide_id -> header of its class store, for the slides of the table
    """

    table: pd.DataFrame
    left_out: tuple[str, ...]
    headers: dict[str, Header]


def write_fractions(run: RunDir, model: str, records: Sequence[SlideRecord], like: Header) -> Fractions:
    """Gather all class stores of `model` that have the adapter and settings of `like`, and write fractions.csv.

    Holds a lock, so that if several jobs end together, the last one writes the slides of all. Raises StoreError if
    another process does not release the lock.
    """
    path = run.fractions(model)
    try:
        with locked(run.lock("fractions", slug(model)), LOCK_WAIT_SECONDS):
            found = gather_fractions(run, model, records, like)
            write_text(path, found.table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    except LockedError:
        raise StoreError(f"another process has been writing {path} for a minute", todo="Run it again.") from None
    return found


def gather_fractions(run: RunDir, model: str, records: Sequence[SlideRecord], like: Header | None = None) -> Fractions:
    """The table of one adapter over the slides of a run, in the order of `records`.

    like   header with the adapter and settings to gather; None: that of the first classified slide
    """
    rows, left_out, headers = [], [], {}
    for record in records:
        header = current_header(run, model, record)
        like = like or header
        if header is None or like is None:
            continue
        if made_alike(header, like):
            rows.append({"slide_id": record.slide_id, **_row(header)})
            headers[record.slide_id] = header
        else:
            left_out.append(record.slide_id)
    return Fractions(pd.DataFrame(rows, columns=_columns(like)), tuple(left_out), headers)


def current_header(run: RunDir, model: str, record: SlideRecord) -> Header | None:
    """Header of a slide's class store; None if it does not exist or the patches have changed since."""
    path, source = (
        existing_store(place(record.slide_id)) for place in (lambda name: run.class_store(model, name), run.patch_store)
    )
    header = read_header(path, CLASS_FORMAT) if path else None
    patches = read_header(source, PATCH_FORMAT) if source else None
    if header is None or patches is None or header.parent_digest != patches.digest:
        return None
    return header


def classified(run: RunDir) -> tuple[str, ...]:
    """Sorted folder names under classify/: the adapters that this run's slides were classified with."""
    folder = run.classify("x").parent
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def newest_classes(run: RunDir, model: str, slide_ids: Iterable[str]) -> Header | None:
    """Header of the class store of `model` that was written last; None if no slide is classified."""
    known, folder = set(slide_ids), run.classify(model)
    found = folder.iterdir() if folder.is_dir() else ()  # one listing: asking for each slide takes longer
    stores = [path for path in found if path.suffix in STORE_SUFFIXES.values() and path.stem in known]
    for store in sorted(stores, key=_written, reverse=True):
        header = read_header(store, CLASS_FORMAT)
        if header is not None:
            return header
    return None


def made_alike(header: Header, like: Header) -> bool:
    """Whether two slides were classified by the same weights with the same settings."""
    one, other = (each.extra.get("encoder", {}).get("fingerprint") for each in (header, like))
    return bool(one == other and header.specs == like.specs)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _columns(like: Header | None) -> list[str]:
    classes = list(like.extra["classes"]) if like else []
    fractions = [f"fraction_{name}" for name in classes]
    return ["slide_id", "patches", *fractions, "unclear", *(f"mean_p_{name}" for name in classes)]


def _row(header: Header) -> dict[str, object]:
    """Numbers of one slide; a slide without patches has no fractions."""
    extra = header.extra
    return {
        "patches": int(extra["patches"]),
        **{f"fraction_{name}": part for name, part in extra["fractions"].items()},
        "unclear": extra["unclear"] if extra["patches"] else None,
        **{f"mean_p_{name}": part for name, part in extra["mean_probabilities"].items()},
    }
