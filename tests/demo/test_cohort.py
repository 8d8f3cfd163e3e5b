"""The cohort as a user finds it: real slide files, an honest manifest, truth beside it, the same again on demand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from PIL import Image
from shapely.geometry import Point, box, shape

from tests.demo.conftest import ANNOTATED_SLIDES, SEED, SIDES, MadeCohort
from wsi_pipeline.demo.demo_cohort import COLUMNS, make_cohort
from wsi_pipeline.demo.layout import STEP, TISSUE_CLASSES
from wsi_pipeline.demo.plan import plan_cohort
from wsi_pipeline.errors import UsageError

TUMOUR = TISSUE_CLASSES.index("tumour")


def files_of(folder: Path) -> dict[str, str]:
    """Digest of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_manifest_names_files_that_are_there(cohort: MadeCohort) -> None:
    assert tuple(cohort.rows[0]) == COLUMNS
    assert len(cohort.rows) == 6
    assert {row["label"] for row in cohort.rows} == {"tumour", "normal"}
    for row in cohort.rows:
        assert (cohort.folder / row["path"]).is_file()
        assert (cohort.folder / row["annotation"]).is_file()
    assert cohort.reported == tuple((done, 8) for done in range(1, 9))


def test_openslide_and_tiffslide_read_every_level(cohort: MadeCohort) -> None:
    for row in cohort.good:
        path = cohort.folder / row["path"]
        slide, other = openslide.OpenSlide(path), tiffslide.TiffSlide(path)
        assert slide.properties["openslide.vendor"] == other.properties["tiffslide.vendor"] == "aperio"
        assert slide.level_dimensions == other.level_dimensions
        assert [round(factor) for factor in slide.level_downsamples] == [1, 4]
        assert {"thumbnail", "label", "macro"} <= set(slide.associated_images)
        for level, size in enumerate(slide.level_dimensions):
            ours = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
            theirs = np.asarray(other.read_region((0, 0), level, size))[..., :3]
            # The two decode JPEG with different libraries; the pictures must be one and the same.
            assert np.abs(ours.astype(int) - theirs).mean() < 1.5


