"""Imported features of a real slide: heat map on its pixels, outlines in level-0 pixels, a sheet of its patches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from shapely.geometry import box, shape

from tests.exchange import foreign_files as files
from wsi_pipeline.cli import main
from wsi_pipeline.report.maps import example_sheets as sheets
from wsi_pipeline.slides.open import open_slide

SLIDE, WIDTH, HEIGHT, SIDE = "CMU-1-Small-Region.svs", 2220, 2967, 256
QUICK = ("--model", "abmil", "--folds", "2", "--epochs", "20", "--learning-rate", "0.02", "--allow-few", "--bootstrap",
         "100", "--permutations", "0")  # fmt: skip


def test_pictures_of_imported_features_are_those_of_the_slide(data_dir: Path, tmp_path: Path) -> None:
    """Seven other slides are not there: only the real one has a sheet of patches."""
    shutil.copy(data_dir / "slides" / SLIDE, tmp_path / "real.svs")
    grid = np.array([(x, y) for x in range(0, WIDTH - SIDE, SIDE) for y in range(0, HEIGHT - SIDE, SIDE)])
    attrs = {"patch_size": SIDE, "patch_size_level0": SIDE, "target_magnification": 20, "level0_width": WIDTH,
             "level0_height": HEIGHT}  # fmt: skip
    for number in range(8):
        name, coords = ("real", grid) if number == 1 else (f"s{number}", files.coords_of(12))
        rows = files.features_of(len(coords), 8, number, signal=4.0 * (number % 2))
        rows[len(rows) // 2 :, 0] = 0  # the second half of the patches says nothing
        files.trident(tmp_path / "features_uni_v1" / f"{name}.h5", rows, coords, **attrs)
    names = ["s0", "real", *(f"s{k}" for k in range(2, 8))]
    table = files.labels_csv(tmp_path / "labels.csv", [(f"p{k}", n, "ab"[k % 2]) for k, n in enumerate(names)])
    pd.read_csv(table).assign(path=[f"{name}.svs" for name in names]).to_csv(table, index=False)
    run = tmp_path / "run"
    words = ["train-mil", "--features-from", str(tmp_path / "features_uni_v1"), "--labels", str(table)]
    assert main([*words, "--run", str(run), *QUICK]) == 0
    heat = run / "heatmap/uni_v1/abmil"
    values = pd.read_csv(heat / "real.csv")
    assert np.array_equal(values[["x", "y"]], grid)
    picture = np.asarray(Image.open(heat / "real.png").convert("RGB"), np.float64)
    with open_slide(tmp_path / "real.svs") as slide:
        thumbnail = np.asarray(Image.fromarray(slide.thumbnail(256)).convert("L"), np.float64)
    gray = np.asarray(Image.fromarray(picture.astype(np.uint8)).convert("L").resize(thumbnail.shape[::-1]), np.float64)
    assert np.corrcoef(gray.ravel(), thumbnail.ravel())[0, 1] > 0.3  # the slide under the heat
    _agrees_with_the_slide(heat / "real.patches.jpg", tmp_path / "real.svs", values)
    document = json.loads((heat / "real.geojson").read_text())
    outlines = [shape(feature["geometry"]) for feature in document["features"]]
    assert outlines
    assert all(outline.is_valid and box(0, 0, WIDTH, HEIGHT).buffer(1).covers(outline) for outline in outlines)
    assert not (heat / "s2.patches.jpg").exists()
    assert "real" in (run / "report/report.html").read_text()


def _agrees_with_the_slide(sheet: Path, slide: Path, values: pd.DataFrame) -> None:
    """The first patch of the sheet is the one with the most attention, as it is in the slide."""
    side, left, top = sheets._SIDE_PX, sheets._EDGE_PX, sheets._HEAD_PX + sheets._EDGE_PX // 2
    shown = np.asarray(Image.open(sheet).convert("RGB").crop((left, top, left + side, top + side)), np.float64)
    place = values.sort_values("attention", ascending=False).iloc[0]
    with open_slide(slide) as opened:
        patch = Image.fromarray(opened.read_region(int(place["x"]), int(place["y"]), 0, SIDE, SIDE))
    assert np.abs(shown - np.asarray(patch.resize((side, side)), np.float64)).mean() < 12
