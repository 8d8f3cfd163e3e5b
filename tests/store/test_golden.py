"""Every format version as it was first written: today's code reads it, and still writes files of the newest build.

A failure here means that files of users are read differently, or that new files are not what docs/format.md says. Raise
`VERSION` in store/schema.py, make the next folder in tests/golden, and say in docs/format.md what changed.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image
from safetensors import safe_open

from tests.golden.make_golden import SUFFIXES, build
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.geometry import Size
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.mil.trained.inference import probabilities
from wsi_pipeline.quality.measures import MEASURES
from wsi_pipeline.stages.results.trainings import read_training
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tiling.resolve import PatchGeometry

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
VERSIONS = ("v1", "v2")
DOCUMENT = GOLDEN.parents[1] / "docs" / "format.md"
KINDS = ("segment", "patches-none", "patches-jpeg", "patches-raw", "features")

COORDS = [[x, y] for y in (72, 108, 144) for x in (72, 108, 144, 180)]
COVERAGE = [287 / 288, 1, 1, 575 / 576, 1, 1, 1, 1, 15 / 16, 1, 1, 545 / 576]
FEATURES = {
    (0, 0): 0.2032470703125, (0, 1): 0.030303955078125, (0, 3): 2.1171875,
    (11, 0): 0.193359375, (11, 2): -1.5009765625, (11, 5): 0.06622314453125,
}  # fmt: skip
GEOMETRY = PatchGeometry(
    patch_px=24, patch_level0=48, stride_level0=36, level=0, level_px=48, mpp=4.0, resampled=False
)  # fmt: skip
COORDS_ATTRS = {
    "name": "g0", "patch_size": 24, "patch_size_level0": 48, "overlap": 6, "level0_magnification": 5,
    "target_magnification": 2.5, "level0_width": 320, "level0_height": 256, "patch_px": 24, "patch_level0": 48,
    "stride_level0": 36, "level": 0, "level_px": 48, "mpp": 4.0, "resampled": False,
}  # fmt: skip
SLIDE = {
    "slide_id": "g0", "file_name": "g0.tif", "width": 320, "height": 256, "vendor": "generic-tiff",
    "backend": "openslide", "objective": None, "own_mpp": 2.0, "mpp": 2.0, "mpp_source": "slide",
    "quick_digest": "024883cd9ce68fce5d34baae52b05921b7c7ab25ce55c220bf333d80a6a00316",
}  # fmt: skip
TILE_SPEC = {
    "patch_px": 24, "mpp": 4.0, "overlap_px": 6, "min_coverage": 0.9, "mpp_tolerance": 0.03, "allow_upsample": False,
    "jpeg_quality": 90,
}  # fmt: skip
REVISIONS = {"v1": 1, "v2": 2}
"""Of the code of segment and tile that made the files."""
MODEL_PROBABILITIES = {
    "v1": [[0.581453, 0.418547], [0.641127, 0.358873]],
    "v2": [[0.468460, 0.531540], [0.553358, 0.446642]],
}
ENCODER = "bb72e785d7efc0c7ea9d95f22e15207d98f578053bbc271ffdbee66d49830bb8"


def unpack(folder: Path, into: Path) -> Path:
    """A copy of a golden folder with its Zarr stores unzipped."""
    shutil.copytree(folder, into)
    for archive in into.glob("*.zip"):
        shutil.unpack_archive(archive, archive.with_suffix(""))
    return into


@pytest.fixture(scope="module", params=VERSIONS)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of each version."""
    return unpack(GOLDEN / request.param, tmp_path_factory.mktemp("golden") / request.param)


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the version that is written today."""
    return unpack(GOLDEN / VERSIONS[-1], tmp_path_factory.mktemp("newest") / VERSIONS[-1])


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same files as the golden ones, made by today's code."""
    folder = tmp_path_factory.mktemp("today")
    build(folder / "made")
    return unpack(folder / "made", folder / "today")


suffixes = pytest.mark.parametrize("suffix", list(SUFFIXES.values()))


