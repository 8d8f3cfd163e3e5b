"""`export`: what each format holds, read with plain libraries, compared with the stores it was made from."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
import zarr
from PIL import Image
from shapely.geometry import box, shape

from tests.exchange.small_run import CLASSES, MPP, NAMES, PATCH_PX, SIDE, STRIDE, small_run
from wsi_pipeline.cli import main
from wsi_pipeline.exchange.writers.cohort_tables import split_parts
from wsi_pipeline.exchange.writers.export_files import LEDGER
from wsi_pipeline.exchange.writers.export_formats import EXPORT_FORMATS
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("export") / "wsi-run")


def exported(run: Path, to: str, *more: str) -> Path:
    assert main(["export", "--to", to, "--run", str(run), *more]) == 0
    return next(iter(sorted((run / "export" / to).glob("colour"))), run / "export" / to)


def stored(run: Path, slide_id: str):
    return read_feature_table(run / "embed" / "colour" / f"{slide_id}.h5")


def test_trident(run: Path) -> None:
    folder = exported(run, "trident") / "10x_32px_8px_overlap"
    assert sorted(path.stem for path in (folder / "features_colour").iterdir()) == list(NAMES)
    with (
        h5py.File(folder / "features_colour" / "s1.h5") as file,
        h5py.File(folder / "patches" / "s1_patches.h5") as two,
    ):
        table, attrs = stored(run, "s1"), dict(file["coords"].attrs)
        assert file["features"].dtype == np.float32
        np.testing.assert_array_equal(file["features"][:], table.features.astype(np.float32))
        np.testing.assert_array_equal(file["coords"][:], table.coords)
        np.testing.assert_array_equal(two["coords"][:], table.coords)
        assert (attrs["patch_size_level0"], attrs["level0_magnification"], attrs["overlap"]) == (SIDE, 20, 8)
        assert file["features"].attrs["encoder"] == "colour"
    outlines = json.loads((folder.parent / "contours_geojson" / "s1.geojson").read_text())
    ring = np.array(outlines["features"][0]["geometry"]["coordinates"][0])
    assert outlines["features"][0]["properties"] == {"tissue_id": 0}
    assert 0 <= ring.min() < ring.max() <= 640


def test_clam(run: Path) -> None:
    folder, table = exported(run, "clam"), stored(run, "s2")
    tensor = torch.load(folder / "features" / "pt_files" / "s2.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), table.features.astype(np.float32))
    with h5py.File(folder / "features" / "h5_files" / "s2.h5") as file:
        np.testing.assert_array_equal(file["features"][:], tensor.numpy())
        np.testing.assert_array_equal(file["coords"][:], table.coords)
        assert (file["coords"].attrs["patch_level"], file["coords"].attrs["patch_size"]) == (0, SIDE)
    dataset = pd.read_csv(folder / "dataset.csv")
    assert list(dataset) == ["case_id", "slide_id", "label"]
    assert dict(zip(dataset["slide_id"], dataset["label"], strict=True)) == dict(zip(NAMES, "abab", strict=True))
    assert "label_dict={'a': 0, 'b': 1}" in (folder / "task.py").read_text()


def test_clam_splits_keep_patients_apart() -> None:
    patients = [f"p{k // 2}" for k in range(40)]
    table = pd.DataFrame({"slide_id": [f"s{k}" for k in range(40)], "patient_id": patients, "label": list("aabb") * 10})
    folds = split_parts(table)
    whose = dict(zip(table["slide_id"], patients, strict=True))
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold["test"]) == sorted(whose)
    for fold in folds:
        sides = [{whose[name] for name in fold[part]} for part in ("train", "val", "test")]
        assert sum(map(len, sides)) == len(set().union(*sides)) == 20
        assert sum(map(len, fold.values())) == 40


def test_stamp(run: Path) -> None:
    folder, table = exported(run, "stamp"), stored(run, "s1")
    with h5py.File(folder / "features" / "s1.h5") as file:
        np.testing.assert_array_equal(file["feats"][:], table.features.astype(np.float32))
        np.testing.assert_allclose(file["coords"][:], table.coords * MPP)
        assert dict(file.attrs)["unit"] == "um"
        assert (file.attrs["tile_size_um"], file.attrs["tile_size_px"]) == (SIDE * MPP, PATCH_PX)
        assert file.attrs["feat_type"] == "tile"
    slides = pd.read_csv(folder / "slide.csv")
    assert slides.iloc[0].to_dict() == {"PATIENT": "p0", "FILENAME": "s0.h5"}
    assert pd.read_csv(folder / "clini.csv").iloc[1].to_dict() == {"PATIENT": "p1", "label": "b"}
    config = yaml.safe_load((folder / "config.yaml").read_text())["crossval"]
    assert config["ground_truth_label"] == "label"
    assert Path(config["feature_dir"]) == folder / "features"


def test_torchmil(run: Path) -> None:
    folder, table = exported(run, "torchmil"), stored(run, "s0")
    np.testing.assert_array_equal(np.load(folder / "features" / "s0.npy"), table.features.astype(np.float32))
    cells = np.load(folder / "coords" / "s0.npy")
    np.testing.assert_array_equal(cells * STRIDE, table.coords - table.coords.min(axis=0))
    assert [int(np.load(folder / "labels" / f"{name}.npy")) for name in NAMES] == [0, 1, 0, 1]
    np.testing.assert_array_equal(np.load(folder / "inst_labels" / "s0.npy"), np.arange(len(cells)) % 3 - 1)
    assert not (folder / "inst_labels" / "s1.npy").exists()
    assert pd.read_csv(folder / "bags.csv")["code"].tolist() == [0, 1, 0, 1]


def test_csv(run: Path) -> None:
    folder, table = exported(run, "csv"), stored(run, "s0")
    found = pd.read_csv(folder / "patches" / "s0.csv")
    np.testing.assert_array_equal(found[["x", "y"]], table.coords)
    np.testing.assert_array_equal(found["x_um"], table.coords[:, 0] * MPP)
    features = found.filter(regex=r"^colour_\d").to_numpy(np.float32)
    np.testing.assert_array_equal(features, table.features.astype(np.float32))
    assert found["label"].fillna("").tolist()[:4] == ["", "stroma", "tumour", ""]
    assert len(pd.read_csv(folder / "patches" / "blank.csv")) == 0


def test_png(run: Path) -> None:
    folder, patches = exported(run, "png"), read_patch_table(run / "tile" / "s0.h5")
    table = pd.read_csv(folder / "tables" / "s0.csv")
    assert len(table) == len(patches.grid) == len(list((folder / "patches" / "s0").iterdir()))
    row = len(table) // 2
    with h5py.File(run / "tile" / "s0.h5") as file:
        kept = file["images"][row]
    picture = np.asarray(Image.open(folder / table["file"][row]))
    np.testing.assert_array_equal(picture, kept)
    assert table["file"][row] == f"patches/s0/{patches.grid.coords[row, 0]}_{patches.grid.coords[row, 1]}.png"


def test_some_pngs(run: Path, tmp_path: Path) -> None:
    exported(run, "png", "--max-patches", "3", "--out", str(tmp_path), "--only", "s1")
    assert len(list((tmp_path / "patches" / "s1").iterdir())) == 3
    assert len(pd.read_csv(tmp_path / "tables" / "s1.csv")) == 3
    assert not (tmp_path / "patches" / "s0").exists()


def test_qupath(run: Path) -> None:
    document = json.loads((exported(run, "qupath") / "s0.geojson").read_text())
    kinds = [feature["properties"]["objectType"] for feature in document["features"]]
    patches = read_patch_table(run / "tile" / "s0.h5")
    assert kinds.count("tile") == len(patches.grid)
    assert kinds.count("annotation") >= 1
    tile = document["features"][kinds.index("tile") + 1]
    x, y = patches.grid.coords[1].tolist()
    assert tile["geometry"]["coordinates"][0][2] == [x + SIDE, y + SIDE]
    assert tile["properties"]["classification"]["name"] == "stroma"
    assert tile["properties"]["measurements"]["Tissue"] == pytest.approx(float(patches.grid.coverage[1]), abs=1e-4)


def test_outlines_for_qupath_are_valid_polygons_of_tissue_and_patches(run: Path) -> None:
    """Read by shapely: closed, not crossing itself, with the area of a patch; tissue within the slide."""
    folder = exported(run, "qupath")
    for name in NAMES:
        document = json.loads((folder / f"{name}.geojson").read_text())
        assert document["type"] == "FeatureCollection"
        ids = [feature["id"] for feature in document["features"]]
        assert len(set(ids)) == len(ids)
        patches = read_patch_table(run / "tile" / f"{name}.h5").grid.coords
        tiles = []
        for feature in document["features"]:
            polygon = shape(feature["geometry"])
            assert polygon.is_valid
            assert polygon.area > 0
            assert all(
                part[0] == part[-1] for part in feature["geometry"]["coordinates"] if polygon.geom_type == "Polygon"
            )
            if feature["properties"]["objectType"] == "tile":
                tiles.append(polygon.bounds)
            else:
                assert box(0, 0, 640, 480).covers(polygon)
        np.testing.assert_array_equal(tiles, np.concatenate([patches, patches + SIDE], axis=1))


def test_geojson_has_what_qupath_reads(run: Path) -> None:
    """The rules of QuPath's own reader: qupath-core, PathObjectTypeAdapters.java at 0a77ded, read() of an object."""
    for path in sorted(exported(run, "qupath").glob("*.geojson")):
        for feature in json.loads(path.read_text())["features"]:
            assert str(uuid.UUID(feature["id"])) == feature["id"], "any other id is dropped"
            assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
            properties = feature["properties"]
            assert properties["objectType"] in ("annotation", "tile"), "an unknown type becomes an annotation"
            assert type(properties["isLocked"]) is bool
            assert isinstance(properties.get("name", ""), str)
            numbers = properties.get("measurements", {})
            assert all(isinstance(value, (int, float)) and np.isfinite(value) for value in numbers.values())
            if "classification" in properties:
                colour = properties["classification"]["color"]
                assert len(colour) == 3
                assert all(type(part) is int and 0 <= part <= 255 for part in colour)


