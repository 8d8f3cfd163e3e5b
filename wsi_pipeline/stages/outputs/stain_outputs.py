"""What is written about the stain of a cohort: stains.csv, and a picture of slides before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.report.maps.stain_sheet import StainedSlide, stain_sheet
from wsi_pipeline.stages.inputs.stain_files import StainTarget, known_profiles, sample_path
from wsi_pipeline.stains.recolour import Recolouring, misfit
from wsi_pipeline.stains.stain_profile import LEAST_PIXELS, StainProfile
from wsi_pipeline.system.atomic import atomic_path, write_text_if_changed

TABLE, SHEET = "stains.csv", "cohort.png"
MOST_SHOWN = 24
"""Slides in the picture, evenly spaced in the cohort."""


def write_stains(run: RunDir, target: StainTarget, records: Sequence[SlideRecord]) -> None:
    """Write table and picture of all slides that have been measured, in the order of the cohort."""
    profiles = known_profiles(run, target.method, records)
    table = stain_table(profiles, target)
    changed = write_text_if_changed(run.stain(target.method) / TABLE, table.to_csv(index=False, lineterminator="\n"))
    path = run.stain(target.method) / SHEET
    if profiles and (changed or not path.is_file()):
        with atomic_path(path) as temporary:
            _picture(run, target, profiles).save(temporary, "PNG")


def stain_table(profiles: dict[str, StainProfile], target: StainTarget) -> pd.DataFrame:
    """One row per slide: glass, vectors, concentrations, colour moments, what it is, whether it is normalised."""
    rows = []
    for name, profile in profiles.items():
        why = misfit(profile, target.profile)
        kind = profile.kind if profile.pixels >= LEAST_PIXELS else ""  # too little to name a stain by
        row: dict[str, object] = {"slide_id": name, "kind": kind, "normalised": "no" if why else "yes"}
        row |= {"reason": why, "patches": profile.patches, "stained_pixels": profile.pixels}
        row |= {"stained_fraction": profile.stained, "median_density": profile.median_density}
        row |= {f"glass_{colour}": value for colour, value in zip("rgb", profile.glass, strict=True)}
        row |= {"glass_from": profile.glass_from}
        for number, vector in enumerate(profile.vectors, 1):
            row |= {f"stain{number}_{colour}": value for colour, value in zip("rgb", vector, strict=True)}
        row |= {f"concentration{number}": value for number, value in enumerate(profile.strength, 1)}
        for name_of, values in (("mean", profile.mean), ("spread", profile.spread)):
            row |= {f"{name_of}_{axis}": value for axis, value in zip(("l", "alpha", "beta"), values, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def _picture(run: RunDir, target: StainTarget, profiles: dict[str, StainProfile]) -> Image.Image:
    names = list(profiles)
    shown = sorted({int(row) for row in np.linspace(0, len(names) - 1, min(len(names), MOST_SHOWN)).round()})
    slides = []
    for name in (names[row] for row in shown):
        path = sample_path(run, target.method, name)
        if not path.is_file():
            continue
        with Image.open(path) as image:
            before = np.asarray(image.convert("RGB"))
        why = misfit(profiles[name], target.profile)
        after = before if why else Recolouring(profiles[name], target.profile)(before[None])[0].numpy()
        slides.append(StainedSlide(name, before, after, why))
    return stain_sheet(slides, f"{target.method}, target: {target.source}")
