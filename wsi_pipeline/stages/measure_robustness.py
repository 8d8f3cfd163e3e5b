"""How far features of the patches of a run move when the patches are changed a little. Used by `robustness`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders.encoder import Encoder, EncoderPlan
from wsi_pipeline.errors import UsageError
from wsi_pipeline.files.addresses import may_exist
from wsi_pipeline.reading.patch_sources import SlidePatches
from wsi_pipeline.robustness.confounding import measure_confounding
from wsi_pipeline.robustness.movement import measure_movement, measure_neighbours, unit
from wsi_pipeline.robustness.perturbations import Perturbation, all_perturbations, centre, margin_px
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.stages.engine.runner import catch_failure
from wsi_pipeline.stages.inputs.slide_stain import changed_profiles, sample_rows
from wsi_pipeline.stages.inputs.stain_files import StainTarget
from wsi_pipeline.stains.stain_profile import StainProfile
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.wording import EMPTY_TODO

if TYPE_CHECKING:
    from wsi_pipeline.stains.recolour import Recolouring

VERSION = 1
"""Raised when the code starts to give other results for the same settings."""
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class SampledSlide:
    """The patches of one slide that are changed: `coords` int64 (n, 2), level-0 pixels, margins included.

    typical   places (m, 2) of the patches that the slide's stain is measured on, margins included
    """

    record: SlideRecord
    digest: str
    coords: NDArray[np.int64]
    geometry: PatchGeometry
    typical: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Gives a slide the stain of a target, by a profile that is measured under each change.

    known   profiles of the slides done so far: the same for all encoders
    """

    run: RunDir
    target: StainTarget
    known: dict[str, list[StainProfile]] = field(default_factory=dict)

    def profiles(self, slide: SampledSlide, opened: Slide, changes: Sequence[Perturbation]) -> list[StainProfile]:
        """Profiles of the slide: as it is, then under each change."""
        name, side = slide.record.slide_id, _inner(slide.geometry.patch_px)
        if name not in self.known:
            source = SlidePatches(opened, slide.typical, slide.geometry)
            self.known[name] = changed_profiles(
                self.run, slide.record, self.target.method, source, side, slide.geometry.mpp, changes
            )
        return self.known[name]


def choose_sample(run: RunDir, records: Sequence[SlideRecord], count: int, seed: int) -> tuple[SampledSlide, ...]:
    """`count` patches, spread evenly over the tiled slides; the same for the same patch stores and seed.

    Slides with few patches give all of them. Patches whose margin leaves the slide are taken only if there are no
    others. Raises UsageError if no slide of the run has patches.
    """
    tables = []
    for record in records:
        path = existing_store(run.patch_store(record.slide_id))
        if path is not None and may_exist(record.path):
            table = read_patch_table(path)
            if len(table.grid):
                tables.append((record, table))
    if not tables:
        tiled = any(existing_store(run.patch_store(record.slide_id)) is not None for record in records)
        todo = EMPTY_TODO if tiled else "Run first: wsi-pipeline tile"
        raise UsageError("no slide of this run has patches and can be read", todo=todo)
    order = sorted(range(len(tables)), key=lambda at: crc32(f"{seed} {tables[at][0].slide_id}".encode()))
    left, counts = count, dict.fromkeys(order, 0)
    while left and any(counts[at] < len(tables[at][1].grid) for at in order):
        for at in order:
            if left and counts[at] < len(tables[at][1].grid):
                counts[at], left = counts[at] + 1, left - 1
    return tuple(_of_slide(*tables[at], counts[at], seed) for at in range(len(tables)) if counts[at])


def sample_digest(sample: Sequence[SampledSlide], seed: int) -> str:
    """Digest of the patches, their slides' labels and sites, and the changes that are made."""
    slides = [
        [
            each.record.slide_id,
            each.record.label,
            each.record.site,
            each.record.patient_id,
            each.digest,
            len(each.coords),
        ]
        for each in sample
    ]
    changes = [asdict(change) for change in all_perturbations()]
    return digest_of(what="robustness", version=VERSION, slides=slides, changes=changes, seed=seed)


