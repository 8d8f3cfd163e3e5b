"""Whether a stage's output is up to date: digests of its settings and inputs, and the reason if it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import ClassifySpec, SegmentSpec, TileSpec
from wsi_pipeline.errors import DamagedStoreError, StoreError
from wsi_pipeline.quality.measures import REVISION as QUALITY_REVISION
from wsi_pipeline.stages.engine.known_files import look_up
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.quarantine import set_aside, set_aside_copies
from wsi_pipeline.store.schema import RESULT_VERSION as VERSION
from wsi_pipeline.store.schema import Header, SlideIdentity

REVISIONS = {
    "segment": 3,
    "tile": 2,
    "tune": 1,
    "embed": 1,
    "embed-slides": 1,
    "classify": 1,
    "train-mil": 4,
    "heatmap": 2,
}
"""Increase a number when a stage's code starts to give other results for the same settings: old ones are redone."""

OFF = {"stain_norm": "none", "input_px": 0, "whole_patch": False, "drop_artefacts": False}
"""Settings that stores name only where they are set, and what they are otherwise."""


def segment_digest(
    spec: SegmentSpec, slide: SlideIdentity, tissue: str | None = None, networks: Mapping[str, Any] | None = None
) -> str:
    """Digest of a tissue mask: settings, the slide's bytes and resolution.

    tissue     digest of the user's mask file
    networks   the networks that were used, with the hash of their weights
    """
    return digest_of(
        stage="segment",
        version=VERSION,
        revision=REVISIONS["segment"],
        spec=asdict(spec),
        slide=slide.digest_parts(),
        **({} if tissue is None else {"tissue": tissue}),
        **({"networks": networks} if networks else {}),
    )


def tile_digest(spec: TileSpec, segment: str) -> str:
    """Digest of a patch store: settings and tissue mask; and the measures of quality, if they decide about patches."""
    measures = {"quality": QUALITY_REVISION} if spec.drop_artefacts else {}
    return digest_of(
        stage="tile", version=VERSION, revision=REVISIONS["tile"], spec=spec.facts(), parent=segment, **measures
    )


def quality_digest(whose: str, tile: str) -> str:
    """Digest of the measures in a patch store: of whose pixels (sample or all), the measures, the patches."""
    return digest_of(stage="quality", version=VERSION, revision=QUALITY_REVISION, pixels=whose, parent=tile)


def embed_digest(facts: Mapping[str, Any], tile: str, fingerprint: str) -> str:
    """Digest of a feature store: settings, the patches, the encoder's weights."""
    return digest_of(
        stage="embed",
        version=VERSION,
        revision=REVISIONS["embed"],
        spec=facts,
        parent=tile,
        model=fingerprint,
    )


def embed_slides_digest(spec: Mapping[str, Any], features: str, fingerprint: str, by: Any = None) -> str:
    """Digest of a slide embedding: settings, features, slide encoder; `by`: the parts of it that are used."""
    return digest_of(
        stage="embed-slides",
        version=VERSION,
        revision=REVISIONS["embed-slides"],
        spec=spec,
        parent=features,
        model=fingerprint,
        by=by,
    )


def classify_digest(spec: ClassifySpec, tile: str, fingerprint: str) -> str:
    """Digest of a class store: settings, the patches, the adapter."""
    return digest_of(
        stage="classify", version=VERSION, revision=REVISIONS["classify"], spec=asdict(spec), parent=tile,
        model=fingerprint,
    )  # fmt: skip


def read_header(path: Path, wanted: str) -> Header | None:
    """The header of a store; None if the store is missing, damaged or of another version and must be rewritten.

    A damaged store is set aside.
    """
    try:
        return Header.parse(dict(look_up(path, "attrs", lambda: _attrs(path))), wanted, path)
    except DamagedStoreError as error:
        set_aside(error)
    except StoreError:
        pass
    return None


def _attrs(path: Path) -> dict[str, Any]:
    with open_store(path) as store:
        return store.attrs


def stale(
    path: Path, header: Header | None, specs: Mapping[str, Mapping[str, Any]], fingerprint: str | None = None
) -> Freshness:
    """Why an output is not up to date: missing, changed settings (old -> new), another encoder, changed input.

    fingerprint   fingerprint of the network that would be used now
    """
    if header is None:
        copies = set_aside_copies(path)
        damaged = f"damaged, kept as {copies[-1].name}" if copies else ""
        return Freshness(False, "unreadable or of another version" if path.exists() else damaged)
    if "import" in header.specs and not set(specs) & set(header.specs):
        return Freshness(False, f"it replaces what was imported from {header.specs['import'].get('tool')}")
    changed = [
        f"{key} {header.specs.get(stage, {}).get(key, OFF.get(key))} -> {value}"
        for stage, spec in specs.items()
        for key, value in spec.items()
        if header.specs.get(stage, {}).get(key) != value
    ]
    changed += [
        f"{key} {value} -> {OFF[key]}"
        for stage, spec in specs.items()
        for key, value in header.specs.get(stage, {}).items()
        if key in OFF and key not in spec
    ]
    changed += [
        f"{stage} code revision {header.extra.get('revision')} -> {REVISIONS[stage]}"
        for stage in specs
        if header.extra.get("revision") != REVISIONS[stage]
    ]
    if fingerprint and header.extra.get("encoder", {}).get("fingerprint") != fingerprint:
        changed.append("other weights or image preprocessing")
    return Freshness(False, ", ".join(changed) or "its input has changed")
