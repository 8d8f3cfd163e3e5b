"""Outlines that classify and heatmap write for slides with bounds lie, seen from QuPath's corner, on their patches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.affinity import translate

from tests.adapter_files import write_adapter, write_backbone
from tests.labelled.images import write_table
from tests.slide_bounds import write_scn
from tests.slide_files import tissue_like
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.tissue.geojson import from_geojson, origin_in

CORNER, PATCH = (1536, 768), 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bounds")
    rows = []
    for k in range(4):
        write_scn(folder / f"s{k}.scn", tissue_like(1024, 768, k), CORNER, (4096, 2560))
        rows.append((f"s{k}.scn", "ab"[k % 2]))
    table = write_table(folder / "slides.csv", ("path", "label"), rows)
    adapter = folder / "run" / "tune" / "pathotune" / "adapter.safetensors"
    adapter.parent.mkdir(parents=True)
    write_adapter(adapter, write_backbone(folder / "weights.safetensors"))
    run = ["--run", str(folder / "run"), "--quiet"]
    assert main(["tile", str(table), *run, "--workers", "0", "--patch-px", str(PATCH)]) == 0
    assert main(["embed", "--model", "colour", *run]) == 0
    assert main(["train-mil", "--folds", "2", "--epochs", "2", "--permutations", "0", *run]) == 0
    return folder


def outlines(path: Path) -> shapely.Geometry:
    document = json.loads(path.read_text())
    origin = origin_in(document)
    assert origin is not None
    return translate(shapely.union_all(from_geojson(document)), *origin)


def patches(folder: Path, slide: str) -> shapely.Geometry:
    x, y = read_patch_table(folder / "run" / "tile" / f"{slide}.h5").grid.coords.T
    return shapely.union_all(shapely.box(x, y, x + PATCH, y + PATCH))


@pytest.mark.parametrize("crop", [True, False])
def test_classify(made: Path, crop: bool) -> None:
    words = ["--run", str(made / "run"), "--weights", str(made / "weights.safetensors"), "--quiet"]
    assert main(["classify", *words, *([] if crop else ["--qupath-no-crop"])]) == 0
    path = made / "run" / "classify" / "pathotune" / "s0.geojson"
    assert origin_in(json.loads(path.read_text())) == (CORNER if crop else (0, 0))
    assert outlines(path).equals(patches(made, "s0"))


@pytest.mark.parametrize("crop", [True, False])
def test_heatmap(made: Path, crop: bool) -> None:
    assert main(["heatmap", "--run", str(made / "run"), "--quiet", *([] if crop else ["--qupath-no-crop"])]) == 0
    (path,) = (made / "run" / "heatmap").glob("*/*/s0.geojson")
    assert origin_in(json.loads(path.read_text())) == (CORNER if crop else (0, 0))
    strongest = outlines(path)
    assert strongest.area > 0
    assert patches(made, "s0").buffer(0.01).covers(strongest)
    edges = np.asarray(strongest.bounds).reshape(2, 2)
    assert (np.round(edges) % PATCH == 0).all()