def read_result(file: Path, digest: str) -> dict[str, Any] | None:
    """The result in a file, if it is there, whole, and of this digest."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("digest") == digest else None


def result_digest(sample: str, plan: EncoderPlan, precision: str, stain: StainTarget | None = None) -> str:
    """Digest of one encoder's result."""
    given = {"stain": stain.key} if stain else {}
    return digest_of(sample=sample, encoder=plan.fingerprint, precision=precision, **given)


def measure(
    file: Path, sample: Sequence[SampledSlide], plan: EncoderPlan, encoder: Encoder, settings: dict[str, Any],
    stain: Normalisation | None = None, on_patches: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure one encoder and write its result atomically; returns it.

    settings     name of the row, digest, seed, batch and sample digest, which go into the result
    stain        how patches are normalised before they are embedded; None: not
    on_patches   called with the number of patches done

    Slides that cannot be read are left out, and named with the reason under `failed`. Slides that cannot be given the
    target's stain keep their own, as `embed` has it. Raises UsageError if fewer than two patches are left,
    EncoderError if the encoder was made for another spacing.
    """
    changes, rows, failed = all_perturbations(), [], {}
    kept: list[SampledSlide] = []
    for slide in sample:
        plan.info.check_spacing(slide.geometry.mpp)
        found = catch_failure(partial(_encoded, slide, encoder, changes, settings["batch"], stain))
        if isinstance(found, StageStatus):
            failed[slide.record.slide_id] = found.reason
        else:
            rows.append(found)
            kept.append(slide)
        on_patches(len(slide.coords))
    count = sum(len(slide.coords) for slide in kept)
    if count < 2:
        first = next(iter(failed.items()), ("", "too few patches"))
        raise UsageError(f"fewer than two patches could be read ({': '.join(part for part in first if part)})")
    features = [unit(np.concatenate([part.features[at] for part in rows])) for at in range(len(changes) + 1)]
    result = _result(plan, kept, changes, features, settings) | {"failed": failed}
    if stain is not None:
        result["stain"] = _stain_facts(stain.target, kept, [part.own_stain for part in rows])
        for number, move in enumerate(result["movements"], 1):
            move["own_stain"] = sum(bool(part.own_stain[number]) for part in rows)
    plain: dict[str, Any] = _plain(result)
    write_text(file, json.dumps(plain, indent=1))
    return plain


def _stain_facts(target: StainTarget, slides: Sequence[SampledSlide], reasons: Sequence[list[str]]) -> dict[str, Any]:
    """The target, and the slides that keep their own stain without any change, each with the reason."""
    own = {slide.record.slide_id: why[0] for slide, why in zip(slides, reasons, strict=True) if why[0]}
    return {"method": target.method, "target": target.source, "key": target.key, "own_stain": own}


def _result(
    plan: EncoderPlan,
    sample: Sequence[SampledSlide],
    changes: Sequence[Perturbation],
    features: Sequence[NDArray[np.float64]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    original, *changed = features
    names = [slide.record.slide_id for slide in sample for _ in slide.coords]
    sites = [slide.record.site for slide in sample for _ in slide.coords]
    moved = [
        {**asdict(change), **asdict(measure_movement(original, rows, names, settings["seed"]))}
        for change, rows in zip(changes, changed, strict=True)
    ]
    near = measure_neighbours(original, names, sites)
    indices, why = _confounding(sample, original)
    return {
        **settings,
        "version": VERSION,
        "encoder": {**plan.info.facts(), "fingerprint": plan.fingerprint},
        "slides": {slide.record.slide_id: len(slide.coords) for slide in sample},
        "movements": moved,
        "neighbours": {name: {"value": near.values[name], "patches": near.support[name]} for name in near.values},
        "confounding": indices,
        "not_scored": why,
    }


def _confounding(sample: Sequence[SampledSlide], rows: NDArray[np.float64]) -> tuple[dict[str, Any] | None, str]:
    """RI, MaRI and CRoMa of the patches of slides with label and site, or why there are none."""
    known = np.array(
        [bool(slide.record.label and slide.record.site) for slide in sample for _ in slide.coords], dtype=np.bool_
    )
    parts = [slide for slide in sample if slide.record.label and slide.record.site]
    labels = [str(slide.record.label) for slide in parts for _ in slide.coords]
    sites = [str(slide.record.site) for slide in parts for _ in slide.coords]
    groups = [slide.record.patient_id or slide.record.slide_id for slide in parts for _ in slide.coords]
    if len(set(labels)) < 2 or len(set(sites)) < 2:
        return None, f"needs two labels and two sites, this sample has {len(set(labels))} and {len(set(sites))}"
    found = measure_confounding(rows[known], labels, sites, groups)
    named = {"ri": found.ri, "mari": found.mari, "croma": found.croma}
    return {
        **{name: {**asdict(index), "support": index.support} for name, index in named.items()},
        "tau": found.tau,
        "neighbours": found.neighbours,
    }, ""


def _of_slide(record: SlideRecord, table: PatchTable, count: int, seed: int) -> SampledSlide:
    side = table.geometry.patch_px
    margin = margin_px(side)
    factor = (side + 2 * margin) / side
    wide_level0 = round(table.geometry.patch_level0 * factor)
    corner = table.grid.coords - round((wide_level0 - table.geometry.patch_level0) / 2)
    size = table.header.slide.size
    inside = np.flatnonzero(
        (corner >= 0).all(axis=1) & (corner + wide_level0 <= np.array([size.width, size.height])).all(axis=1)
    )
    rng = np.random.default_rng([seed, crc32(record.slide_id.encode())])
    rest = np.setdiff1d(np.arange(len(corner)), inside)
    rows = np.sort(np.concatenate([rng.permutation(inside), rng.permutation(rest)])[:count])
    wide = replace(
        table.geometry,
        patch_px=side + 2 * margin,
        patch_level0=wide_level0,
        level_px=max(1, round(table.geometry.level_px * factor)),
    )
    return SampledSlide(record, table.header.digest, corner[rows], wide, corner[sample_rows(len(corner))])


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Features float32 (n, D) of a slide's patches, unchanged and under each change, and why it kept its own stain."""

    features: list[NDArray[np.float32]]
    own_stain: list[str]


def _encoded(
    slide: SampledSlide, encoder: Encoder, changes: Sequence[Perturbation], batch: int, stain: Normalisation | None
) -> _Encoded:
    side = _inner(slide.geometry.patch_px)
    found: list[list[NDArray[np.float32]]] = [[] for _ in range(len(changes) + 1)]
    with open_slide(slide.record.path) as opened:
        steps, reasons = _steps(slide, opened, changes, stain)
        source = SlidePatches(opened, slide.coords, slide.geometry)
        for first in range(0, len(source), _AT_ONCE):
            wide = [source.read(row) for row in range(first, min(first + _AT_ONCE, len(source)))]
            found[0].append(_features(encoder, (centre(patch, side) for patch in wide), batch, steps[0]))
            for number, change in enumerate(changes, 1):
                changed = (change.apply(patch, side, slide.geometry.mpp) for patch in wide)
                found[number].append(_features(encoder, changed, batch, steps[number]))
    return _Encoded([np.concatenate(parts) for parts in found], reasons)


def _steps(
    slide: SampledSlide, opened: Slide, changes: Sequence[Perturbation], stain: Normalisation | None
) -> tuple[list[Recolouring | None], list[str]]:
    """What is done to patches before they are embedded, unchanged and under each change, and why nothing is."""
    if stain is None:
        return [None] * (len(changes) + 1), [""] * (len(changes) + 1)
    from wsi_pipeline.stains.recolour import Recolouring, misfit  # imports torch, which not every encoder needs

    profiles, target = stain.profiles(slide, opened, changes), stain.target.profile
    reasons = [misfit(profile, target) for profile in profiles]
    return [
        None if why else Recolouring(profile, target) for profile, why in zip(profiles, reasons, strict=True)
    ], reasons


def _inner(wide: int) -> int:
    """Side of the patch whose side with margins is `wide`."""
    return next(side for side in range(wide, 0, -1) if side + 2 * margin_px(side) == wide)


def _features(
    encoder: Encoder, patches: Iterable[NDArray[np.uint8]], batch: int, step: Recolouring | None
) -> NDArray[np.float32]:
    stack = np.stack(list(patches))
    parts = (stack[start : start + batch] for start in range(0, len(stack), batch))
    return np.concatenate([encoder.encode(step(part, encoder.device) if step else part) for part in parts])


def _plain(value: Any) -> Any:
    """The value for JSON, which has no nan."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
