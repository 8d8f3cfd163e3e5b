"""Patches of annotated slides and of labelled patch stores: pixels are those that tile and embed read, labels fit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from shapely.geometry import Polygon, box, mapping, shape

from tests.demo.conftest import MadeCohort, cohort
from tests.labelled.images import write_table
from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.cli import main
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.open_labelled import open_labelled
from wsi_pipeline.labelled.splits.patch_leaks import check_leaks, find_leaks
from wsi_pipeline.labelled.splits.patch_split import PatchSplit, split_patches
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.store.tables.patch_labels import write_labels
from wsi_pipeline.store.tables.patch_table import read_patch_table

__all__ = ["cohort"]

TUMOUR = Polygon([(60, 40), (700, 90), (640, 700), (300, 620), (80, 500)])
STROMA = Polygon([(720, 100), (1000, 60), (1010, 980), (660, 900)])
HEADER = ("slide_id", "path", "patient_id", "annotation")


def annotate(path: Path, **regions: Polygon) -> None:
    features = [
        {"type": "Feature", "geometry": mapping(polygon), "properties": {"classification": {"name": name}}}
        for name, polygon in regions.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def two_slides(folder: Path, *, mpp: float | None = 0.5) -> Path:
    rows = []
    for k in range(2):
        write_pyramid_tiff(folder / f"s{k}.svs", tissue_like(1024, 1000, seed=k), mpp=mpp)
        annotate(folder / f"s{k}.geojson", Tumour=TUMOUR, Stroma=STROMA)
        rows.append((f"s{k}", f"s{k}.svs", f"p{k}", f"s{k}.geojson"))
    return write_table(folder / "slides.csv", HEADER, rows)


def corner(name: str) -> tuple[str, int, int]:
    """`s1 (128, 0)` -> s1, 128, 0."""
    slide, _, place = name.partition(" ")
    x, y = place.strip("()").split(", ")
    return slide, int(x), int(y)


def tiled(folder: Path, manifest: Path, *options: str) -> dict[tuple[str, int, int], np.ndarray]:
    """Patch pixels by slide and corner as `tile --pixels raw` stores them."""
    run = folder / "run"
    assert main(["tile", str(manifest), "--run", str(run), "--workers", "0", "--pixels", "raw", "--min-coverage", "0",
                 "--quiet", *options]) == 0  # fmt: skip
    found = {}
    for path in sorted((run / "tile").glob("*.h5")):
        with h5py.File(path, "r", locking=False) as store:
            for (x, y), image in zip(store["coords"][:].tolist(), store["images"][:], strict=True):
                found[path.stem, x, y] = image
    return found


@pytest.mark.parametrize(("mpp", "tolerance", "overlap"), [(1.0, 0.03, 16), (0.73, 0.0, 0)])
def test_patches_equal_those_of_tile_pixel_by_pixel(tmp_path: Path, mpp: float, tolerance: float, overlap: int) -> None:
    manifest = two_slides(tmp_path)
    patches = open_labelled(
        manifest, LabelSpec(patch_px=64, mpp=mpp, mpp_tolerance=tolerance, overlap_px=overlap, min_inside=0.6)
    )
    expected = tiled(
        tmp_path, manifest, "--patch-px", "64", "--mpp", str(mpp), "--mpp-tolerance", str(tolerance), "--overlap-px",
        str(overlap),
    )  # fmt: skip
    batch = patches.read(range(len(patches)))
    assert batch.shape == (len(patches), 64, 64, 3)
    assert len(patches) >= 4
    shared = [row for row, name in enumerate(patches.names) if corner(name) in expected]
    assert len(shared) >= 0.9 * len(patches), "tissue covers nearly all of these slides"
    for row in shared:
        np.testing.assert_array_equal(batch[row], expected[corner(patches.names[row])])


@pytest.mark.parametrize("min_inside", [0.3, 0.75, 1.0])
def test_labels_agree_with_the_polygons_at_every_patch(tmp_path: Path, min_inside: float) -> None:
    patches = open_labelled(two_slides(tmp_path), LabelSpec(patch_px=64, min_inside=min_inside))
    found = {
        corner(name): patches.classes[label] for name, label in zip(patches.names, patches.labels.tolist(), strict=True)
    }
    for slide in ("s0", "s1"):
        for x in range(0, 1024, 64):
            for y in range(0, 1000, 64):
                square = box(x, y, x + 64, y + 64)
                parts = {"Tumour": TUMOUR, "Stroma": STROMA}
                covered = {name: area.intersection(square).area / 64**2 for name, area in parts.items()}
                inside = [name for name, part in covered.items() if part >= min_inside - 1e-9]
                assert [found[slide, x, y]] == inside if (slide, x, y) in found else len(inside) != 1
    assert patches.groups == tuple(name.replace("s", "p")[:2] for name in patches.names)
    assert patches.mpp == 0.5


def test_a_patch_in_two_classes_has_none(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path)
    annotate(tmp_path / "s1.geojson", Tumour=box(0, 0, 512, 512), Stroma=box(256, 256, 900, 900))
    patches = open_labelled(manifest, LabelSpec(patch_px=64))
    in_both = [name for name in patches.names if name.startswith("s1") and min(corner(name)[1:]) >= 256]
    assert in_both
    assert all(max(corner(name)[1:]) >= 512 for name in in_both)
    assert "patches in two classes, left out: 16" in patches.notes


def test_what_qupath_ignores_is_in_no_class(tmp_path: Path) -> None:
    table, spec = two_slides(tmp_path), LabelSpec(patch_px=64, mpp=0.5)
    everything, ignored = box(0, 0, 1024, 1000), box(0, 0, 128, 1000)
    regions = {"Tumour": box(0, 0, 512, 512), "Stroma": box(512, 0, 1024, 512)}
    for k in range(2):
        annotate(tmp_path / f"s{k}.geojson", **regions)
    whole = open_labelled(table, spec).names
    for k in range(2):
        annotate(tmp_path / f"s{k}.geojson", **regions, **{"Ignore*": ignored, "Region*": everything})
    assert open_labelled(table, spec).names == tuple(name for name in whole if corner(name)[1] >= 128)
    assert len(whole) == 2 * 16 * 8


def test_classes_that_differ_in_case_are_told(tmp_path: Path) -> None:
    table = two_slides(tmp_path)
    for k in range(2):
        annotate(tmp_path / f"s{k}.geojson", Tumour=TUMOUR, tumour=STROMA)
    patches = open_labelled(table, LabelSpec(patch_px=64, mpp=0.5))
    counts = np.bincount(patches.labels)
    assert f"'Tumour' ({counts[0]}), 'tumour' ({counts[1]}) differ only in spelling" in patches.notes[-1]


def test_outlines_without_a_class_are_told_why_there_is_nothing(tmp_path: Path) -> None:
    table = two_slides(tmp_path)
    for k in range(2):
        annotate(tmp_path / f"s{k}.geojson", **{"": TUMOUR})
    with pytest.raises(LabelError, match=r"no patch to learn from.*areas without a class, not used: 2"):
        open_labelled(table, LabelSpec(patch_px=64, mpp=0.5))


def test_outlines_on_a_slide_that_is_turned_are_refused(tmp_path: Path) -> None:
    table = two_slides(tmp_path)
    for k in range(2):
        turned = [(274, "H", 1, 3, True)]
        picture = tissue_like(1024, 1000, seed=k)
        resolution = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"s{k}.svs", picture, tile=(256, 256), extratags=turned, **resolution)
    with pytest.raises(LabelError, match="turned as its orientation tag says, and its annotation may count"):
        open_labelled(table, LabelSpec(patch_px=64, mpp=0.5))


def test_slides_with_faults_are_named_and_left_out(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path)
    (tmp_path / "bad.geojson").write_text("{")
    rows = [line.split(",") for line in manifest.read_text().splitlines()[1:]]
    rows += [
        ["bad", "s0.svs", "p3", "bad.geojson"],
        ["gone", "gone.svs", "p4", "s0.geojson"],
        ["plain", "s1.svs", "p5", ""],
    ]
    patches = open_labelled(write_table(manifest, HEADER, rows), LabelSpec(patch_px=64))
    assert set(patches.groups) == {"p0", "p1"}
    words = "2 of 4 annotated slides left out: bad: annotation bad.geojson is no"
    assert any(note.startswith(words) for note in patches.notes)
    assert "slides without annotation, not used: 1" in patches.notes
    with pytest.raises(LabelError, match="none of 2 annotated slides can be used"):
        open_labelled(write_table(manifest, HEADER, rows[2:]), LabelSpec(patch_px=64))


def test_a_slide_without_resolution_needs_one(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path, mpp=None)
    with pytest.raises(LabelError, match="no mpp"):
        open_labelled(manifest, LabelSpec(patch_px=64))
    assert len(open_labelled(manifest, LabelSpec(patch_px=64), default_mpp=0.5)) > 0


def test_groups_and_splits_come_from_the_manifest(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path)
    rows = [
        [*line.split(","), part]
        for line, part in zip(manifest.read_text().splitlines()[1:], ("train", "val"), strict=True)
    ]
    patches = open_labelled(
        write_table(manifest, (*HEADER, "split"), rows), LabelSpec(patch_px=64, group_column="Slide ID")
    )
    assert set(zip(patches.groups, patches.splits or (), strict=True)) == {("s0", "train"), ("s1", "val")}
    with pytest.raises(LabelError, match="group_column of slides must be one of"):
        open_labelled(manifest, LabelSpec(patch_px=64, group_column="annotation"))
    sites = [[*row[:4], site] for row, site in zip(rows, ("north", ""), strict=True)]
    with pytest.raises(LabelError, match="slide s1 has no site"):
        open_labelled(write_table(manifest, (*HEADER, "site"), sites), LabelSpec(patch_px=64, group_column="site"))


def test_the_digest_follows_the_outlines(tmp_path: Path) -> None:
    manifest, spec = two_slides(tmp_path), LabelSpec(patch_px=64)
    digest = open_labelled(manifest, spec).digest
    assert open_labelled(manifest, spec).digest == digest
    assert open_labelled(manifest, LabelSpec(patch_px=64, min_inside=0.9)).digest != digest
    assert open_labelled(manifest, LabelSpec(patch_px=64, mpp=0.6)).digest != digest
    annotate(tmp_path / "s0.geojson", Tumour=STROMA, Stroma=TUMOUR)
    assert open_labelled(manifest, spec).digest != digest


def test_the_same_slide_twice_is_a_leak(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path)
    (tmp_path / "s1.svs").write_bytes((tmp_path / "s0.svs").read_bytes())
    patches = open_labelled(manifest, LabelSpec(patch_px=64))
    sides = [np.flatnonzero(np.array(patches.groups) == name) for name in ("p0", "p1")]
    leaks = find_leaks(patches, PatchSplit(sides[0], sides[1], np.zeros(0, np.int64)))
    assert [leak.what for leak in leaks] == ["image"]


def labelled_run(folder: Path, pixels: str) -> tuple[Path, LabelledPatches]:
    """A tiled run whose stores are labelled by column parity, the first patch of each left without a label."""
    rows = [line.split(",")[:3] for line in two_slides(folder).read_text().splitlines()[1:]]
    manifest = write_table(folder / "slides.csv", HEADER[:3], rows)
    run = folder / "run"
    assert main(["tile", str(manifest), "--run", str(run), "--workers", "0", "--pixels", pixels, "--patch-px", "64",
                 "--quiet"]) == 0  # fmt: skip
    with pytest.raises(LabelError, match=r"no patch store of .* has labels"):
        open_labelled(run)
    for path in (run / "tile").glob("*.h5"):
        coords = read_patch_table(path).grid.coords
        values = coords[:, 0] // 64 % 2
        values[0] = -1
        write_labels(path, values, ["even", "odd"])
    return run, open_labelled(run)


@pytest.mark.parametrize("pixels", ["none", "raw", "jpeg"])
def test_stores_with_labels(tmp_path: Path, pixels: str) -> None:
    run, patches = labelled_run(tmp_path, pixels)
    assert patches.classes == ("even", "odd")
    assert patches.patch_px == 64
    assert patches.mpp == 0.5
    counts = [len(read_patch_table(path).grid) for path in sorted((run / "tile").glob("*.h5"))]
    assert len(patches) == sum(counts) - 2
    for name, label in zip(patches.names, patches.labels.tolist(), strict=True):
        assert corner(name)[1] // 64 % 2 == label
    assert set(patches.groups) == {"p0", "p1"}
    row = len(patches) // 2
    slide, x, y = corner(patches.names[row])
    with open_slide(tmp_path / f"{slide}.svs") as opened:
        region = opened.read_region(x, y, 0, 64, 64)
    patch = patches.read([row])[0]
    assert np.abs(patch.astype(int) - region).max() <= (0 if pixels != "jpeg" else 40)
    assert open_labelled(run / "tile").digest == patches.digest


def test_relabelling_changes_the_digest_and_nothing_else(tmp_path: Path) -> None:
    run, patches = labelled_run(tmp_path, "none")
    path = run / "tile" / "s0.h5"
    before = read_patch_table(path)
    assert before.labels is not None
    values = before.labels.values.copy()
    values[-1] = 1 - values[-1]
    write_labels(path, values, ["even", "odd"])
    after = read_patch_table(path)
    assert after.header == before.header
    np.testing.assert_array_equal(after.grid.coords, before.grid.coords)
    assert open_labelled(run).digest != patches.digest


def test_a_run_with_annotations_needs_no_labels_in_its_stores(tmp_path: Path) -> None:
    manifest = two_slides(tmp_path)
    tiled(tmp_path, manifest, "--patch-px", "64")
    from_run = open_labelled(tmp_path / "run", LabelSpec(patch_px=64))
    assert from_run.digest == open_labelled(manifest, LabelSpec(patch_px=64)).digest


def test_demo_slides_with_the_tissue_outside_as_a_class(cohort: MadeCohort) -> None:
    spec = LabelSpec(patch_px=64, mpp=1.0, rest_class="Other", min_inside=0.6)
    with pytest.raises(LabelError, match="Tumor") as caught:
        open_labelled(cohort.folder / "slides.csv", LabelSpec(patch_px=64, mpp=1.0))
    assert "--rest-class" in str(caught.value)
    patches = open_labelled(cohort.folder / "slides.csv", spec)
    assert patches.classes == ("Other", "Tumor")
    areas = {
        row["slide_id"]: [
            shape(item["geometry"]) for item in json.loads((cohort.folder / row["annotation"]).read_text())["features"]
        ]
        for row in cohort.rows
    }
    for name, label in zip(patches.names, patches.labels.tolist(), strict=True):
        slide, x, y = corner(name)
        side = patches.pixels.parts[0].geometry.patch_level0  # type: ignore[attr-defined]
        part = sum(area.intersection(box(x, y, x + side, y + side)).area for area in areas[slide]) / side**2
        assert part >= 0.6 - 1e-9 if label else part < 1e-9
    means = [patches.read(np.flatnonzero(patches.labels == k)).mean() for k in range(2)]
    assert max(means) < 230, "tissue, not glass"
    split = split_patches(patches.labels, patches.groups, val_fraction=0.3, test_fraction=0, seed=0)
    check_leaks(patches, split)
