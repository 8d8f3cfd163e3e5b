"""The list of slides: pages of ten thousand quickly, neighbours in its order, thumbnails that follow the file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.viewer.conftest import TOKEN
from tests.viewer.pages import write_class_map
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.nearest.similar_patches import SimilarPatches
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.viewer import Viewer


def around(client: TestClient, slide: str, **query: object) -> tuple[str | None, str | None]:
    answer = client.get("cohort/around", params={"slide": slide, **query}).json()
    return answer["previous"], answer["next"]


def test_previous_and_next_follow_the_order_of_the_list(client: TestClient) -> None:
    assert around(client, "s1") == ("s0", "s2")
    assert around(client, "s0") == (None, "s1")
    assert around(client, "torn") == ("blank", None)
    assert around(client, "s1", sort="id", down=1) == ("s2", "s0")
    assert around(client, "s2", label="a") == ("s0", "blank")
    assert around(client, "s1", label="a") == (None, "s0"), "from a slide that is not in the list: its first"
    assert client.get("cohort/around", params={"slide": "../x"}).status_code == 404


def test_thumbnails_are_kept_by_the_browser_until_the_file_changes(client: TestClient, viewer: Viewer) -> None:
    def version() -> str:
        return {row["id"]: row["version"] for row in client.get("cohort").json()["rows"]}["s0"]

    before, path = version(), viewer.library.record("s0").path
    assert before == client.get("slides/s0").json()["version"]
    assert "immutable" in client.get("slides/s0/thumbnail", params={"v": before}).headers["cache-control"]
    assert "immutable" not in client.get("slides/s0/thumbnail").headers["cache-control"]
    assert "immutable" not in client.get("slides/s0/region?x=0&y=0&side=64&px=64").headers["cache-control"]
    known = path.stat()
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + 10**9))
    try:
        assert version() != before
    finally:
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))


def test_ten_thousand_rows_come_in_pages(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "wsi-run")
    run.root.mkdir()
    rows = [f"slide-{k:05},/nowhere/{k}.svs,p{k},{'ab'[k % 2]}" for k in range(10_000)]
    run.cohort_csv.write_text("slide_id,path,patient_id,label\n" + "\n".join(rows) + "\n")
    client = TestClient(make_app(Viewer(Library.of_run(run)), TOKEN), base_url=f"http://127.0.0.1:8765/{TOKEN}/")
    client.get("cohort")
    used = []
    for offset in (0, 5_000, 9_960):
        start = time.process_time()
        answer = client.get("cohort", params={"offset": offset, "limit": 120, "sort": "id", "text": "slide"})
        used.append(time.process_time() - start)
        assert [row["id"] for row in answer.json()["rows"]] == [
            f"slide-{k:05}" for k in range(offset, min(10_000, offset + 120))
        ]
        assert len(answer.content) < 60_000
    assert min(used) < 0.5, "seconds of processor time for a page"
    assert around(client, "slide-07777") == ("slide-07776", "slide-07778"), "beyond the first page too"


def test_similar_patches_from_the_command_line_are_those_of_the_page(
    client: TestClient, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = client.get("slides/s0/similar", params={"row": 5, "encoder": "colour", "count": 3, "others": 1}).json()
    words = shown["command"].split()
    assert words[:3] == ["wsi-pipeline", "similar", "s0"]
    assert main(words[1:]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = [(line[0], int(line[1]), int(line[2])) for line in lines if len(line) >= 5 and line[1].isdigit()]
    assert found == [(one["id"], one["x"], one["y"]) for one in shown["patches"]]
    for place, reason in (("5", "X,Y|level-0"), ("900000,5", "no patch at"), ("-1,2", "level-0|argument")):
        try:
            code = main(["similar", "s0", "--patch", place, "--run", str(run.root)])
        except SystemExit as end:
            code = int(end.code or 0)
        assert code == 2, place
        said = capsys.readouterr().err
        assert any(word in said for word in reason.split("|")), said
    with pytest.raises(UsageError, match="blank has no"):
        SimilarPatches(Library.of_run(run)).row_at("blank", "colour", 0, 0)


def test_next_to_mark_needs_a_classification(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--next-to-mark", "5", "--run", str(run.root)]) == 2
    assert "classified" in capsys.readouterr().err


def test_next_to_mark_lists_the_least_certain_patches_without_a_mark(
    run: RunDir, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: read_patch_table(run.patch_store(name)) for name in ("s0", "s1")}
    side = places["s0"].geometry.patch_level0
    for name, sure in (("s0", 0.95), ("s1", 0.9)):
        first = np.full(len(places[name].grid), sure, np.float32)
        first[5], first[-1] = {"s0": (0.5, 0.6), "s1": (0.55, 0.3)}[name]
        write_class_map(run, name, np.stack([first, 1 - first], axis=1))
    marked = places["s0"].grid.coords[5] + side // 2  # the least certain of all has a mark already
    mark = {"type": "Feature", "id": "m", "geometry": {"type": "Point", "coordinates": marked.tolist()},
            "properties": {"classification": {"name": "gland", "color": [1, 2, 3]}}}  # fmt: skip
    client.post("slides/s0/marks", json={"changes": [{"op": "put", "feature": mark}]}).raise_for_status()
    assert main(["view", "--next-to-mark", "3", "--run", str(run.root)]) == 0
    heads, *lines = capsys.readouterr().out.splitlines()
    assert heads.split() == ["slide", "x", "y", "most", "likely", "then", "uncertainty"]
    x, y = {}, {}
    for name, table in places.items():
        x[name], y[name] = table.grid.coords.T.astype(str)
    assert [line.split() for line in lines] == [
        ["s1", x["s1"][5], y["s1"][5], "gland", "0.55", "stroma", "0.45", "0.90"],
        ["s0", x["s0"][-1], y["s0"][-1], "gland", "0.60", "stroma", "0.40", "0.80"],
        ["s1", x["s1"][-1], y["s1"][-1], "stroma", "0.70", "gland", "0.30", "0.60"],
    ]
    shown = client.get("next-to-mark", params={"count": 3}).json()
    assert [(one["id"], str(one["x"]), str(one["y"])) for one in shown["patches"]] == [
        tuple(line.split()[:3]) for line in lines
    ]
    assert shown["command"].split()[:4] == ["wsi-pipeline", "view", "--next-to-mark", "3"]
    assert main([*shown["command"].split()[1:], "--quiet"]) == 0, "the command of the page can be run"


def test_next_to_mark_says_when_every_patch_has_a_mark(
    run: RunDir, client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(read_patch_table(run.patch_store("s0")).grid)
    write_class_map(run, "s0", np.full((count, 2), 0.5, np.float32))
    ring = [[0, 0], [1024, 0], [1024, 1024], [0, 1024], [0, 0]]
    mark = {"type": "Feature", "id": "m", "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": "gland", "color": [1, 2, 3]}}}  # fmt: skip
    client.post("slides/s0/marks", json={"changes": [{"op": "put", "feature": mark}]}).raise_for_status()
    assert main(["view", "--next-to-mark", "3", "--run", str(run.root)]) == 0
    assert "nothing is left to mark" in capsys.readouterr().out


def test_a_file_that_is_in_the_way_costs_no_mark(client: TestClient, run: RunDir) -> None:
    mark = {"type": "Feature", "id": "m", "geometry": {"type": "Point", "coordinates": [300, 300]},
            "properties": {"classification": {"name": "a", "color": [1, 2, 3]}}}  # fmt: skip
    changes = {"changes": [{"op": "put", "feature": mark}]}
    run.annotations.mkdir(exist_ok=True)
    run.annotation("s0").write_text("half a fi")
    assert client.post("slides/s0/marks", json=changes).status_code == 409, "400 would make the page drop the mark"
    run.annotation("s0").unlink()
    assert client.post("slides/s0/marks", json=changes).status_code == 200
