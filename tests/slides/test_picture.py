"""PNG and JPEG regions are slides: the picture's own pixels, at the manifest's resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.labelled.images import write_table
from tests.slide_files import tissue_like
from wsi_pipeline.cli import main
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.backends import picture as module
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.store.tables.patch_table import read_patch_table

RGB = tissue_like(320, 256)


def whole(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        assert slide.info.backend == "picture"
        assert slide.info.mpp is None
        size = slide.info.size
        return slide.read_region(0, 0, 0, size.width, size.height)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "noname"])
def test_rgb_pictures_are_their_own_pixels(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / name, "JPEG" if name.endswith("jpg") else "PNG")
    np.testing.assert_array_equal(whole(tmp_path / name), np.asarray(Image.open(tmp_path / name)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_other_modes_become_rgb_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(np.where(np.arange(320) < 160, 0, 255).astype(np.uint8)[None].repeat(256, 0)))
    image.save(tmp_path / "a.png")
    found = whole(tmp_path / "a.png")
    assert found.shape == (256, 320, 3)
    if mode in ("RGBA", "LA"):
        assert (found[:, :160] == 255).all()
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(found[:, 160:], expected[:, 160:])


def test_orientation_is_applied_and_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(whole(tmp_path / "a.png"), np.rot90(RGB, -1))
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.info.notes == ("rotated as its EXIF orientation says",)


def test_what_would_be_read_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) << 4))
    Image.fromarray(RGB[..., 0].astype(np.uint16) << 4).save(tmp_path / "grey.png")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "inks.jpg")
    for name, what in (("deep.png", "16 bits"), ("grey.png", "16 bits"), ("inks.jpg", "CMYK")):
        with pytest.raises(SlideError, match=f"picture .*{what}"):
            open_slide(tmp_path / name)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(SlideError, match="the picture cannot be read"):
        open_slide(tmp_path / "cut.png")
    monkeypatch.setattr(module, "MAX_PICTURE_PIXELS", 1000)
    with pytest.raises(SlideError, match="picture of 320 x 256 pixels"):
        open_slide(tmp_path / "a.png")


def test_patches_of_a_region_are_cut_at_the_manifest_s_resolution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(RGB).save(tmp_path / "roi.png")
    Image.fromarray(RGB).save(tmp_path / "unknown.png")
    write_table(tmp_path / "m.csv", ("path", "mpp"), [("roi.png", "0.5"), ("unknown.png", "")])
    words = ["--run", str(tmp_path / "run"), "--workers", "0"]
    assert (
        main(["tile", str(tmp_path / "m.csv"), "--patch-px", "64", "--method", "none", "--pixels", "raw", *words]) == 3
    )
    assert "no mpp" in capsys.readouterr().out
    table = read_patch_table(tmp_path / "run/tile/roi.h5")
    assert {tuple(place) for place in table.grid.coords.tolist()} == {
        (x, y) for x in range(0, 320, 64) for y in range(0, 256, 64)
    }
    assert (table.header.slide.mpp, table.header.slide.mpp_source) == (0.5, "manifest")
    assert main(["check", str(tmp_path / "*.png"), "--default-mpp", "0.5", "--run", str(tmp_path / "none")]) == 3
    out = capsys.readouterr().out
    assert "COPY of roi" in out
    assert "2 slides can be tiled" in out
