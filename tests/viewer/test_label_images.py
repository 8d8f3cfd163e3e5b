"""Label and macro images hold names: they are read on demand only, one by one, and never exported."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from starlette.testclient import TestClient

from tests.slide_files import shrunk, tissue_like
from wsi_pipeline.viewer.folder_export import export_folder
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.viewer import Viewer

BASE = "http://127.0.0.1:8765/of-the-tests/"
COLOURS = {"label": (255, 0, 255), "macro": (0, 255, 0)}


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """An Aperio slide with a label and a macro image, each of one colour that is not in the tissue."""
    path, rgb = tmp_path / "named.svs", tissue_like(1024, 768)
    head = "Aperio Image Library v12.0.0 \r\n1024x768 [0,0 1024x768] (256x256)"
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            text = head + (" JPEG/RGB Q=90|AppMag = 20|MPP = 0.5" if step == 1 else " -> 256x192 JPEG/RGB Q=90")
            picture = rgb if step == 1 else shrunk(rgb, step)
            options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256), "metadata": None}
            writer.write(picture, description=text, **options)
            if step == 1:
                small = shrunk(rgb, 8)
                writer.write(small, photometric="rgb", compression="jpeg", description=head, metadata=None)
        for name, colour in COLOURS.items():
            flat = np.full((90, 120, 3), colour, np.uint8)
            text = f"Aperio Image Library v12.0.0 \r\n{name} 120x90"
            kind = {"label": 1, "macro": 9}[name]
            writer.write(flat, photometric="rgb", description=text, subfiletype=kind, metadata=None)
    return path


def test_they_are_listed_without_being_read_and_sent_by_name(named: Path) -> None:
    library = Library.of_files([named])
    client = TestClient(make_app(Viewer(library), "of-the-tests"), base_url=BASE)
    assert set(client.get("slides/named/associated").json()) == {"label", "macro", "thumbnail"}
    for name, colour in COLOURS.items():
        answer = client.get(f"slides/named/associated/{name}")
        pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).reshape(-1, 3)
        assert np.abs(pixels.astype(int) - colour).max() < 12
        assert answer.headers["cache-control"] == "no-store"
    assert client.get("slides/named/associated/other").status_code == 404
    library.close()


def test_nothing_else_reads_them(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("a label image was read without being asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    library = Library.of_files([named])
    client = TestClient(make_app(Viewer(library), "of-the-tests"), base_url=BASE)
    with pytest.raises(AssertionError, match="label image"):
        client.get("slides/named/associated")
    levels = client.get("slides/named").json()["levels"]
    paths = ["", "about", "cohort", "slides/named", "slides/named/thumbnail?px=512"]
    paths += [f"slides/named/tile/{k}/0_0" for k in range(len(levels))]
    pictures = [answer.content for path in paths if (answer := client.get(path)).headers["content-type"][:5] == "image"]
    assert len(pictures) == len(levels) + 1
    made = export_folder(Viewer(library), tmp_path / "folder", ["named"], 0.5)
    assert made.failed == {}
    pictures += [path.read_bytes() for path in (tmp_path / "folder").rglob("*.jpg")]
    for picture in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        for colour in COLOURS.values():
            assert (np.abs(pixels - colour).max(axis=2) < 40).mean() < 0.001
    library.close()