def test_levels_show_the_same_place(cohort: MadeCohort) -> None:
    slide = openslide.OpenSlide(cohort.folder / cohort.good[0]["path"])
    width, height = (side // 4 * 4 for side in slide.dimensions)
    fine = slide.read_region((0, 0), 0, (width, height)).convert("RGB").reduce(4)
    coarse = slide.read_region((0, 0), 1, slide.level_dimensions[1]).convert("RGB")
    assert fine.size == coarse.size
    assert np.abs(np.asarray(fine, int) - np.asarray(coarse, int)).mean() < 4


def test_mpp_is_in_the_file_or_in_the_manifest(cohort: MadeCohort) -> None:
    plans = {plan.slide_id: plan for plan in plan_cohort(4, SEED, SIDES)}
    silent = 0
    for row in cohort.good:
        stated = openslide.OpenSlide(cohort.folder / row["path"]).properties.get("openslide.mpp-x")
        if row["mpp"]:
            silent += 1
            assert stated is None
            assert tiffslide.TiffSlide(cohort.folder / row["path"]).properties.get("tiffslide.mpp-x") is None
            assert float(row["mpp"]) == plans[row["slide_id"]].site.mpp
        else:
            assert float(stated) == pytest.approx(plans[row["slide_id"]].site.mpp)
    assert silent == 1


def test_tiles_have_the_size_the_scanner_of_the_site_uses(cohort: MadeCohort) -> None:
    plans = {plan.slide_id: plan for plan in plan_cohort(4, SEED, SIDES)}
    for row in cohort.good:
        with tifffile.TiffFile(cohort.folder / row["path"]) as tif:
            tile = plans[row["slide_id"]].site.tile
            assert tif.pages[0].tile == (tile, tile)
            assert tif.pages[0].compression == tifffile.COMPRESSION.JPEG
            assert not tif.pages[1].is_tiled


def test_outlines_lie_inside_the_slide_and_decide_the_label(cohort: MadeCohort) -> None:
    for row in cohort.good:
        width, height = openslide.OpenSlide(cohort.folder / row["path"]).dimensions
        features = json.loads((cohort.folder / row["annotation"]).read_text())["features"]
        assert bool(features) == (row["label"] == "tumour")
        for feature in features:
            region = shape(feature["geometry"])
            assert region.is_valid
            assert box(0, 0, width, height).covers(region)
            assert feature["properties"]["classification"]["name"] == "Tumor"


def test_class_map_and_outlines_agree(cohort: MadeCohort) -> None:
    for row in cohort.good:
        classes = np.asarray(Image.open(cohort.folder / f"truth/{row['slide_id']}.classes.png"))
        width, height = openslide.OpenSlide(cohort.folder / row["path"]).dimensions
        assert classes.shape == (-(-height // STEP), -(-width // STEP))
        features = json.loads((cohort.folder / row["annotation"]).read_text())["features"]
        regions = [shape(feature["geometry"]).buffer(STEP) for feature in features]
        cells = np.argwhere(classes == TUMOUR)
        assert bool(len(cells)) == bool(regions)
        for i, j in cells[:: max(len(cells) // 50, 1)]:
            middle = Point((j + 0.5) * STEP, (i + 0.5) * STEP)
            assert any(region.covers(middle) for region in regions)
        area = sum(shape(feature["geometry"]).area for feature in features)
        assert len(cells) * STEP**2 == pytest.approx(area, rel=0.1)


def test_class_map_knows_the_background(cohort: MadeCohort) -> None:
    row = cohort.good[0]
    slide = openslide.OpenSlide(cohort.folder / row["path"])
    classes = np.asarray(Image.open(cohort.folder / f"truth/{row['slide_id']}.classes.png"))
    picture = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    cells = picture[STEP // 2 :: STEP, STEP // 2 :: STEP].min(axis=2)[: classes.shape[0], : classes.shape[1]]
    known = classes[: cells.shape[0], : cells.shape[1]]
    assert np.median(cells[known == 0]) > 225
    assert np.median(cells[known != 0]) < 205


def test_blank_slide_is_near_white(cohort: MadeCohort) -> None:
    slide = openslide.OpenSlide(cohort.slide("demo-blank"))
    picture = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    assert picture.mean() > 230
    assert np.mean(picture.min(axis=2) < 200) < 0.005
    assert json.loads((cohort.folder / "truth/demo-blank.geojson").read_text())["features"] == []


def test_corrupt_slide_is_refused(cohort: MadeCohort) -> None:
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(cohort.slide("demo-corrupt"))


def test_same_seed_same_bytes_in_other_processes(cohort: MadeCohort, tmp_path: Path) -> None:
    make_cohort(tmp_path, slides=4, annotated=ANNOTATED_SLIDES, seed=SEED, workers=2, sides=SIDES)
    assert files_of(tmp_path) == files_of(cohort.folder)


def test_rerun_makes_only_what_is_missing_or_damaged(cohort: MadeCohort) -> None:
    before, names = files_of(cohort.folder), sorted(row["slide_id"] for row in cohort.rows)
    kept = {name: cohort.slide(name).stat().st_mtime_ns for name in names}
    cohort.slide(names[0]).unlink()
    cohort.slide(names[1]).write_bytes(b"half")
    reported: list[tuple[int, int]] = []
    make_cohort(
        cohort.folder,
        slides=4,
        annotated=ANNOTATED_SLIDES,
        seed=SEED,
        workers=1,
        sides=SIDES,
        progress=lambda *state: reported.append(state),
    )
    assert files_of(cohort.folder) == before
    assert reported == [(6, 8), (7, 8), (8, 8)]
    assert all(cohort.slide(name).stat().st_mtime_ns == kept[name] for name in names[2:])


def test_nothing_temporary_is_left(cohort: MadeCohort) -> None:
    assert not [path for path in cohort.folder.rglob("*") if path.name.startswith(".")]


def test_default_plan_is_fit_for_five_folds() -> None:
    plans = plan_cohort(24, 0, (2600, 4400))
    good = [plan for plan in plans if plan.kind == "good"]
    label_of = {plan.patient_id: plan.label for plan in good}
    assert Counter(plan.kind for plan in plans) == {"good": 24, "blank": 1, "corrupt": 1}
    assert len(label_of) == 22
    assert min(Counter(label_of.values()).values()) >= 10
    assert all(label_of[plan.patient_id] == plan.label for plan in good)
    assert {(plan.site.name, plan.label) for plan in good} == {
        (site, label) for site in ("north", "harbour", "hill") for label in ("tumour", "normal")
    }
    assert sum(not plan.states_mpp for plan in good) == sum(plan.pen for plan in good) == 1
    assert all((plan.recipe.tumour > 0) == (plan.label == "tumour") for plan in good)


def test_other_seeds_plan_other_slides() -> None:
    first, second = (plan_cohort(4, seed, SIDES)[0] for seed in (1, 2))
    assert first.recipe != second.recipe


@pytest.mark.parametrize(("slides", "sides"), [(3, SIDES), (4, (100, 900)), (4, (900, 800))])
def test_impossible_cohorts_are_refused(tmp_path: Path, slides: int, sides: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"must be"):
        make_cohort(tmp_path, slides=slides, sides=sides)