@suffixes
def test_segment_reads_as_it_was_written(golden: Path, suffix: str) -> None:
    segment = read_segment_table(golden / f"segment{suffix}")
    assert segment.mask.pixels.shape == (128, 160)
    assert segment.mask.pixels.sum() == 6426
    assert segment.mask.pixels[30].nonzero()[0][[0, -1]].tolist() == [44, 106]
    assert segment.mask.slide_size == Size(320, 256)
    assert segment.mask.mpp == 2.0
    assert segment.thumbnail.shape == (256, 320, 3)
    assert segment.thumbnail[0, 0].tolist() == [243, 243, 243]
    assert vars(segment.header.slide) == SLIDE
    assert segment.header.extra == {"revision": REVISIONS[golden.name], "tissue_mm2": 0.1028, "warning": ""}


@suffixes
@pytest.mark.parametrize("pixels", ["none", "jpeg", "raw"])
def test_patches_read_as_they_were_written(golden: Path, suffix: str, pixels: str) -> None:
    path = golden / f"patches-{pixels}{suffix}"
    table = read_patch_table(path)
    assert table.grid.coords.tolist() == COORDS
    np.testing.assert_allclose(table.grid.coverage, COVERAGE, rtol=1e-6)
    assert table.geometry == GEOMETRY
    assert vars(table.header.slide) == SLIDE
    assert table.header.specs["tile"] == {**TILE_SPEC, "pixels": pixels}
    assert table.pixels == {"none": "none", "jpeg": "jpeg", "raw": "images"}[pixels]
    with open_store(path) as store:
        assert store.array_attrs("coords") == COORDS_ATTRS


@suffixes
def test_kept_pixels_read_as_they_were_written(golden: Path, suffix: str) -> None:
    with open_store(golden / f"patches-raw{suffix}") as store:
        images = store.read("images")
    assert images.shape == (12, 24, 24, 3)
    assert images.dtype == np.uint8
    assert images.sum() == 2_918_628
    with open_store(golden / f"patches-jpeg{suffix}") as store:
        jpegs = store.read_bytes("jpeg")
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in jpegs])
    assert decoded.shape == images.shape
    assert np.abs(decoded.astype(int) - images).mean() < 6


@suffixes
def test_features_read_as_they_were_written(golden: Path, suffix: str) -> None:
    table = read_feature_table(golden / f"features{suffix}")
    assert table.features.shape == (12, 133)
    assert table.features.dtype == np.float16
    assert {place: float(table.features[place]) for place in FEATURES} == FEATURES
    assert table.coords.tolist() == COORDS
    assert table.geometry == GEOMETRY
    assert table.header.extra["encoder"]["fingerprint"] == ENCODER
    assert table.header.extra["encoder"]["dim"] == 133
    with open_store(golden / f"features{suffix}") as store:
        assert store.array_attrs("coords") == COORDS_ATTRS
        assert store.array_attrs("features") == {"name": "g0"}


@suffixes
def test_digests_follow_the_documented_recipe(golden: Path, suffix: str) -> None:
    segment = read_segment_table(golden / f"segment{suffix}").header
    tile = read_patch_table(golden / f"patches-none{suffix}").header
    embed = read_feature_table(golden / f"features{suffix}").header
    parts = {"quick_digest": segment.slide.quick_digest, "mpp": segment.slide.mpp}
    revision = REVISIONS[golden.name]
    assert segment.digest == digest_of(
        stage="segment", version=1, revision=revision, spec=segment.specs["segment"], slide=parts
    )
    assert segment.parent_digest == segment.slide.quick_digest
    assert tile.digest == digest_of(
        stage="tile", version=1, revision=revision, spec=tile.specs["tile"], parent=segment.digest
    )
    assert tile.parent_digest == segment.digest
    assert embed.digest == digest_of(
        stage="embed", version=1, revision=1, spec=embed.specs["embed"], parent=tile.digest, model=ENCODER
    )
    assert embed.parent_digest == tile.digest


