"""The server answers its own page and nobody else, by ids alone, and survives hostile names and bodies."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from tests.viewer.conftest import TOKEN
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.quality.measures import NAMES
from wsi_pipeline.quality.patch_quality import PatchQuality
from wsi_pipeline.stages.results.trainings import trainings
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table, write_patches
from wsi_pipeline.store.tables.quality_columns import DroppedPatches
from wsi_pipeline.tiling.grid import PatchGrid
from wsi_pipeline.viewer.web.access import MOST_BODY
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.serve import listen, token_of
from wsi_pipeline.viewer.web.viewer import Viewer


def of(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_cohort_comes_in_pages_sorted_and_filtered(client: TestClient) -> None:
    whole = client.get("cohort").json()
    assert (whole["total"], whole["matched"]) == (6, 6)
    assert [row["id"] for row in whole["rows"]] == ["s0", "s1", "s2", "s3", "blank", "torn"]
    assert {row["id"]: row["state"] for row in whole["rows"]} | {"s0": "done"} == {
        "s0": "done", "s1": "done", "s2": "done", "s3": "done", "blank": "empty", "torn": "failed",
    }  # fmt: skip
    part = client.get("cohort", params={"offset": 2, "limit": 2}).json()
    assert [row["id"] for row in part["rows"]] == ["s2", "s3"]
    training = "colour/abmil"
    worst = client.get("cohort", params={"training": training, "sort": "error", "down": 1}).json()["rows"]
    errors = [row["error"] for row in worst if row.get("error") is not None]
    assert len(errors) == 4
    assert errors == sorted(errors, reverse=True)
    assert [row["id"] for row in worst[4:]] == ["blank", "torn"], "slides without a prediction come last"
    failed = client.get("cohort", params={"state": "failed"}).json()["rows"]
    assert [row["id"] for row in failed] == ["torn"]
    assert "truncated" in failed[0]["note"] or failed[0]["note"]
    assert client.get("cohort", params={"label": "a", "text": "S2"}).json()["matched"] == 1
    folds = {row["id"]: row["fold"] for row in worst[:4]}
    in_fold = client.get("cohort", params={"training": training, "fold": folds["s0"]}).json()["rows"]
    assert {row["id"] for row in in_fold} == {name for name, fold in folds.items() if fold == folds["s0"]}
    away = client.get("cohort", params={"training": training, "sort": "distance"}).json()["rows"]
    assert all(row["distance"] > 0 for row in away if row["id"].startswith("s"))


def test_predictions_are_those_of_the_training(client: TestClient, run: RunDir) -> None:
    rows = {row["id"]: row for row in client.get("cohort", params={"training": "colour/abmil"}).json()["rows"]}
    table = trainings(run)[0].predictions.set_index("slide_id")
    for name in table.index:
        assert rows[name]["error"] == pytest.approx(1 - table.loc[name, f"p_{table.loc[name, 'label']}"], abs=1e-4)


def test_a_slides_page_has_a_prediction_without_naming_a_training(client: TestClient) -> None:
    named = client.get("slides/s0", params={"training": "colour/abmil"}).json()["row"]
    assert client.get("slides/s0").json()["row"] == named
    assert named["p"] > 0


def test_layers_are_row_for_row_those_of_the_stores(client: TestClient, run: RunDir) -> None:
    facts = client.get("slides/s0").json()
    keys = [layer["key"] for layer in facts["layers"]]
    others = [key for key in keys if key.partition(":")[0] != "quality"]
    assert others == ["tissue", "grid", "coverage", "attention:colour/abmil", "contribution:colour/abmil"]
    assert {"quality:focus", "quality:pen", "quality:haematoxylin"} <= set(keys)
    measured = [key.partition(":")[2] for key in keys if key.startswith("quality:")]
    assert measured == [name for name in NAMES if name in measured], "in the order of the table"
    focus = client.get("slides/s0/layer", params={"key": "quality:focus"}).json()
    widths = np.frombuffer(base64.b64decode(focus["values"]), "<f4")
    assert focus["unit"] == "um"
    assert 0 < focus["n"] == len(widths) <= 8, "only the sample has a focus"
    assert np.isfinite(widths).all()
    table = read_patch_table(run.patch_store("s0"))
    for key in others[1:]:
        layer = client.get("slides/s0/layer", params={"key": key}).json()
        np.testing.assert_array_equal(of(layer["coords"], "<i4").reshape(-1, 2), table.grid.coords)
    coverage = client.get("slides/s0/layer", params={"key": "coverage"}).json()
    np.testing.assert_allclose(of(coverage["values"], "<f4"), table.grid.coverage)
    attention = client.get("slides/s0/layer", params={"key": others[3]}).json()
    assert of(attention["values"], "<f4").sum() == pytest.approx(1, abs=1e-4)
    heat = np.loadtxt(run.heatmap_file("colour", "abmil", "s0", ".csv"), delimiter=",", skiprows=1)
    np.testing.assert_allclose(of(attention["values"], "<f4"), heat[:, 2], rtol=1e-4)
    outline = client.get("slides/s0/layer", params={"key": "tissue"}).json()
    assert all(len(ring) % 2 == 0 and len(ring) > 6 for ring in outline["rings"])


def test_the_quality_layer_has_the_patches_beyond_a_limit_and_those_left_out(client: TestClient, run: RunDir) -> None:
    path = run.patch_store("s0")
    known = read_patch_table(path)
    values = np.zeros_like(known.quality.values)
    columns = {name: known.quality.names.index(name) for name in ("focus", "pen", "fold")}
    values[2, columns["focus"]], values[2, columns["pen"]] = 0.83, 0.5  # the first limit in the table counts
    values[4, columns["fold"]] = 0.4
    grid, quality = known.grid, PatchQuality(known.quality.names, known.quality.units, values)
    reasons = ("fold", "pen")  # a store that orders them differently
    dropped = DroppedPatches(grid.coords[-2:], np.array([1, 1]), reasons)
    kept = PatchGrid(grid.coords[:-2], grid.coverage[:-2])
    header, rows = known.header, np.arange(len(kept))
    write_patches(path, header, known.geometry, kept, quality=quality.take(rows), dropped=dropped)
    layer = client.get("slides/s0/layer", params={"key": "quality"}).json()
    expected = np.concatenate([grid.coords[[2, 4]], grid.coords[-2:]])
    np.testing.assert_array_equal(of(layer["coords"], "<i4").reshape(-1, 2), expected)
    assert of(layer["best"], "u1").tolist() == [0, 2, 1, 1]
    found = of(layer["values"], "<f4")
    np.testing.assert_allclose(found[:2], [0.83, 0.4], rtol=1e-6)
    assert np.isnan(found[2:]).all()
    assert layer["kept"] == 2
    names = {entry["name"]: entry for entry in layer["classes"]}
    assert {name: entry["count"] for name, entry in names.items()} == {
        "out of focus": 1, "pen": 2, "fold": 1, "bubble or glass edge": 0,
    }  # fmt: skip
    assert names["pen"]["fraction"] == 2 / len(grid)
    assert (names["out of focus"]["unit"], names["fold"]["unit"]) == ("um", "of the tissue")


def test_nearest_patches_are_the_nearest(client: TestClient, run: RunDir) -> None:
    tables = {name: read_feature_table(run.feature_store("colour", name)) for name in ("s0", "s1", "s2", "s3")}
    rows = np.concatenate([table.features.astype(np.float64) for table in tables.values()])
    names = [(name, k) for name, table in tables.items() for k in range(len(table.coords))]
    deviation = rows.std(axis=0)
    scaled = rows[:, deviation > 1e-6] / deviation[deviation > 1e-6]
    away = np.sqrt(((scaled - scaled[5]) ** 2).sum(axis=1))
    side = tables["s0"].geometry.patch_level0
    touching = np.abs(tables["s0"].coords - tables["s0"].coords[5]).max(axis=1) < side
    away[: len(touching)][touching] = np.inf
    truth = [names[k] for k in np.argsort(away)[:5]]
    found = client.get("slides/s0/similar", params={"row": 5, "encoder": "colour", "count": 5}).json()
    assert [(item["id"], item["row"]) for item in found["patches"]] == truth
    assert found["how"] == f"All {len(rows)} patches compared."
    others = client.get("slides/s0/similar", params={"row": 5, "encoder": "colour", "others": 1}).json()["patches"]
    assert "s0" not in {item["id"] for item in others}
    near = client.get("slides/s0/similar", params={"encoder": "colour"}).json()["slides"]
    assert near[0]["id"] == "s2", "both have red tissue"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9999"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8765"}, 421),
        ({"host": ""}, 421),
        ({"host": "[::1]:8765"}, 200),
        ({"origin": "http://127.0.0.1:8765"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9"}, 403),
        ({"origin": "http://["}, 403),
        ({"host": "["}, 421),
    ],
)
def test_host_and_origin_are_checked(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("about", headers=headers).status_code == status


@pytest.mark.parametrize(
    "path", ["/", "/about", "/wrong-token/about", f"/{TOKEN}", f"/{TOKEN}x/about", f"//{TOKEN}/about"]
)
def test_without_the_token_there_is_nothing(viewer: Viewer, path: str) -> None:
    bare = TestClient(make_app(viewer, TOKEN), base_url="http://127.0.0.1:8765", raise_server_exceptions=False)
    answer = bare.get(path)
    assert answer.status_code == 404
    assert "s0" not in answer.text


HOSTILE = [
    "..",
    "../s0",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "s0%00",
    "<script>",
    "s0%2f..%2fs1",
    "C:\\x",
    "%ff%fe",
    "a" * 9000,
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "rest", ["", "/thumbnail", "/tile/0/0_0", "/layer?key=grid", "/associated", "/marks", "/similar?encoder=colour"]
)
def test_hostile_ids_find_nothing(client: TestClient, name: str, rest: str) -> None:
    answer = client.get(f"slides/{name}{rest}")
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "slides/s0/tile/99/0_0", "slides/s0/tile/0/9_9", "slides/s0/tile/x/0_0", "slides/s0/region?x=a",
        "slides/s0/region?x=0&y=0&side=99999999999999&px=1", "slides/s0/region?x=0&y=0&side=0&px=9",
        "slides/s0/layer?key=classes:../../x", "slides/s0/layer?key=attention:../x/y",
        "slides/s0/similar?row=999999&encoder=colour",
        "slides/s0/similar?encoder=../..", "cohort?sort=__class__", "page/..%2fweb%2fapp.py", "page/app.py", "jobs/7",
        "slides/s0/associated/..%2f", "next-to-mark?model=../..", "slides/torn/tile/0/0_0", "slides/torn",
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_in_one_sentence(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    if answer.headers["content-type"] == "application/json":
        assert answer.json()["error"]


POINT = {"type": "Point", "coordinates": [300, 300]}
CLASS = {"classification": {"name": "tumour", "color": [200, 0, 0]}}


def put(geometry: Any, properties: Any = CLASS, name: Any = "m1") -> dict[str, Any]:
    return {
        "changes": [
            {"op": "put", "feature": {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}}
        ]
    }


@pytest.mark.parametrize(
    "body",
    [
        [], "x", 7, {}, {"changes": "x"}, {"changes": []}, {"changes": [7]}, {"changes": [{"op": "drop"}]},
        {"changes": [{"op": "delete", "id": "../x"}]}, {"changes": [{"op": "put", "feature": None}]},
        {"changes": [{"op": "delete", "id": "m"}] * 501},
        put(None), put({"type": "Point"}), put({"type": "Point", "coordinates": ["a", 1]}),
        put({"type": "Point", "coordinates": [1e308, 5]}), put({"type": "Point", "coordinates": [-5, 5]}),
        put({"type": "GeometryCollection", "geometries": []}), put({"type": "Polygon", "coordinates": []}),
        put({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
        put({"type": "Polygon", "coordinates": [[[5000, 5000], [6000, 5000], [6000, 6000], [5000, 5000]]]}),
        put({"type": "LineString", "coordinates": [[0, 0], [50, 50]]}),
        put({"type": "LineString", "coordinates": [[0, 0], [50, 50]]}, {**CLASS, "brush_radius": float("1e400")}),
        put(POINT, {"classification": {"name": "", "color": [0, 0, 0]}}),
        put(POINT, {"classification": {"name": "x" * 81, "color": [0, 0, 0]}}),
        put(POINT, {"classification": {"name": "a\nb", "color": [0, 0, 0]}}),
        put(POINT, {"classification": {"name": "x", "color": [0, 0, 999]}}),
        put(POINT, {"classification": {"name": "x", "color": "red"}}), put(POINT, None), put(POINT, CLASS, 7),
        put(POINT, CLASS, "a b"), put(POINT, CLASS, "x" * 65),
    ],
)  # fmt: skip
def test_marks_that_are_not_valid_are_refused_and_nothing_is_written(
    client: TestClient, run: RunDir, body: Any
) -> None:
    text = json.dumps(body)
    answer = client.post("slides/s0/marks", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert not run.annotation("s0").exists()


def test_bodies_are_bounded_and_only_json(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    assert client.post("slides/s0/marks", content=b"{" * (MOST_BODY + 1), headers=json_type).status_code == 413
    assert client.post("slides/s0/marks", content=b"[" * 100_000, headers=json_type).status_code == 400
    assert client.post("slides/s0/marks", content=b"\xff\xfe{}", headers=json_type).status_code == 400
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.post("slides/s0/marks", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_pictures_of_the_label_are_sent_by_name_only(client: TestClient) -> None:
    names = client.get("slides/s0/associated").json()
    assert "thumbnail" in names
    assert client.get("slides/s0/associated/thumbnail").headers["content-type"] == "image/jpeg"
    for answer in (client.get("slides/s0"), client.get("cohort"), client.get("about")):
        assert "associated" not in answer.text


def test_pages_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "http" not in answer.text.replace("http-equiv", "")


def test_the_token_is_kept_for_its_owner_alone(run: RunDir) -> None:
    token = token_of(run)
    assert len(token) >= 20
    assert token_of(run) == token
    path = run.view / "token"
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    assert token_of(run) != token, "a token that others could read is not used again"


def test_a_port_that_is_taken_is_passed_over() -> None:
    with listen("127.0.0.1", 0) as one, listen("127.0.0.1", 0) as other:
        assert one.getsockname()[1] != other.getsockname()[1]
        assert one.getsockname()[0] == "127.0.0.1"


def test_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY the second part of each answer waits 40 ms for the browser's acknowledgement."""
    seen = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def connect() -> None:
        with listen("127.0.0.1", 0) as listening:
            server = await asyncio.get_running_loop().create_server(Accepted, sock=listening)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            assert await reader.read() == b""
            writer.close()
            server.close()

    asyncio.run(connect())
    assert [bool(value) for value in seen] == [True]


