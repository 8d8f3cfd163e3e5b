"""From feature stores to what slide-level models take: bags and a table, and who is left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.groups import CONTENT
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, existing_store
from wsi_pipeline.cohort.status import read_status
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.stages.freshness import read_header
from wsi_pipeline.store.features import FeatureTable, read_features
from wsi_pipeline.store.schema import PATCH_FORMAT, Header


@dataclass(frozen=True, eq=False)
class SlideBags:
    """Slides with features of one encoder.

    table       slide_id, patient_id, label (None where unknown), split and site (where given), content (a digest of
                the slide's file); row i is bag i
    bags        their features
    encoder     identity of the encoder: the same for all
    specs       the settings of segment, tile and embed: the same for all
    digests     slide_id -> digest of its feature store
    left_out    slide_id -> why it is not here
    adapter     the encoder's adapter file, as stages.adapters remembers it; "" for an encoder without one
    tuned_on    slides whose own labels, or their patient's, the encoder was tuned on
    """

    table: pd.DataFrame
    bags: Bags
    encoder: dict[str, Any]
    specs: dict[str, dict[str, Any]]
    digests: dict[str, str]
    left_out: dict[str, str]
    adapter: str = ""
    tuned_on: tuple[str, ...] = ()

    def labelled(self) -> SlideBags:
        """Only the slides that have a label."""
        known = np.flatnonzero(self.table["label"].notna().to_numpy())
        unknown = dict.fromkeys(self.table["slide_id"][self.table["label"].isna()], "no label")
        table = self.table.iloc[known].reset_index(drop=True)
        kept = {slide: self.digests[slide] for slide in table["slide_id"]}
        bags = self.bags.subset(known)
        left_out = {**self.left_out, **unknown}
        tuned_on = tuple(slide for slide in self.tuned_on if slide in kept)
        return SlideBags(table, bags, self.encoder, self.specs, kept, left_out, self.adapter, tuned_on)


def gather(run: RunDir, records: Sequence[SlideRecord], encoder: str) -> SlideBags:
    """Read the features of `records` by `encoder` (a folder name under embed/).

    Empty, failed and not yet embedded slides are left out. Raises MilError when none is left, when features are
    older than their patches, or when slides were embedded with different weights or settings.
    """
    left_out: dict[str, str] = {}
    kept: list[tuple[SlideRecord, FeatureTable]] = []
    for record in records:
        path = existing_store(run.feature_store(encoder, record.slide_id))
        if path is None:
            left_out[record.slide_id] = _why_missing(run, record, encoder)
            continue
        table = read_features(path)
        _check_current(run, record, table.header, encoder)
        if len(table.features) == 0:
            left_out[record.slide_id] = "empty"
            continue
        kept.append((record, table))
    if not kept:
        raise MilError(f"no slide has features of {encoder}", todo=f"Run first: wsi-pipeline embed --model {encoder}")
    _check_alike([table.header for _, table in kept], encoder)
    header = kept[0][1].header
    ids = [record.slide_id for record, _ in kept]
    return SlideBags(
        table=_table([record for record, _ in kept], [table.header.slide.quick_digest for _, table in kept]),
        bags=Bags.from_arrays([table.features for _, table in kept], ids),
        encoder=header.extra["encoder"],
        specs=header.specs,
        digests={record.slide_id: table.header.digest for record, table in kept},
        left_out=left_out,
        adapter=str(header.extra.get("adapter", "")),
        tuned_on=tuple(record.slide_id for record, table in kept if table.header.extra.get("tuned_on")),
    )


def _table(records: Sequence[SlideRecord], contents: Sequence[str]) -> pd.DataFrame:
    columns: dict[str, list[str | None]] = {
        "slide_id": [record.slide_id for record in records],
        "patient_id": [record.patient_id for record in records],
        "label": [record.label for record in records],
    }
    if any(record.split for record in records):
        columns["split"] = [record.split for record in records]
    if any(record.site for record in records):
        columns["site"] = [record.site for record in records]
    columns[CONTENT] = list(contents)
    return pd.DataFrame(columns, dtype=object)


def _why_missing(run: RunDir, record: SlideRecord, encoder: str) -> str:
    failed = read_status(run.status(record.slide_id), record.slide_id).failed
    return f"failed in {failed[0]}" if failed else f"not embedded with {encoder}"


def _check_current(run: RunDir, record: SlideRecord, header: Header, encoder: str) -> None:
    path = existing_store(run.patch_store(record.slide_id))
    patches = read_header(path, PATCH_FORMAT) if path else None
    if patches is not None and patches.digest != header.parent_digest:
        raise MilError(
            f"features of {encoder} are older than the slide's patches",
            slide=record.slide_id,
            todo=f"Run again: wsi-pipeline embed --model {header.extra['encoder']['name']}",
        )


def _check_alike(headers: Sequence[Header], encoder: str) -> None:
    first = headers[0]
    for header in headers[1:]:
        same_weights = header.extra["encoder"]["fingerprint"] == first.extra["encoder"]["fingerprint"]
        if not same_weights or header.specs != first.specs:
            what = "other settings" if same_weights else "other weights"
            raise MilError(
                f"slides {first.slide.slide_id} and {header.slide.slide_id} were embedded with {what}",
                todo=f"Run again: wsi-pipeline tile, then wsi-pipeline embed --model {first.extra['encoder']['name']}",
            )