def test_the_model_predicts_as_it_did(golden: Path) -> None:
    ensemble = load_ensemble(golden / "model")
    assert ensemble.classes == ("blue", "red")
    assert (ensemble.feature_dim, len(ensemble.models), ensemble.spec.hidden_dim) == (133, 2, 8)
    bags = Bags.from_arrays([read_feature_table(golden / "features.h5").features], ["g0"])
    found = [probabilities(model, bags)[0].tolist() for model in ensemble.models]
    np.testing.assert_allclose(found, MODEL_PROBABILITIES[golden.name], atol=2e-5)
    training = read_training(golden / "model")
    assert training is not None
    assert training.metrics["pooled"]["auroc"]["value"] == {"v1": 1.0, "v2": 0.75}[golden.name]
    row = training.predictions.set_index("slide_id").loc["g0"]
    assert (row["fold"], row["p_blue"]) == (1, pytest.approx(found[1][0], abs=2e-5))


def test_the_status_reads_as_it_was_written(golden: Path) -> None:
    stages = read_status(golden / "status.json", "g0").stages
    assert list(stages) == ["segment", "tile", "embed/colour", "heatmap/colour/gated-abmil"]
    assert stages["tile"].state == "done"
    assert stages["tile"].summary["patches"] == 12


@pytest.mark.parametrize("kind", KINDS)
def test_hdf5_is_built_as_it_was(newest: Path, today: Path, kind: str) -> None:
    assert without_quality(hdf5_build(today / f"{kind}.h5"), kind) == hdf5_build(newest / f"{kind}.h5")


@pytest.mark.parametrize("kind", KINDS)
def test_zarr_is_built_as_it_was(newest: Path, today: Path, kind: str) -> None:
    assert without_quality(zarr_build(today / f"{kind}.zarr"), kind) == zarr_build(newest / f"{kind}.zarr")


@suffixes
@pytest.mark.parametrize("kind", KINDS)
def test_settings_in_a_store_only_grow(golden: Path, today: Path, kind: str, suffix: str) -> None:
    with open_store(golden / f"{kind}{suffix}") as then, open_store(today / f"{kind}{suffix}") as now:
        old, new = json.loads(then.attrs["specs"]), json.loads(now.attrs["specs"])
    for stage, spec in old.items():
        assert spec.items() <= new[stage].items()


def test_model_folders_are_built_as_they_were(newest: Path, today: Path) -> None:
    then, now = newest / "model", today / "model"
    assert {path.name for path in now.iterdir()} == {path.name for path in then.iterdir()} | {"model_card.md"}
    for name in ("config.json", "metrics.json", "history.json"):
        new, old = (json.loads((folder / name).read_text()) for folder in (now, then))
        if name == "config.json":  # settings may grow
            assert shape_of(old["spec"]).items() <= shape_of(new.pop("spec")).items()
            del old["spec"]
        assert shape_of(new) == shape_of(old)
    for name in ("predictions.csv", "folds.csv"):
        assert (now / name).read_text().splitlines()[0] == (then / name).read_text().splitlines()[0]
    for name in ("fold0.safetensors", "fold1.safetensors"):
        assert safetensors_build(now / name) == safetensors_build(then / name)
    assert shape_of(json.loads((today / "status.json").read_text())) == shape_of(
        json.loads((newest / "status.json").read_text())
    )


def test_the_code_in_the_format_document_runs(
    newest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    for source, target in (
        ("patches-jpeg.h5", "wsi-run/tile/s01.h5"),
        ("features.h5", "wsi-run/embed/colour/s01.h5"),
        ("patches-jpeg.zarr", "wsi-run-zarr/tile/s01.zarr"),
        ("model", "wsi-run/train-mil/colour/gated-abmil"),
    ):
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (newest / source).is_dir() else shutil.copy)(newest / source, tmp_path / target)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert len(blocks) == 6
    assert names["first_patch"].size == names["same_patch"].size == (24, 24)
    np.testing.assert_allclose(names["probabilities"], MODEL_PROBABILITIES[newest.name][0], atol=2e-5)
    assert "12 patches of 96 um, the first at [72, 72]" in capsys.readouterr().out


