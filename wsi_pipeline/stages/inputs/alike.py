"""Whether two sets of features were made alike: how patches look (refused if not) and which there are (a warning).

Not compared: `precision`, `dtype` and `jpeg_quality`, which change values by rounding, and what decides nothing about
patches or features, such as `quality`. The encoder's weights are compared by `Ensemble.check_encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_pipeline.errors import MilError
from wsi_pipeline.store.schema import IMPORTED, NETWORKS, Header
from wsi_pipeline.wording import listed

Specs = Mapping[str, Mapping[str, Any]]

_TISSUE = ("method", "mask_mpp", "min_tissue_um2", "max_hole_um2")
_LAID = ("overlap_px", "min_coverage", "drop_artefacts")
_OFF = {"input_px": 0, "whole_patch": False, "drop_artefacts": False}
"""Settings that stores name only where they are set, and what they are otherwise."""
_SHOWN = 12
"""Digits of a digest in messages."""


def differing_patches(here: Specs, other: Specs) -> list[str]:
    """Differences between two sets of patches in the settings that both state: `patch_px 512, not 256`."""
    a, b = (dict(specs.get("tile") or specs.get("import") or {}) for specs in (here, other))
    both_imported = "tile" not in here and "tile" not in other
    keys = ("patch_px", "mpp", "magnification", "overlap_px") if both_imported else ("patch_px", "mpp")
    asked = [(key, a.get(key), b.get(key)) for key in keys]
    strict = "tile" in here and "tile" in other
    return [
        f"{key} {mine}, not {its}"
        for key, mine, its in asked
        if mine != its and (strict or (mine is not None and its is not None))
    ] + ([*_differing(here, other, "embed", ("input_px", "whole_patch")), *differing_stain(here, other)]
         if strict else [])  # fmt: skip


def differing_stain(here: Specs, other: Specs) -> list[str]:
    """Differences between two sets of features in how their stain was normalised: `stain_norm none, not macenko`."""
    a, b = (specs.get("embed") or {} for specs in (here, other))
    mine, its = (one.get("stain_norm", "none") for one in (a, b))
    if mine != its:
        return [f"stain_norm {mine}, not {its}"]
    same = a.get("stain_target") == b.get("stain_target")
    return [] if same else [f"stain_target {a.get('stain_target')}, not {b.get('stain_target')}"]


def differing_tissue(here: Specs, other: Specs) -> list[str]:
    """Differences in how tissue was found and patches were laid over it: `method hest, not hybrid`.

    Networks are named with the SHA-256 of their weights. Nothing is compared with the patches of another tool, which
    does not say how it found tissue.
    """
    if not all("segment" in specs and "tile" in specs for specs in (here, other)):
        return []
    found = _differing(here, other, "segment", _TISSUE)
    mine, its = ((specs.get(NETWORKS) or {}) for specs in (here, other))
    for kind in ("tissue", "artefacts"):
        if mine.get(kind) != its.get(kind):
            found.append(f"network for {kind}: {network_words(mine.get(kind))}, not {network_words(its.get(kind))}")
    return found + _differing(here, other, "tile", _LAID)


def tissue_warnings(here: Specs, other: Specs) -> list[str]:
    """A warning if the slides to be predicted (`here`) were prepared otherwise than those of the training (`other`)."""
    differing = differing_tissue(here, other)
    if not differing:
        return []
    what = listed(differing, len(differing))
    return [
        f"Tissue was found, or patches laid over it, otherwise than for the training: {what}. "
        "The model sees other parts of the slides than it was trained on: tile and embed with the settings of the "
        "training, or judge it by labelled slides prepared like these."
    ]


def network_words(facts: Mapping[str, Any] | None) -> str:
    """A recorded network for messages: its name and the first digits of the digest of its weights."""
    return f"{facts['network']} (weights {str(facts['sha256'])[:_SHOWN]})" if facts else "none"


def _differing(here: Specs, other: Specs, stage: str, keys: tuple[str, ...]) -> list[str]:
    """Settings of a stage that both state and that differ."""
    a, b = ((specs.get(stage) or {}) for specs in (here, other))
    pairs = [(key, a.get(key, _OFF.get(key)), b.get(key, _OFF.get(key))) for key in keys]
    return [f"{key} {mine}, not {its}" for key, mine, its in pairs if None not in (mine, its) and mine != its]


def check_alike(headers: Sequence[Header]) -> None:
    """Raise MilError if features, by the headers of their stores, are of different weights or settings."""
    first = headers[0]
    for header in headers[1:]:
        if header.extra["encoder"].get("slide_encoder") != first.extra["encoder"].get("slide_encoder"):
            raise MilError(
                f"slides {first.slide.slide_id} and {header.slide.slide_id} were embedded by different slide encoders",
                todo="Run again: wsi-pipeline embed-slides, with the same --weights or --trained for all slides",
            )
        same_weights = header.extra["encoder"]["fingerprint"] == first.extra["encoder"]["fingerprint"]
        both = {IMPORTED in one.extra for one in (first, header)}
        if both == {True}:
            _check_imported_alike(first, header)
        elif not same_weights or header.specs != first.specs:
            stains = differing_stain(header.specs, first.specs)
            what = f"other settings{stains and f': {listed(stains)}'}" if same_weights else "other weights"
            raise MilError(
                f"slides {first.slide.slide_id} and {header.slide.slide_id} were embedded with {what}",
                todo=f"Run again: wsi-pipeline tile, then wsi-pipeline embed --model {first.extra['encoder']['name']}",
            )


def _check_imported_alike(first: Header, header: Header) -> None:
    differing = differing_patches(header.specs, first.specs)
    if header.extra["encoder"]["dim"] != first.extra["encoder"]["dim"]:
        differing.append(f"{header.extra['encoder']['dim']} features, not {first.extra['encoder']['dim']}")
    if differing:
        raise MilError(
            f"imported features of {header.slide.slide_id} and {first.slide.slide_id} differ: {', '.join(differing)}",
            todo="Import features of the same patches for all slides, or train on some of the slides with --only",
        )
