"""Points on images: the crop's middle is the point, borders are mirrored, images are decoded once."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from tests.labelled.images import picture, save, write_table
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.image_patches import ImageSet, PointPatches
from wsi_pipeline.labelled.open_labelled import open_labelled

HEADER = ("image", "class", "x", "y")


def points_file(folder: Path, rows: list[tuple[object, ...]], header: tuple[str, ...] = HEADER) -> Path:
    for k in range(3):
        save(folder / f"{k}.png", picture(k, 60, 50))
    return write_table(folder / "points.csv", header, rows)


@pytest.mark.parametrize("origin", [0, 1])
@pytest.mark.parametrize("side", [8, 9])
def test_the_point_is_in_the_middle(tmp_path: Path, origin: int, side: int) -> None:
    x, y = 30, 20
    path = points_file(tmp_path, [("0.png", "a", x + origin, y + origin), ("1.png", "b", 30.4 + origin, 19.7 + origin)])
    patches = open_labelled(path, LabelSpec(crop_px=side, point_origin=origin))
    batch = patches.read([0, 1])
    assert batch.shape == (2, side, side, 3)
    left, top = x - (side - 1) // 2, y - (side - 1) // 2
    if side % 2:  # an odd crop has a middle pixel; of an even one, the point is nearest to one of the middle four
        np.testing.assert_array_equal(batch[0][side // 2, side // 2], picture(0, 60, 50)[y, x])
        np.testing.assert_array_equal(batch[1], picture(1, 60, 50)[top : top + side, left : left + side])
    middle = batch[0][side // 2 - 1 : side // 2 + 1, side // 2 - 1 : side // 2 + 1].reshape(-1, 3)
    assert (middle == picture(0, 60, 50)[y, x]).all(axis=1).any()


def test_borders_are_mirrored_and_counted(tmp_path: Path) -> None:
    path = points_file(tmp_path, [("0.png", "a", 0, 0), ("0.png", "b", 30, 25), ("1.png", "b", 59, 49)])
    patches = open_labelled(path, LabelSpec(crop_px=9))
    padded = np.pad(picture(0, 60, 50), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(patches.read([0])[0], padded[:9, :9])
    assert "2 of 3 crops reach past the border: the image is mirrored there" in patches.notes
    assert patches.groups == ("0.png", "0.png", "1.png")
    assert patches.names[1] == "0.png (30, 25)"


def test_crops_can_be_enlarged(tmp_path: Path) -> None:
    path = points_file(tmp_path, [("0.png", "a", 20, 20), ("1.png", "b", 20, 20)])
    patches = open_labelled(path, LabelSpec(crop_px=16, resize_px=32, image_mpp=0.5))
    assert patches.read([1]).shape == (1, 32, 32, 3)
    assert patches.mpp == 0.25


def test_points_need_a_size_and_a_place_on_the_image(tmp_path: Path) -> None:
    rows = [
        ("0.png", "a", 20, 20),
        ("0.png", "a", 600, 2),
        ("0.png", "b", "left", 2),
        ("1.png", "b", 1, 1),
        ("9.png", "b", 1, 1),
    ]
    path = points_file(tmp_path, rows)
    with pytest.raises(LabelError, match="size of the crops around them is not given"):
        open_labelled(path)
    patches = open_labelled(path, LabelSpec(crop_px=8))
    assert len(patches) == 2
    assert any("3 of 5 points left out: row 3: point (600, 2) on 60 x 50 pixels" in note for note in patches.notes)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    save(tmp_path / "0.png", picture(0, 60, 50))
    path = tmp_path / "points.csv"
    path.write_text("image;class;x;y\n0.png;a;30,4;20\n0.png;b;12,25;19,7\n")
    assert open_labelled(path, LabelSpec(crop_px=8)).names == ("0.png (30.4, 20)", "0.png (12.25, 19.7)")


def test_groups_from_a_column_or_of_copied_images(tmp_path: Path) -> None:
    rows = [("0.png", "a", 20, 20, "p1"), ("1.png", "b", 20, 20, "p1"), ("2.png", "b", 20, 20, "p2")]
    assert open_labelled(points_file(tmp_path, rows, (*HEADER, "patient")), LabelSpec(crop_px=8)).groups == (
        "p1",
        "p1",
        "p2",
    )
    path = points_file(tmp_path, [row[:4] for row in rows])
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert open_labelled(path, LabelSpec(crop_px=8)).groups == ("0.png", "1.png", "0.png")


def test_each_image_is_decoded_once_in_a_batch_and_kept(tmp_path: Path) -> None:
    path = points_file(tmp_path, [(f"{k % 3}.png", "ab"[k % 2], 20 + k, 20) for k in range(12)])
    patches = open_labelled(path, LabelSpec(crop_px=8))
    assert isinstance(patches.pixels, PointPatches)
    expected = patches.read(range(12))
    for image in patches.pixels.images.paths:
        image.unlink()
    np.testing.assert_array_equal(patches.read(range(12)), expected)
    other = copy.deepcopy(patches)  # as another process would have it: with nothing in memory
    with pytest.raises(LabelError, match=r"\.png: "):
        other.read([0])


def test_the_memory_of_images_is_bounded(tmp_path: Path) -> None:
    path = points_file(tmp_path, [(f"{k}.png", "ab"[k % 2], 20, 20) for k in range(3)])
    patches = open_labelled(path, LabelSpec(crop_px=8))
    pixels = patches.pixels
    assert isinstance(pixels, PointPatches)
    pixels.cache.limit = 2 * 60 * 50 * 3
    expected = patches.read([0, 1, 2])
    read: list[int] = []
    plain = ImageSet.read

    def watched(images: ImageSet, number: int) -> np.ndarray:
        read.append(number)
        return plain(images, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageSet, "read", watched)
        np.testing.assert_array_equal(patches.read([2, 1]), expected[[2, 1]])
        assert read == []
        np.testing.assert_array_equal(patches.read([0]), expected[[0]])
        np.testing.assert_array_equal(patches.read([1]), expected[[1]])
        assert read == [0, 1], "1 was read before 2 and had to go for 0"


def test_crc_nuclei(data_dir: Path) -> None:
    patches = open_labelled(
        data_dir / "patches" / "crc_nuclei" / "nuclei.csv", LabelSpec(crop_px=48, point_origin=1, classes=None)
    )
    assert len(patches) == 22_444
    assert patches.class_counts() == {"epithelial": 7722, "fibroblast": 5712, "inflammatory": 6971, "others": 2039}
    assert len(set(patches.groups)) <= 100
    rows = np.flatnonzero(np.array([name.startswith("images/img1.webp") for name in patches.names]))[:200]
    assert patches.read(rows).shape == (len(rows), 48, 48, 3)