def test_anndata(run: Path) -> None:
    folder, table = exported(run, "anndata"), stored(run, "s0")
    with h5py.File(folder / "s0.h5ad") as file:
        assert file.attrs["encoding-type"] == "anndata"
        np.testing.assert_array_equal(file["X"][:], table.features.astype(np.float32))
        np.testing.assert_array_equal(file["obsm/spatial"][:], table.coords + SIDE / 2)
        assert list(file["obs"].attrs["column-order"])[:3] == ["x", "y", "side"]
        names = file["obs/patch_label/categories"].asstr()[:].tolist()
        assert names == list(CLASSES)
        np.testing.assert_array_equal(file["obs/patch_label/codes"][:], np.arange(len(table.coords)) % 3 - 1)
        hires = file["uns/spatial/s0/images/hires"]
        scale = file["uns/spatial/s0/scalefactors/tissue_hires_scalef"][()]
        assert scale * 640 == hires.shape[1]
        assert file["var/_index"].asstr()[:2].tolist() == ["colour_0", "colour_1"]  # joined by name: no encoders mixed


def test_spatialdata(run: Path) -> None:
    folder, table = exported(run, "spatialdata"), stored(run, "s0")
    root = zarr.open_group(str(folder / "s0.zarr"), mode="r")
    assert root.attrs["spatialdata_attrs"]["version"] == "0.2"
    np.testing.assert_array_equal(root["tables/colour/X"][:], table.features.astype(np.float32))
    rings, first = root["shapes/tiles/coords"][:], root["shapes/tiles/offset0"][:]
    np.testing.assert_array_equal(rings[first[:-1]], table.coords)
    np.testing.assert_array_equal(rings[first[:-1] + 2], table.coords + SIDE)
    multiscale = root["images/thumbnail"].attrs["ome"]["multiscales"][0]
    shape = root["images/thumbnail/s0"].shape
    assert multiscale["coordinateTransformations"][0]["scale"] == [1, 480 / shape[1], 640 / shape[2]]
    assert list(root["tables/colour/obs/instance_id"][:]) == list(range(len(table.coords)))


