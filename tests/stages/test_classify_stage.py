"""classify on small real slides: what its files hold, what is skipped, what is made again and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.adapter_files import CLASSES, write_adapter, write_backbone
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.encoders.pathotune import PathoTunePlan
from wsi_pipeline.errors import StoreError
from wsi_pipeline.reading.patch_reader import SlidePatches
from wsi_pipeline.report.maps.class_areas import class_colours
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.store.tables.class_table import read_class_table
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.tissue.geojson import from_geojson

GOOD = ("s0", "s1")


ADAPTER = Path("run", "tune", "pathotune", "adapter.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slides.csv and a run that has an adapter and was tiled and classified."""
    folder = tmp_path_factory.mktemp("classify")
    write_cohort(folder, per_class=1)
    (folder / ADAPTER).parent.mkdir(parents=True)
    write_adapter(folder / ADAPTER, write_backbone(folder / "weights.safetensors"))
    words = ["--run", str(folder / "run"), "--workers", "0", "--patch-px", "128"]
    assert main(["tile", str(folder / "slides.csv"), *words]) == 3
    assert classify(folder) == 3
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def classify(folder: Path, *words: str) -> int:
    options = ["--run", str(folder / "run"), "--weights", str(folder / "weights.safetensors"), "--precision", "fp32"]
    return main(["classify", *options, *words])


def place(folder: Path, name: str) -> Path:
    return folder / "run" / "classify" / "pathotune" / name


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place(folder, ".").iterdir()}


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in place(folder, ".").iterdir() if path.suffix != ".csv"}


def patches_of(folder: Path, slide: str) -> NDArray[np.uint8]:
    table = read_patch_table(folder / "run" / "tile" / f"{slide}.h5")
    with open_slide(folder / f"{slide}.svs") as opened:
        source = SlidePatches(opened, table.grid.coords, table.geometry)
        return np.stack([source.read(row) for row in range(len(source))])


def test_row_i_is_the_same_patch_and_its_probability_the_network_s(made: Path) -> None:
    plan = PathoTunePlan("pathotune", made / ADAPTER, made / "weights.safetensors")
    for slide in GOOD:
        patches = read_patch_table(made / "run" / "tile" / f"{slide}.h5")
        table = read_class_table(place(made, f"{slide}.h5"))
        np.testing.assert_array_equal(table.coords, patches.grid.coords)
        assert table.header.parent_digest == patches.header.digest
        assert table.header.extra["encoder"]["fingerprint"] == plan.fingerprint
        assert table.classes == CLASSES
        told = plan.open_classifier("cpu", "fp32").probabilities(patches_of(made, slide))
        np.testing.assert_allclose(table.probabilities, told, atol=1e-5)
        assert table.probabilities.std(axis=0).max() > 1e-4


def test_the_store_is_as_the_format_says(made: Path) -> None:
    with h5py.File(place(made, "s0.h5")) as file:
        assert file.attrs["format"] == "wsi-pipeline/classes"
        assert file["probabilities"].dtype == np.float32
        assert file["probabilities"].shape == (len(file["coords"]), len(CLASSES))
        assert file["coords"].attrs["patch_size_level0"] == 128
        extra = json.loads(file.attrs["extra"])
        assert extra["adapter"] == "tune/pathotune/adapter.safetensors"
        assert sum(extra["fractions"].values()) + extra["unclear"] == pytest.approx(1)
        assert json.loads(file.attrs["specs"])["classify"]["model"] == "pathotune"


def test_fractions_count_patches_by_their_likeliest_class(made: Path) -> None:
    table = pd.read_csv(place(made, "fractions.csv")).set_index("slide_id")
    assert list(table.index) == [*GOOD, "blank"]
    for slide in GOOD:
        chances = read_class_table(place(made, f"{slide}.h5")).probabilities
        assert table.patches[slide] == len(chances)
        for number, name in enumerate(CLASSES):
            assert table[f"fraction_{name}"][slide] == pytest.approx((chances.argmax(1) == number).mean(), abs=1e-6)
            assert table[f"mean_p_{name}"][slide] == pytest.approx(chances[:, number].mean(), abs=1e-5)
        assert table.unclear[slide] == 0
    assert table.patches["blank"] == 0
    assert table.drop(columns="patches").loc["blank"].isna().all()


def test_polygons_lie_where_patches_of_the_class_lie(made: Path) -> None:
    for slide in GOOD:
        table = read_class_table(place(made, f"{slide}.h5"))
        document = json.loads((place(made, f"{slide}.geojson")).read_text())
        labels = table.probabilities.argmax(axis=1)
        for number, name in enumerate(CLASSES):
            features = [item for item in document["features"] if item["properties"]["classification"]["name"] == name]
            polygons = from_geojson({"type": "FeatureCollection", "features": features})
            assert sum(polygon.area for polygon in polygons) == (labels == number).sum() * 128**2
            edges = {tuple(point) for polygon in polygons for point in polygon.exterior.coords}
            corners = {
                (x + i * 128.0, y + j * 128.0)
                for x, y in table.coords[labels == number]
                for i in (0, 1)
                for j in (0, 1)
            }
            assert edges <= corners