def test_memory_is_bounded(client: TestClient, viewer: Viewer) -> None:
    for _ in range(3):
        for name in ("s0", "s1", "s2", "s3"):
            client.get(f"slides/{name}/thumbnail", params={"px": 64})
            client.get(f"slides/{name}/tile/0/0_0")
    viewer.library.cache.limit = 4000
    for px in range(40, 70):
        client.get("slides/s0/thumbnail", params={"px": px})
    assert viewer.library.cache.held <= 4000 + 5000
    viewer.library.pool._most = 2
    for name in ("s0", "s1", "s2", "s3"):
        assert client.get(f"slides/{name}/tile/0/0_0").status_code == 200
    assert len(viewer.library.pool) == 2


def test_slide_embeddings_say_which_slides_are_near_where_there_are_any(client: TestClient, run: RunDir) -> None:
    before = client.get("slides/s0/similar", params={"encoder": "colour", "count": 2}).json()["slides"]
    assert main(["embed-slides", "--run", str(run.root), "--quiet"]) in (0, 3)
    assert main(["similar", "--run", str(run.root), "--quiet"]) == 0
    table = pd.read_csv(next(run.root.glob("embed/colour+*/neighbours.csv")), dtype=str)
    near = client.get("slides/s0/similar", params={"encoder": "colour", "count": 2}).json()["slides"]
    assert [row["id"] for row in near] == list(table[table["slide_id"] == "s0"]["neighbour"][:2])
    assert near == before, "means of patches, compared in the same way"
    assert client.get("about").json()["encoders"] == ["colour"], "features of slides are no features of patches"


def test_ctrl_c_is_the_usual_end(run: RunDir) -> None:
    words = ["-m", "wsi_pipeline", "view", "--run", str(run.root), "--no-browser", "--port", "0"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    url = next(line.split()[1] for line in process.stdout if line.startswith("open http"))
    assert url.endswith(f"/{token_of(run)}/")
    assert json.loads(urllib.request.urlopen(url + "about").read())["slides"] == 6
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert "marks and jobs are kept" in process.stdout.read()


def test_the_viewer_opens_without_torch() -> None:
    """Loading it takes longer than all else until the first page."""
    code = "import sys, wsi_pipeline.commands.checks.view, wsi_pipeline.viewer.web.serve; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