@pytest.mark.parametrize(
    "to", ["trident", "clam", "stamp", "torchmil", "csv", "png", "qupath", "anndata", "spatialdata"]
)
def test_again_is_up_to_date_and_a_removed_file_comes_back(
    run: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(run, to)
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if _of_slide(path, folder)}
    capsys.readouterr()
    exported(run, to)
    said = capsys.readouterr().out
    assert "up to date" in said
    assert said.splitlines()[-1].startswith("next: ")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    gone = next(iter(before))
    content = gone.read_bytes()
    gone.unlink()
    exported(run, to)
    assert gone.read_bytes() == content


def _of_slide(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.is_file() and LEDGER not in parts and any(part.startswith("s1") for part in parts)


def test_one_bad_slide_stops_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = run / "embed" / "colour" / "s1.h5"
    good = store.read_bytes()
    store.write_bytes(good[:2000])
    try:
        assert main(["export", "--to", "torchmil", "--run", str(run), "--out", str(tmp_path)]) == 3
        said = capsys.readouterr().out
        assert said.count("s1 is not exported: ") == 1
        assert "3 slides in " in said
        assert pd.read_csv(tmp_path / "bags.csv")["slide_id"].tolist() == ["s0", "s2", "s3"]
    finally:
        for copy in store.parent.glob("s1.h5*"):
            copy.unlink()
        store.write_bytes(good)
    exported(run, "torchmil", "--out", str(tmp_path))
    assert pd.read_csv(tmp_path / "bags.csv")["slide_id"].tolist() == list(NAMES)


def test_files_of_slides_that_left_the_cohort_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(run, "csv", "--out", str(tmp_path))
    assert "exported before" not in capsys.readouterr().out
    cohort = run / "cohort.csv"
    whole = cohort.read_text()
    cohort.write_text("".join(line for line in whole.splitlines(keepends=True) if not line.startswith("s1,")))
    try:
        exported(run, "csv", "--out", str(tmp_path))
        assert "also holds files of 1 slide exported before: s1. The tables" in capsys.readouterr().out
        assert pd.read_csv(tmp_path / "slides.csv")["slide_id"].tolist() == ["s0", "s2", "s3", "blank"]
    finally:
        cohort.write_text(whole)


def test_float16_on_request(run: Path, tmp_path: Path) -> None:
    exported(run, "torchmil", "--dtype", "float16", "--out", str(tmp_path))
    assert np.load(tmp_path / "features" / "s0.npy").dtype == np.float16


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--to", "slideflow"], "unknown export format 'slideflow'"),
        ([], "which format to export to is not stated"),
        (["--to", "clam", "--features", "uni"], "no features of uni in "),
    ],
)
def test_refusals(run: Path, words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words, "--run", str(run)]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize("to", ["qupath", "png", "clam"])
def test_an_export_of_nothing_is_an_error_with_what_to_do(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run(tmp_path / "run", slides=2)
    stores = run / "tile" if to != "clam" else run / "embed" / "colour"
    for path in stores.iterdir():
        path.unlink()
    assert main(["export", "--to", to, "--run", str(run)]) == 2
    said = capsys.readouterr()
    what = "features" if to == "clam" else "patches"
    assert f"no slide was exported: 3 slides without {what} (s0, s1, blank)" in said.err
    assert ("embed" if to == "clam" else "wsi-pipeline import patches FOLDER --slides SLIDES") in said.err
    assert "next:" not in said.out


def test_what_every_slide_fails_of_is_the_error(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = small_run(tmp_path / "run", slides=1)
    (copy / "embed/colour/s0.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(900))
    (copy / "embed/colour/blank.h5").unlink()
    assert main(["export", "--to", "stamp", "--run", str(copy)]) == 2
    assert "no slide was exported: s0: " in capsys.readouterr().err


def test_the_command_for_clam_names_the_width_of_its_features(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(run, "clam")
    assert f"--embed_dim {stored(run, 's0').features.shape[1]} " in capsys.readouterr().out


def test_the_default_folder_is_the_one_that_help_and_page_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = " ".join((Path(__file__).parents[2] / "docs/export.md").read_text().split())
    main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for to in EXPORT_FORMATS.names():
        folder = exported(run, to)
        named = "export/FORMAT/ENCODER" if EXPORT_FORMATS.get(to).needs == "features" else "export/FORMAT"
        assert str(folder.relative_to(run)) == named.replace("FORMAT", to).replace("ENCODER", "colour")
        assert named in said
        assert f"`wsi-run/{named}/`" in page


def test_two_exports_do_not_mix(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(run, "csv", "--out", str(tmp_path))
    assert main(["export", "--to", "stamp", "--run", str(run), "--out", str(tmp_path)]) == 2
    assert "holds another export: to csv, not stamp" in capsys.readouterr().err
