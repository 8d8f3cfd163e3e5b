"""The target of a stain normalisation: what `--stain-target` names, chosen or read, and recorded in the run."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import LabelError, StoreError, UsageError
from wsi_pipeline.labelled.image_file import IMAGE_SUFFIXES, read_image
from wsi_pipeline.stages.inputs.stain_files import TARGET, StainTarget, known_profiles, read_target
from wsi_pipeline.stains.choose_target import medoid
from wsi_pipeline.stains.density import measure_glass
from wsi_pipeline.stains.stain_profile import StainProfile, profile_pixels
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.locks import locked
from wsi_pipeline.wording import counted, listed

AUTO = "auto"
_PIXELS = 1 << 20
"""Pixels of a target picture that are used, evenly spaced."""


def names_slides(asked: str, records: Sequence[SlideRecord]) -> tuple[SlideRecord, ...]:
    """The slides whose stain must be known before the target is: all for `auto`, the one that is named, or none."""
    if asked == AUTO:
        return tuple(records)
    return tuple(record for record in records if record.slide_id == asked)


def resolve_target(
    run: RunDir, method: str, asked: str, records: Sequence[SlideRecord], patches: Mapping[str, Any],
    keep: bool = True,
) -> StainTarget:  # fmt: skip
    """The target that `asked` names, recorded as stain/<method>/target.json.

    records   all slides of the run, measured as far as `names_slides` says
    patches   settings of the run's patches; with others, `auto` chooses again
    keep      False: it is not recorded, so that what `auto` chose earlier stays

    `auto` chooses once: as long as target.json is there, slides that are added later get the stain the first ones got.
    Raises UsageError if the target cannot be used or found.
    """
    path = run.stain(method) / TARGET
    with locked(run.lock("stain", method), math.inf):
        found = _recorded(path, patches) if asked == AUTO else None
        found = found or _found(run, method, asked, records, patches)
        _check(found)
        if keep:
            write_text(path, json.dumps(found.to_json(), indent=1) + "\n")
    return found


def check_target(method: str, asked: str, slide_ids: Collection[str]) -> None:
    """Check a target before any slide is tiled. Raises UsageError if it is a file that cannot be used, or nothing."""
    if asked != AUTO and asked not in slide_ids:
        _check(_of_file(method, asked))


def foresee_target(method: str, asked: str) -> None:
    """Check a target before the slides are known: a file is read, and a path without a file is refused.

    Raises UsageError as `check_target` does. Other words may be the id of a slide.
    """
    path = Path(asked)
    if path.is_file() or path.name != asked or path.suffix.lower() in (".json", *IMAGE_SUFFIXES):
        check_target(method, asked, ())


def _check(target: StainTarget) -> None:
    if target.profile.fault:
        raise UsageError(
            f"stain target {target.asked}: {target.profile.fault}",
            todo="Name a slide, or a picture of well stained tissue, with --stain-target",
        )


def _recorded(path: Path, patches: Mapping[str, Any]) -> StainTarget | None:
    """The target chosen earlier by `auto`, if the patches are of the same size and resolution as then."""
    try:
        found = read_target(path)
    except StoreError:
        return None
    return found if found.asked == AUTO and dict(found.patches) == dict(patches) else None


def _found(
    run: RunDir, method: str, asked: str, records: Sequence[SlideRecord], patches: Mapping[str, Any]
) -> StainTarget:
    known = known_profiles(run, method, names_slides(asked, records))
    if asked == AUTO:
        name = medoid(known)
        if name is None:
            reasons = [f"{slide} ({profile.fault})" for slide, profile in known.items()]
            why = f": {listed(reasons)}" if reasons else ""
            raise UsageError(
                f"no slide of this run can be the stain target{why}",
                todo="Name a picture of well stained tissue with --stain-target FILE, or leave --stain-norm out",
            )
        source = f"slide {name}, the most typical with two stains well apart, of {counted(len(known), 'slide')}"
        return StainTarget(known[name], asked, source, patches)
    if asked in known:
        return StainTarget(known[asked], asked, f"slide {asked}", patches)
    return _of_file(method, asked)


def _of_file(method: str, asked: str) -> StainTarget:
    path = Path(asked)
    if not path.is_file():
        raise UsageError(
            f"stain_target {asked} is neither a tiled slide of this run nor a file",
            todo="Name a slide's id, a picture of tissue, a recorded target.json, or auto",
        )
    if path.suffix == ".json":
        found = read_target(path)
        if found.method != method:
            raise UsageError(f"stain target {asked} is for stain_norm {found.method}, not {method}")
        return StainTarget(found.profile, asked, found.source, found.patches)
    return StainTarget(profile_picture(path, method), asked, f"picture {path.name}", {})


def profile_picture(path: Path, method: str) -> StainProfile:
    """The profile of a picture of tissue. Raises UsageError if it cannot be read."""
    try:
        picture = read_image(path)
    except (LabelError, OSError) as error:
        why = error.what if isinstance(error, LabelError) else error.strerror or error
        todo = "Name a slide of the run by its id, or a PNG, JPEG or TIFF of a piece of tissue"
        raise UsageError(f"stain target {path}: {why}", todo=todo) from None
    glass, glass_from = measure_glass(picture)
    step = max(1, int(np.ceil((picture[..., 0].size / _PIXELS) ** 0.5)))
    return profile_pixels(picture[::step, ::step].reshape(-1, 3), method, glass, glass_from, 1)