def test_the_format_document_names_everything_in_the_files(newest: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    names: set[str] = set()
    for kind in KINDS:
        with open_store(newest / f"{kind}.h5") as store:
            names |= {*store.attrs, *store.names(), *json.loads(store.attrs["slide"])}
            extra = json.loads(store.attrs["extra"])
            names |= {*extra, *extra.get("encoder", {})}
            names |= {key for name in store.names() for key in store.array_attrs(name)}
    config, metrics = (json.loads((newest / "model" / name).read_text()) for name in ("config.json", "metrics.json"))
    names |= {*config, *config["provenance"], *config["folds"][0], *metrics, *metrics["folds"][0]}
    names |= {*metrics["pooled"], *metrics["pooled"]["auroc"], *metrics["per_class"]["red"]}
    names |= {key for part in ("interval", "calibration", "threshold", "permutation") for key in metrics[part]}
    names |= {*metrics["calibration"]["bins"][0], *metrics["repeats"]["auroc"], *metrics["folds"][0]["metrics"]}
    names |= {*json.loads((newest / "status.json").read_text())["stages"]["tile"]}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def without_quality(build: dict[str, Any], kind: str) -> dict[str, Any]:
    """The build of a patch store less what the measures of quality added to it; every such store has them."""
    if kind.startswith("patches"):
        columns = build["arrays"].pop("quality")
        assert columns["dtype"] == "float32"
        assert len(re.findall(r'"[a-z]+"', str(columns["attrs"]["names"]))) == len(MEASURES)
        assert build["arrays"].pop("quality_crc32c")["dtype"] == "uint32"
        assert set(build["extra"].pop("quality")) == {"digest", "measures", "overview_mpp", "pixels", "revision"}
    return build


def hdf5_build(path: Path) -> dict[str, Any]:
    """Names, types, filters and attributes of an HDF5 store; lengths that depend on the content are left out."""
    with h5py.File(path) as file:
        arrays = {
            name: {
                "dtype": str(h5py.check_vlen_dtype(array.dtype) or array.dtype),
                "ragged": h5py.check_vlen_dtype(array.dtype) is not None,
                "tail": array.shape[1:] if name != "mask" else "mask",
                "filters": (array.compression, array.fletcher32),
                "attrs": {key: (str(array.attrs.get_id(key).dtype), array.attrs[key]) for key in array.attrs},
            }
            for name, array in file.items()
        }
        types = {key: str(file.attrs.get_id(key).dtype) for key in file.attrs}
        return {"arrays": arrays, "types": types, **header_build(dict(file.attrs))}


def zarr_build(path: Path) -> dict[str, Any]:
    """The same of a Zarr store, with its whole codec chain."""
    group = zarr.open_group(str(path), mode="r", zarr_format=3)
    arrays = {}
    for name in group:
        meta = json.loads((path / name / "zarr.json").read_text())
        codecs = json.loads(json.dumps(meta["codecs"]))
        codecs[0]["configuration"].pop("chunk_shape")
        arrays[name] = {
            "dtype": meta["data_type"], "dims": len(meta["shape"]), "codecs": codecs, "fill": meta["fill_value"],
            "attrs": meta["attributes"],
        }  # fmt: skip
    return {"arrays": arrays, **header_build(dict(group.attrs))}


def header_build(attrs: dict[str, Any]) -> dict[str, Any]:
    """Names and types of root attributes and of what their JSON holds; spec fields are compared elsewhere."""
    return {
        "names": sorted(attrs),
        "format": (attrs["format"], int(attrs["version"])),
        "slide": shape_of(json.loads(attrs["slide"])),
        "extra": shape_of(json.loads(attrs["extra"])),
        "specs": sorted(json.loads(attrs["specs"])),
    }


def shape_of(value: Any) -> Any:
    """A JSON value with its leaves replaced by their types; of a list, the kinds of its items."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items() if key != "warnings"}
    if isinstance(value, list):
        kinds = [json.dumps(shape_of(item), sort_keys=True) for item in value]
        return sorted(set(kinds))
    return type(value).__name__


def safetensors_build(path: Path) -> dict[str, Any]:
    with safe_open(path, "np") as file:
        names = sorted(file.keys())
        parts = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in names}
        return {"metadata": file.metadata(), "tensors": parts}
