"""Outlines with heights, in micrometres or with coordinates that are not numbers, and masks of several pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Polygon, box

from tests.slide_files import tissue_like
from tests.tissue.test_given import INFO, feature, mask_of, write
from wsi_pipeline.errors import SlideError
from wsi_pipeline.tissue.own.given import given_tissue

PICTURE = np.full((384, 512, 3), 240, np.uint8)
PICTURE[100:300, 200:450] = tissue_like(512, 384)[100:300, 200:450]


def test_heights_are_left_out(tmp_path: Path) -> None:
    flat = box(128, 128, 640, 512)
    raised = Polygon([(x, y, 7.5) for x, y in flat.exterior.coords])
    mask = mask_of(write(tmp_path / "t.geojson", [feature(raised)]))
    np.testing.assert_array_equal(mask.pixels, mask_of(write(tmp_path / "u.geojson", [feature(flat)])).pixels)
    assert mask.pixels.sum() == 256 * 192


def test_a_coordinate_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.geojson").write_text('{"type": "Polygon", "coordinates": [[[1, 1], [NaN, 9], [9, 9], [1, 1]]]}')
    with pytest.raises(SlideError, match=r"feature 1 .* not numbers"):
        mask_of(tmp_path / "t.geojson")


def test_outlines_in_micrometres_are_refused(tmp_path: Path) -> None:
    """The tissue is at 400 to 900, 200 to 600 in pixels of 0.5 micrometres."""
    pixels = write(tmp_path / "pixels.geojson", [feature(box(400, 200, 900, 600))])
    found = given_tissue(pixels, INFO, 0.5, 1.0, PICTURE)
    assert (found.warning, int(found.mask.pixels.sum())) == ("", 250 * 200)
    moved = write(tmp_path / "t.geojson", [feature(box(200, 100, 450, 300))])
    with pytest.raises(SlideError, match="seem to be micrometres") as caught:
        given_tissue(moved, INFO, 0.5, 1.0, PICTURE)
    assert "Divide them by the slide's 0.5 micrometres per pixel" in str(caught.value.todo)
    part = write(tmp_path / "part.geojson", [feature(box(420, 210, 500, 290))])
    assert given_tissue(part, INFO, 0.5, 1.0, PICTURE).warning == ""  # a part of the tissue is a valid choice


def test_masks_of_one_file_and_one_size_are_refused(tmp_path: Path) -> None:
    marked = Image.fromarray(np.pad(np.full((192, 256), 255, np.uint8), ((0, 192), (0, 256))))
    path = tmp_path / "t.tif"
    marked.save(path, save_all=True, append_images=[marked.resize((256, 192)), marked.resize((128, 96))])
    np.testing.assert_array_equal(mask_of(path).pixels, np.asarray(marked) > 0)  # a pyramid is one mask
    marked.save(path, save_all=True, append_images=[Image.new("L", marked.size, 255)])
    with pytest.raises(SlideError, match="holds 2 pictures, and at least two have the same size"):
        mask_of(path)