def test_the_overlay_has_the_colour_of_the_class_at_each_patch(made: Path) -> None:
    table = read_class_table(place(made, "s0.h5"))
    image = np.asarray(Image.open(place(made, "s0.png"))).astype(int)
    scale = image.shape[1] / table.header.slide.width
    colours = np.array(class_colours(len(CLASSES)))
    for (x, y), label in zip(table.coords, table.probabilities.argmax(axis=1), strict=True):
        pixel = image[round((y + 64) * scale), round((x + 64) * scale)]
        hue = pixel - pixel.mean()
        assert (hue @ (colours - colours.mean(axis=1, keepdims=True)).T).argmax() == label


def test_running_again_changes_nothing_and_says_so(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, times = results(work), stamps(work)
    capsys.readouterr()
    assert classify(work) == 3
    assert "3 up to date" in capsys.readouterr().out
    assert results(work) == before
    assert stamps(work) == times


def test_another_threshold_draws_anew_but_computes_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_class_table(place(work, "s0.h5")).probabilities
    least = float(np.median(before.max(axis=1)))
    capsys.readouterr()
    assert classify(work, "--min-probability", str(least)) == 3
    out = capsys.readouterr().out
    assert "classify 0/0 patches" in out
    assert f"3 slides recomputed, classify/pathotune: min_probability 0.0 -> {least}" in out
    table = read_class_table(place(work, "s0.h5"))
    np.testing.assert_array_equal(table.probabilities, before)
    unclear = (before.max(axis=1) < least - 1e-6).mean()
    assert 0 < unclear < 1
    assert table.header.extra["unclear"] == pytest.approx(unclear)
    document = json.loads((place(work, "s0.geojson")).read_text())
    assert sum(polygon.area for polygon in from_geojson(document)) == round((1 - unclear) * len(before)) * 128**2


@pytest.mark.parametrize("suffix", ["png", "geojson"])
def test_a_lost_picture_is_drawn_again(work: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    before = results(work)
    (place(work, f"s0.{suffix}")).unlink()
    capsys.readouterr()
    classify(work)
    out = capsys.readouterr().out
    assert "classify 0/0 patches" in out
    assert f"s0.{suffix} is missing" in out
    assert results(work) == before


def test_a_damaged_store_is_made_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = results(work)
    store = place(work, "s1.h5")
    store.write_bytes(before["s1.h5"][: len(before["s1.h5"]) // 2])
    with pytest.raises(StoreError):
        read_class_table(store)
    classify(work)
    aside = place(work, "s1.h5.damaged-1")
    assert "1 slide recomputed, classify/pathotune: damaged, kept as s1.h5.damaged-1" in capsys.readouterr().out
    assert aside.read_bytes() == before["s1.h5"][: len(before["s1.h5"]) // 2]
    aside.unlink()
    assert results(work) == before


def test_another_adapter_makes_all_again_and_fractions_do_not_mix(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(work / ADAPTER, work / "weights.safetensors", seed=1)
    capsys.readouterr()
    assert classify(work, "--only", "s1") == 0
    out = capsys.readouterr().out
    assert "1 slide recomputed, classify/pathotune: other weights" in out
    assert "left out of fractions.csv" in out
    assert list(pd.read_csv(place(work, "fractions.csv")).slide_id) == ["s1"]
    assert classify(work) == 3
    assert "1 up to date" in capsys.readouterr().out
    assert len(pd.read_csv(place(work, "fractions.csv"))) == 3


def test_new_patches_make_their_slide_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(work / "run")
    assert (
        main(["tile", "--run", run, "--only", "s0", "--workers", "0", "--patch-px", "128", "--overlap-px", "64"]) == 0
    )
    capsys.readouterr()
    classify(work, "--only", "s0")
    assert "1 slide recomputed, classify/pathotune: its input has changed" in capsys.readouterr().out
    patches = read_patch_table(work / "run" / "tile" / "s0.h5")
    np.testing.assert_array_equal(read_class_table(place(work, "s0.h5")).coords, patches.grid.coords)


def test_zarr_holds_the_same(work: Path) -> None:
    before = read_class_table(place(work, "s0.h5"))
    assert classify(work, "--store", "zarr") == 3
    assert not (place(work, "s0.h5")).exists()
    after = read_class_table(place(work, "s0.zarr"))
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert after.header == before.header
