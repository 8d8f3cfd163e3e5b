"""Marks are kept at every stroke, as QuPath reads them, by several windows and processes at once."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
import shapely
from shapely.geometry import shape
from starlette.testclient import TestClient

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.geometry import Size
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.stages.results.least_sure import doubt, spread_out
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.viewer.jobs import Jobs, progress_in
from wsi_pipeline.viewer.marked_patches import marked_rows, teaching, write_patches_csv
from wsi_pipeline.viewer.marks import Marks
from wsi_pipeline.viewer.web.viewer import Viewer

SIZE = Size(1024, 1024)


def square(x: float, y: float, side: float) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def mark(name: str, geometry: dict[str, Any], of: str = "tumour", **more: Any) -> dict[str, Any]:
    properties = {"classification": {"name": of, "color": [200, 0, 0]}, **more}
    return {"op": "put", "feature": {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}}


def test_a_mark_is_on_the_disk_when_the_answer_comes_and_qupath_reads_it(client: TestClient, run: RunDir) -> None:
    assert client.get("slides/s0/marks").json() == {"revision": 0, "features": []}
    answer = client.post("slides/s0/marks", json={"changes": [mark("a", square(300, 300, 200))]}).json()
    assert answer["revision"] == 1
    document = json.loads(run.annotation("s0").read_text())
    assert document["features"] == answer["features"]
    assert document["features"][0]["properties"]["objectType"] == "annotation"
    (region,) = read_annotation(run.annotation("s0")).regions
    assert (region.name, region.polygon.area) == ("tumour", 40_000)
    assert client.get("slides/s0/marks", params={"after": 1}).json() == {"revision": 1}
    answer = client.post("slides/s0/marks", json={"changes": [{"op": "delete", "id": "a"}]}).json()
    assert (answer["revision"], answer["features"]) == (2, [])


def test_a_brush_stroke_becomes_the_area_it_paints(run: RunDir) -> None:
    line = {"type": "LineString", "coordinates": [[200, 500], [400, 500]]}
    made = Marks(run).change("s0", [mark("b", line, brush_radius=30)], SIZE)["features"][0]
    area = shape(made["geometry"])
    assert area.area == pytest.approx(200 * 60 + np.pi * 30**2, rel=0.03)
    crossed = {"type": "Polygon", "coordinates": [[[100, 100], [300, 300], [300, 100], [100, 300], [100, 100]]]}
    made = Marks(run).change("s0", [mark("c", crossed)], SIZE)["features"][1]
    assert shape(made["geometry"]).is_valid
    over = Marks(run).change("s0", [mark("d", square(900, 900, 500))], SIZE)["features"][2]
    assert shapely.bounds(shape(over["geometry"])).tolist() == [900, 900, 1024, 1024], "cut to the slide"


def test_two_windows_never_undo_each_other(run: RunDir) -> None:
    def draw(window: int) -> None:
        own = Marks(run)
        for k in range(8):
            own.change("s1", [mark(f"w{window}-{k}", {"type": "Point", "coordinates": [10 + k, 20]})], SIZE)

    threads = [threading.Thread(target=draw, args=(window,)) for window in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Marks(run).read("s1")
    assert (found["revision"], len(found["features"])) == (32, 32)


def test_a_file_that_qupath_has_changed_is_read_back_and_kept(run: RunDir) -> None:
    marks = Marks(run)
    before = marks.change("s0", [mark("a", square(300, 300, 200))], SIZE)
    theirs = {
        "type": "Feature", "id": "11111111-2222-3333-4444-555555555555", "geometry": square(10, 10, 50),
        "properties": {"name": "seen by Ann", "classification": {"name": "stroma", "color": [1, 2, 3]}},
    }  # fmt: skip
    whole = {"type": "FeatureCollection", "features": [before["features"][0], theirs]}
    run.annotation("s0").write_text(json.dumps(whole))
    found = marks.read("s0")
    assert found["revision"] > before["revision"], "windows that have seen the file before ask again"
    assert [feature["id"] for feature in found["features"]] == ["a", theirs["id"]]
    after = marks.change("s0", [mark("z", square(500, 500, 50))], SIZE)
    assert after["revision"] > found["revision"]
    assert after["features"][1] == theirs, "what this program does not know of a feature stays"


def test_on_a_slide_with_bounds_the_file_counts_as_qupath_does(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.viewer.marks.origin_in_run", lambda *_, **__: (100, 40))
    marks = Marks(run)
    marks.change("s0", [mark("a", square(300, 300, 200))], SIZE)
    document = json.loads(run.annotation("s0").read_text())
    assert document["level0_origin"] == [100, 40]
    assert shape(document["features"][0]["geometry"]).bounds == (200, 260, 400, 460)
    assert shape(marks.read("s0")["features"][0]["geometry"]).bounds == (300, 300, 500, 500)
    (region,) = read_annotation(run.annotation("s0")).regions
    assert region.polygon.bounds == (300, 300, 500, 500), "tune reads the same place"
    del document["level0_origin"], document["revision"]
    run.annotation("s0").write_text(json.dumps(document))  # as QuPath writes it
    assert shape(marks.read("s0")["features"][0]["geometry"]).bounds == (300, 300, 500, 500)


@pytest.mark.parametrize("text", ["", "{", "7", '{"features": 7}', "\x00"])
def test_a_damaged_file_is_named_and_never_overwritten(run: RunDir, text: str) -> None:
    run.annotations.mkdir()
    run.annotation("s0").write_text(text)
    with pytest.raises(LabelError, match=r"s0\.geojson"):
        Marks(run).read("s0")
    with pytest.raises(LabelError):
        Marks(run).change("s0", [mark("a", square(0, 0, 9))], SIZE)
    assert run.annotation("s0").read_text() == text


def test_which_patches_a_mark_labels() -> None:
    coords = np.array([[x, y] for y in (0, 100, 200) for x in (0, 100, 200)], np.int64)

    def rows(*features: dict[str, Any]) -> dict[int, str]:
        found, _, _ = marked_rows([change["feature"] for change in features], coords, 100)
        return {row: name for row, (name, _) in found.items()}

    assert rows(mark("a", square(0, 0, 200))) == dict.fromkeys((0, 1, 3, 4), "tumour")
    assert rows(mark("a", square(0, 0, 149))) == {0: "tumour"}, "half of a patch is needed"
    assert rows(mark("a", square(110, 110, 20))) == {4: "tumour"}, "a small mark: the patch it covers most"
    assert rows(mark("a", {"type": "Point", "coordinates": [250, 120]})) == {5: "tumour"}
    assert rows(mark("a", {"type": "Point", "coordinates": [900, 120]})) == {}
    assert rows(mark("a", square(0, 0, 100)), mark("b", square(0, 0, 210), "stroma")) == dict.fromkeys(
        (1, 3, 4), "stroma"
    )
    assert rows(mark("a", square(0, 0, 100), "Ignore*")) == {}


def _mark_all(viewer: Viewer, run: RunDir, slides: list[str]) -> None:
    """Two places of each class on each slide."""
    for name in slides:
        table = read_patch_table(run.patch_store(name))
        side = table.geometry.patch_level0
        chosen = [table.grid.coords[k] for k in (0, 3, 6, 9)]
        places = [square(float(x), float(y), side) for x, y in chosen]
        changes = [mark(f"{name}-{k}", place, ("tumour", "stroma")[k % 2]) for k, place in enumerate(places)]
        viewer.marks.change(name, changes, SIZE)


def test_what_the_marks_amount_to_says_what_the_score_will_mean(viewer: Viewer, run: RunDir) -> None:
    assert "at least two classes" in teaching(viewer.library, viewer.marks).missing
    _mark_all(viewer, run, ["s0"])
    one = teaching(viewer.library, viewer.marks)
    assert (one.group, one.missing, len(one.patches)) == ("mark", "", 4)
    assert "All marks lie on one patient (p0)" in one.notes[0]
    assert "--test-fraction" in one.options
    _mark_all(viewer, run, ["s0", "s1", "s2"])
    several = teaching(viewer.library, viewer.marks)
    assert (several.group, several.notes) == ("patient", ())
    assert "--test-fraction" not in several.options
    assert several.classes["tumour"] == {"patches": 6, "slides": 3, "patients": 3, "marks": 6}


def test_the_patches_that_tune_gets_are_those_that_embed_sees(viewer: Viewer, run: RunDir) -> None:
    _mark_all(viewer, run, ["s0", "s1"])
    plan = teaching(viewer.library, viewer.marks)
    assert plan.mpp == pytest.approx(0.5)
    path = write_patches_csv(viewer.library, viewer.marks, plan)
    (first, *_) = viewer.teaching()["commands"]
    assert first.startswith(f"wsi-pipeline tune {path} --name marks --image-mpp 0.5 ")
    lines = path.read_text().splitlines()
    assert len(lines) == 9
    assert lines[0].split(",")[:4] == ["path", "label", "group", "slide_id"]
    assert {line.split(",")[2] for line in lines[1:]} == {"p0", "p1"}
    assert all((run.annotations / line.split(",")[0]).is_file() for line in lines[1:])
    with pytest.raises(UsageError, match="at least two classes"):
        write_patches_csv(viewer.library, viewer.marks, teaching(viewer.library, Marks(RunDir(run.root / "x"))))


def test_a_job_outlives_who_started_it_and_says_how_it_ended(run: RunDir) -> None:
    jobs = Jobs(run)
    started = jobs.start("look", "looking", [["status", "--run", str(run.root)], ["status", "--run", "/nowhere"]])
    with pytest.raises(UsageError, match="still running"):
        jobs.start("look", "looking", [["status"]])
    waiter = threading.Event()
    for _ in range(600):
        job = Jobs(run).one(started["number"])
        if job["state"] != "running":
            break
        waiter.wait(0.1)
    assert (job["state"], job["step"], job["code"]) == ("failed", 1, 2)
    assert any("slides" in line for line in job["log"])
    assert job["commands"][0].startswith("wsi-pipeline status --run ")
    with pytest.raises(UsageError, match="no job 99"):
        jobs.one(99)


def test_progress_is_read_from_what_commands_print() -> None:
    running = {"state": "running"}
    log = "\n$ wsi-pipeline tune\nepoch   1/12  training loss 1\nepoch   3/12  training loss 1\n"
    assert progress_in(log, running) == 0.25
    assert progress_in(log + "\n$ wsi-pipeline classify\n", running) is None
    assert progress_in(log + "\n$ wsi-pipeline classify\nclassify 1 200/2 400 patches  9/s\n", running) == 0.5
    assert progress_in(log, {"state": "done"}) is None


def test_doubt_is_largest_between_two_classes_and_choices_lie_apart() -> None:
    chances = np.array([[0.9, 0.1, 0], [0.5, 0.5, 0], [0.4, 0.3, 0.3]], np.float32)
    np.testing.assert_allclose(doubt(chances), [0.2, 1.0, 0.9], atol=1e-6)
    coords = np.array([[0, 0], [10, 0], [500, 0], [1000, 0]])
    assert spread_out(np.array([0.9, 0.8, 0.7, -1.0]), coords, 100, 10) == [0, 2]
