"""`tune --suggest`: the patches that the tuned model is least sure of, as a list that tune reads back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.stages.cohorts import write_cohort
from tests.stages.tune_files import BACKBONE, write_backbone
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.open_labelled import open_together
from wsi_pipeline.stages.outputs.patch_images import write_patch_images
from wsi_pipeline.stages.results.least_sure import SlidePatchClasses, least_sure
from wsi_pipeline.store.tables.class_table import read_class_table
from wsi_pipeline.store.tables.patch_table import read_patch_table

Out = Callable[[], str]
SIDE, LABELLED = 64, (0, 5, 9)
SLIDES = {f"s{k}": "red" if k % 2 == 0 else "blue" for k in range(4)}


def tune(folder: Path, *more: str) -> int:
    quick = ["--model", BACKBONE, "--weights", str(folder / "vit.safetensors"), "--input-px", "32", "--no-ttp"]
    quick += ["--epochs", "1", "--bootstrap", "100", "--device", "cpu", "--test-fraction", "0"]
    return main(["tune", str(folder / "labels.csv"), *more, "--run", str(folder / "run"), *quick])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiled slides, three labelled patches of each in labels.csv, tuned on and classified."""
    folder = tmp_path_factory.mktemp("suggest")
    table = write_cohort(folder, broken=False)
    write_backbone(folder / "vit.safetensors")
    run = RunDir(folder / "run")
    words = ["tile", str(table), "--run", str(run.root), "--patch-px", str(SIDE), "--mpp", "0.5", "--workers", "0"]
    assert main([*words, "--quiet"]) == 0
    lines = []
    for slide_id, label in SLIDES.items():
        own, names = write_patch_images(run, slide_id, folder / f"{slide_id}.svs", LABELLED)
        for row, name in zip(LABELLED, names, strict=True):
            x, y = own.grid.coords[row].tolist()
            place = {"slide_id": slide_id, "level0_x": x, "level0_y": y}
            lines.append({"path": f"run/annotations/{name}", "label": label, "group": f"p{slide_id[1]}", **place})
    pd.DataFrame(lines).to_csv(folder / "labels.csv", index=False)
    assert tune(folder) == 0
    assert main(["classify", "--run", str(run.root), "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    table = pd.read_csv(folder / "run" / "cohort.csv").map(
        lambda cell: cell.replace(str(made), str(folder)) if isinstance(cell, str) else cell
    )
    table.to_csv(folder / "run" / "cohort.csv", index=False)
    return folder


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    capsys.readouterr()
    return lambda: "".join(capsys.readouterr())


def test_the_list_names_unlabelled_patches_with_their_doubt_and_pixels(work: Path, out: Out) -> None:
    assert tune(work, "--suggest", "8") == 0
    assert "8 patches of 4 slides in" in out()
    run = RunDir(work / "run")
    found = pd.read_csv(run.annotations / "suggestions-1.csv", keep_default_na=False)
    assert len(found) == 8
    assert (found["label"] == "").all()
    assert found["uncertainty"].is_monotonic_decreasing
    assert found["slide_id"].value_counts().tolist() == [2, 2, 2, 2]
    labelled = pd.read_csv(work / "labels.csv")
    places = ["slide_id", "level0_x", "level0_y"]
    assert found.merge(labelled, on=places).empty
    for row in found.itertuples():
        table = read_class_table(run.class_store("pathotune", row.slide_id))
        place = int(np.flatnonzero((table.coords == (row.level0_x, row.level0_y)).all(axis=1))[0])
        chances = np.sort(table.probabilities[place].astype(float))
        assert row.uncertainty == pytest.approx(1 - (chances[-1] - chances[-2]), abs=1e-4)
        assert row.predicted == table.classes[int(table.probabilities[place].argmax())]
        assert row.group == f"p{row.slide_id[1]}"
        assert row.mpp == pytest.approx(0.5)
        patches = read_patch_table(run.patch_store(row.slide_id))
        assert patches.grid.coords[place].tolist() == [row.level0_x, row.level0_y]
        assert Image.open(run.annotations / row.path).size == (SIDE, SIDE)


def test_a_list_filled_in_is_read_back_and_its_patches_are_not_suggested_again(work: Path, out: Out) -> None:
    assert tune(work, "--suggest", "4") == 0
    path = work / "run" / "annotations" / "suggestions-1.csv"
    first = pd.read_csv(path, keep_default_na=False)
    assert tune(work, "--suggest", "5") == 0  # nothing in the list is labelled yet: it is replaced
    assert len(pd.read_csv(path)) == 5
    filled = first.assign(label=[*map(SLIDES.get, first["slide_id"][:3]), ""])
    filled.to_csv(path, index=False, sep=";")  # as some spreadsheets save it
    out()
    assert tune(work, str(path)) == 0
    said = out()
    assert "15 patches of 4 groups" in said
    assert "1 of 4 images left out: row 5: no label" in said
    metrics = json.loads((work / "run" / "tune" / "pathotune" / "metrics.json").read_text())
    assert sum(part["patches"] for part in metrics["split"].values()) == 15
    assert tune(work, str(path), "--suggest", "6") == 2
    assert "no slide of this run is classified by the adapter pathotune" in out()  # it has been tuned anew
    assert main(["classify", "--run", str(work / "run"), "--device", "cpu", "--quiet"]) == 0
    assert tune(work, str(path), "--suggest", "6") == 0
    second = pd.read_csv(path.with_name("suggestions-2.csv"))
    assert len(second) == 6
    assert second.merge(filled[filled["label"] != ""], on=["slide_id", "level0_x", "level0_y"]).empty
    assert path.read_text().count(";")  # labels are never overwritten


def test_sources_that_do_not_fit_are_refused_by_name(work: Path) -> None:
    lines = pd.read_csv(work / "labels.csv")
    for name in lines["path"]:
        Image.open(work / name).resize((32, 32)).save(work / f"{Path(name).stem}-small.png")
    small = lines.assign(path=[f"{Path(name).stem}-small.png" for name in lines["path"]])
    small.to_csv(work / "small.csv", index=False)
    lines.drop(columns="group").to_csv(work / "nogroup.csv", index=False)  # slide_id is not what labels.csv groups by
    main_source = work / "labels.csv"
    with pytest.raises(LabelError, match=r"patches of 32 px, but those of .*labels\.csv have 64 px"):
        open_together([main_source, work / "small.csv"])
    with pytest.raises(LabelError, match="needs the columns path, label and group"):
        open_together([main_source, work / "nogroup.csv"])
    with pytest.raises(LabelError, match="further sources of labels must be CSVs"):
        open_together([main_source, work])
    with pytest.raises(LabelError, match="--group-pattern cannot be matched"):
        open_together([main_source, main_source], LabelSpec(group_pattern="(s.)"))


def test_sources_are_joined_by_class_and_group_and_read_their_own_pixels(work: Path) -> None:
    lines = pd.read_csv(work / "labels.csv")
    lines[lines["label"] == "red"].assign(label="a new class").to_csv(work / "more.csv", index=False)
    one = open_together([work / "labels.csv"])
    both = open_together([work / "labels.csv", work / "more.csv"])
    assert both.classes == ("a new class", "blue", "red")
    assert both.class_counts() == {"a new class": 6, "blue": 6, "red": 6}
    assert set(both.groups) == set(one.groups)
    assert both.digest != one.digest
    rows = [17, 0, 12, 3]
    expected = [Image.open(work / name) for name in (*lines["path"], *lines["path"][lines["label"] == "red"])]
    np.testing.assert_array_equal(both.read(rows), np.stack([np.asarray(expected[row]) for row in rows]))
    assert both.take([12]).contents() == one.take([0]).contents()


def test_slides_take_turns_and_the_most_doubtful_comes_first() -> None:
    def slide(margins: list[float], labelled: tuple[int, ...] = ()) -> SlidePatchClasses:
        chances = np.array([[(1 + m) / 2, (1 - m) / 2] for m in margins], np.float32)
        coords = np.arange(len(margins))[:, None] * np.array([[400, 0]])
        return SlidePatchClasses(chances, coords, 100, labelled)

    slides = [slide([0.9, 0.8]), slide([0.0, 0.05, 0.1]), slide([0.3, 0.2], labelled=(1,))]
    found = [(patch.slide, patch.row) for patch in least_sure(slides, 4)]
    assert found == [(1, 0), (1, 1), (2, 0), (0, 1)]
    assert [(patch.slide, patch.row) for patch in least_sure(slides, 2)] == [(1, 0), (2, 0)]
    assert least_sure(slides, 4)[0].doubt == pytest.approx(1)
    assert len(least_sure(slides, 100)) == 6
