"""Channels, planes, bits and colours that are no 8-bit RGB: refused by name, or shown as the manifest chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.slide_files import Pixels, resolution, shrunk, tissue_like
from tests.slides.test_tiff_directories import same_whatever_reads
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.commands.checks.check_slide import check_slide
from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import SLIDE_BACKENDS

RGB = tissue_like(416, 320)
RNG = np.random.default_rng(0)
FIVE = np.stack([tissue_like(416, 320, seed=k)[..., k % 3] for k in range(5)]).astype(np.uint16) * 15 + 100
MPP = 0.5
TILED: dict[str, Any] = {"tile": (128, 128), "metadata": None}
NAMES = ["DAPI", "CD3", "CD8", "PanCK", "AF"]


def ome(path: Path, pixels: np.ndarray, axes: str, **options: Any) -> Path:
    """An OME-TIFF with one lower level in SubIFDs."""
    colour = axes.endswith("S")
    kind = {"photometric": "rgb" if colour else "minisblack", "tile": (128, 128), "compression": "deflate"}
    metadata = {"axes": axes, "PhysicalSizeX": MPP, "PhysicalSizeY": MPP, **options}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=1, metadata=metadata, **kind)
        small = pixels[..., ::2, ::2, :] if colour else pixels[..., ::2, ::2]
        writer.write(np.ascontiguousarray(small), subfiletype=1, metadata=None, **kind)
    return path


def shown(channel: np.ndarray, low: float, high: float) -> Pixels:
    """A channel as grey RGB, by the definition of a display range."""
    grey = np.rint(np.clip((channel.astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def write(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """One tiled image."""
    tifffile.imwrite(path, pixels, **{**TILED, **resolution(MPP), **options})
    return path


def pages(path: Path, images: list[np.ndarray], **options: Any) -> Path:
    """Several tiled images."""
    with tifffile.TiffWriter(path) as writer:
        for image in images:
            writer.write(image, **{**TILED, **options})
    return path


def imagej(path: Path, pixels: np.ndarray, axes: str) -> Path:
    """As Fiji saves it."""
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": axes, "unit": "um"}, resolution=(2.0, 2.0))
    return path


EIGHT = (FIVE // 16).astype(np.uint8)
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "five channels of 16 bits": (lambda f: ome(f / "a.ome.tif", FIVE, "CYX"), "OME-TIFF with 5 channels"),
    "five channels of 8 bits": (lambda f: ome(f / "a.ome.tif", EIGHT, "CYX"), "OME-TIFF with 5 channels"),
    "float channels": (lambda f: ome(f / "a.ome.tif", FIVE.astype(np.float32), "CYX"), "OME-TIFF with 5 channels"),
    "three channels": (lambda f: ome(f / "a.ome.tif", EIGHT[:3], "CYX"), "OME-TIFF with 3 channels"),
    "two channels": (lambda f: ome(f / "a.ome.tif", EIGHT[:2], "CYX"), "OME-TIFF with 2 channels"),
    "focal planes": (lambda f: ome(f / "a.ome.tif", np.stack([RGB] * 3), "ZYXS"), "OME-TIFF with 3 planes"),
    "times": (lambda f: ome(f / "a.ome.tif", np.stack([RGB] * 4), "TYXS"), "OME-TIFF with 4 planes"),
    "grey focal planes": (lambda f: ome(f / "a.ome.tif", EIGHT[:4], "ZYX"), "OME-TIFF with 4 planes"),
    "one channel of 16 bits": (lambda f: ome(f / "a.ome.tif", FIVE[0], "YX"), "TIFF with 16-bit uint16 samples"),
    "12 bits in 16": (
        lambda f: write(f / "a.tif", RGB.astype(np.uint16) << 4, photometric="rgb"),
        "TIFF with 16-bit uint16 samples; only 8-bit samples are supported",
    ),
    "float": (
        lambda f: write(f / "a.tif", RGB.astype(np.float32), photometric="rgb"),
        "TIFF with 32-bit float32 samples; only 8-bit samples are supported",
    ),
    "signed": (
        lambda f: write(f / "a.tif", (RGB // 2).astype(np.int8), photometric="rgb"),
        "TIFF with 8-bit int8 samples; only 8-bit samples are supported",
    ),
    "bilevel": (
        lambda f: write(f / "a.tif", RGB[..., 0] > 128, photometric="minisblack"),
        "TIFF with 1-bit",
    ),
    "equal pages": (lambda f: pages(f / "a.tif", [RGB] * 3, photometric="rgb"), "TIFF stack with 3 planes"),
    "grey pages": (lambda f: pages(f / "a.tif", [*EIGHT], photometric="minisblack"), "TIFF stack with 5 planes"),
    "samples": (
        lambda f: write(f / "a.tif", np.moveaxis(EIGHT, 0, 2), photometric="minisblack", planarconfig="contig"),
        "TIFF with 5 channels",
    ),
    "separate samples": (
        lambda f: write(f / "a.tif", EIGHT, photometric="minisblack", planarconfig="separate"),
        "TIFF with 5 channels",
    ),
    "rgb and two more": (
        lambda f: write(f / "a.tif", np.moveaxis(EIGHT, 0, 2), photometric="rgb", extrasamples=["unspecified"] * 2),
        "TIFF with 5 samples per pixel of kind RGB",
    ),
    "rgb and one more": (
        lambda f: write(f / "a.tif", np.dstack([RGB, EIGHT[0]]), photometric="rgb", extrasamples=["unspecified"]),
        "TIFF with a fourth sample per pixel that is not marked as alpha",
    ),
    "cmyk": (
        lambda f: write(f / "a.tif", np.dstack([RGB, EIGHT[0]]), photometric="separated"),
        "TIFF with 4 samples per pixel of kind SEPARATED",
    ),
    "stripped cmyk": (
        lambda f: write(f / "a.tif", np.dstack([RGB, EIGHT[0]]), photometric="separated", tile=None),
        "TIFF with 4 samples per pixel of kind SEPARATED",
    ),
    "palette": (
        lambda f: write(
            f / "a.tif", RGB[..., 0], photometric="palette", colormap=RNG.integers(0, 65536, (3, 256), np.uint16)
        ),
        "TIFF with 1 samples per pixel of kind PALETTE",
    ),
    "lab": (lambda f: write(f / "a.tif", RGB, photometric="cielab"), "TIFF with 3 samples per pixel of kind CIELAB"),
    "imagej channels": (lambda f: imagej(f / "a.tif", EIGHT[None], "ZCYX"), "ImageJ stack with 5 channels"),
    "imagej planes": (lambda f: imagej(f / "a.tif", EIGHT[:, None], "ZCYX"), "ImageJ stack with 5 planes"),
    "imagej hyperstack": (
        lambda f: imagej(f / "a.tif", np.stack([EIGHT] * 3).reshape(3, 5, 320, 416), "ZCYX"),
        "ImageJ stack with 5 channels",
    ),
    "imagej of 16 bits": (lambda f: imagej(f / "a.tif", FIVE[0], "YX"), "TIFF with 16-bit uint16 samples"),
    "imagej rgb planes": (lambda f: imagej(f / "a.tif", np.stack([RGB] * 2), "ZYXS"), "ImageJ stack with 2 planes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_bright_field_image_is_refused_by_every_backend(name: str, tmp_path: Path) -> None:
    make, sentence = REFUSED[name]
    path = make(tmp_path)
    for backend in ("auto", *SLIDE_BACKENDS.names()):
        with pytest.raises(SlideError) as caught:
            open_slide(path, backend)
        assert caught.value.what.startswith(sentence)
        assert "onvert" in caught.value.todo


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_twelve_bits_in_sixteen_with_a_display_range(byteorder: str, compression: str | None, tmp_path: Path) -> None:
    path, twelve = tmp_path / "a.tif", RGB.astype(np.uint16) << 4
    write(path, twelve, photometric="rgb", byteorder=byteorder, compression=compression)
    right = np.rint(twelve / 4095 * 255).astype(np.uint8)
    assert same_whatever_reads(path, right, MPP, within=1, channel="@0-4095")
    write(path, twelve, photometric="rgb", byteorder=byteorder, compression=compression, tile=None)
    assert same_whatever_reads(path, right, MPP, within=1, channel="@0-4095")


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize(("channel", "number"), [("CD8", 2), ("2", 2), ("dapi", 0), ("4", 4)])
def test_a_channel_is_shown_in_its_display_range(channel: str, number: int, kind: Any, tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", FIVE.astype(kind), "CYX", Channel={"Name": NAMES})
    right = shown(FIVE[number], 200, 3000)
    assert same_whatever_reads(path, right, MPP, within=1, channel=f"{channel}@200-3000") == ["auto", "tiffslide"]
    with pytest.raises(SlideError, match="needs a display range"):
        open_slide(path, channel=channel)


def test_three_channels_become_red_green_and_blue(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", np.moveaxis(RGB, 2, 0).copy(), "CYX", Channel={"Name": ["R", "G", "B"]})
    same_whatever_reads(path, RGB, MPP, channel="0+1+2")
    same_whatever_reads(path, RGB[..., ::-1], MPP, channel="B+G+R")
    same_whatever_reads(path, np.repeat(RGB[..., 1:2], 3, axis=2), MPP, channel="G")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [(128, 128), None], ids=["tiled", "stripped"])
def test_samples_of_a_pixel_are_channels(tile: Any, planar: str, tmp_path: Path) -> None:
    pixels = EIGHT if planar == "separate" else np.moveaxis(EIGHT, 0, 2)
    path = write(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig=planar, tile=tile)
    same_whatever_reads(path, np.repeat(EIGHT[3][..., None], 3, axis=2), MPP, channel="3")
    same_whatever_reads(path, np.moveaxis(EIGHT[[4, 0, 2]], 0, 2), MPP, channel="4+0+2")


def test_the_colours_of_a_file_with_a_fourth_sample_can_be_chosen(tmp_path: Path) -> None:
    pixels = np.dstack([RGB, EIGHT[0]])
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    same_whatever_reads(path, RGB, MPP, channel="0+1+2")
    same_whatever_reads(path, RGB, MPP, channel="red+green+blue")


@pytest.mark.parametrize("plane", [0, 2])
def test_a_plane_is_chosen(plane: int, tmp_path: Path) -> None:
    stack = [np.roll(RGB, 40 * k, 1) for k in range(3)]
    choice = {"plane": str(plane)}
    same_whatever_reads(ome(tmp_path / "z.ome.tif", np.stack(stack), "ZYXS"), stack[plane], MPP, **choice)
    same_whatever_reads(ome(tmp_path / "t.ome.tif", np.stack(stack), "TYXS"), stack[plane], MPP, **choice)
    same_whatever_reads(pages(tmp_path / "p.tif", stack, photometric="rgb"), stack[plane], None, **choice)
    same_whatever_reads(imagej(tmp_path / "j.tif", np.stack(stack), "ZYXS"), stack[plane], MPP, **choice)
    with open_slide(tmp_path / "z.ome.tif", plane=str(plane)) as slide:
        assert len(slide.info.levels) == 2
        assert slide.info.notes == (f"plane {plane} of 3 (0 to 2) is read",)


def test_channel_and_plane_of_a_hyperstack(tmp_path: Path) -> None:
    planes = [np.roll(EIGHT[:4], 24 * k, axis=2) for k in range(6)]
    stack = np.stack(planes).reshape(2, 3, 4, 320, 416)  # times, focal planes, channels
    right = np.repeat(stack[1, 2, 3][..., None], 3, axis=2)
    choice = {"channel": "3", "plane": str(1 * 3 + 2)}
    same_whatever_reads(imagej(tmp_path / "a.tif", stack, "TZCYX"), right, MPP, **choice)
    same_whatever_reads(ome(tmp_path / "a.ome.tif", stack, "TZCYX"), right, MPP, **choice)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9", "no channel '9'"),
        ("1+2", "no channel"),
        ("CD4", "no channel 'CD4'"),
        ("0@9-2", "display range 9 to 2"),
    ],
)
def test_channels_there_are_not_are_refused_with_those_there_are(text: str, words: str, tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", EIGHT, "CYX", Channel={"Name": NAMES})
    with pytest.raises(SlideError, match=words):
        open_slide(path, channel=text)


def test_nothing_can_be_chosen_where_there_is_nothing_to_choose(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", RGB, photometric="rgb")
    same_whatever_reads(path, RGB, MPP, plane="0", image="0")
    for choice in ({"plane": "1"}, {"image": "1"}, {"channel": "DAPI"}):
        with pytest.raises(SlideError, match="only 0"):
            open_slide(path, **choice)


def akoya(path: Path, channels: list[np.ndarray], names: list[str]) -> Path:
    """As PhenoImager writes it: all channels of a level after each other, the thumbnail after the first level."""
    kind = {"tile": (128, 128), "compression": "lzw", "metadata": None, "software": "PerkinElmer-QPI"}

    def text(image: str, name: str = "") -> str:
        return (
            f"<PerkinElmer-QPI-ImageDescription><ImageType>{image}</ImageType><Name>{name}</Name>"
            "</PerkinElmer-QPI-ImageDescription>"
        )

    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            for name, channel in zip(names, channels, strict=True):
                options = {
                    "description": text("FullResolution" if step == 1 else "ReducedResolution", name),
                    "photometric": "rgb" if channel.ndim == 3 else "minisblack",
                    "subfiletype": int(step > 1),
                    **resolution(MPP * step),
                }
                writer.write(channel if step == 1 else shrunk(channel, step), **kind, **options)
            if step == 1:
                writer.write(shrunk(RGB, 8), description=text("Thumbnail"), photometric="rgb", **{**kind, "tile": None})
        writer.write(RGB[:200], description=text("Overview"), photometric="rgb", **kind)
        writer.write(RGB[:100], description=text("Label"), photometric="rgb", **kind)
    return path


def test_akoya_qptiff_of_channels_is_refused_by_name_and_one_can_be_chosen(tmp_path: Path) -> None:
    path = akoya(tmp_path / "a.qptiff", [*EIGHT], NAMES)
    with pytest.raises(SlideError, match="Akoya QPTIFF with 5 channels") as caught:
        open_slide(path)
    assert "0 to 4 (DAPI, CD3, CD8, PanCK, AF)" in caught.value.todo
    same_whatever_reads(path, np.repeat(EIGHT[1][..., None], 3, axis=2), MPP, channel="CD3")
    with open_slide(path, channel="CD3") as slide:
        assert len(slide.info.levels) == 3


def test_akoya_qptiff_of_bright_field_is_read(tmp_path: Path) -> None:
    path = akoya(tmp_path / "a.qptiff", [RGB], ["H&amp;E"])
    same_whatever_reads(path, RGB, MPP)
    with open_slide(path) as slide:
        assert (len(slide.info.levels), slide.info.notes) == (3, ())


def test_a_check_tells_once_what_is_shown(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.svs", [RGB] * 3, photometric="rgb", description="Aperio Image Library |MPP = 0.05")
    found = check_slide(SlideRecord("a", path, "p"), TileSpec(patch_px=16, mpp=0.5), None)
    assert not found.failure
    assert found.note == (
        "plane 0 of 3 (0 to 2) is read; stated mpp 0.05 makes this slide 0.0208 mm wide (wrong unit?)"
    )


@pytest.mark.parametrize("compression", ["zstd", "jpeg_2000_lossy"])
def test_a_choice_in_files_openslide_cannot_open(compression: str, tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", [*EIGHT], photometric="minisblack", compression=compression)
    same_whatever_reads(path, np.repeat(EIGHT[2][..., None], 3, axis=2), None, plane="2")


def test_focal_planes_of_aperio_under_its_own_jpeg_2000(tmp_path: Path) -> None:
    text = "Aperio Image Library |MPP = 0.5"
    for number, stack in enumerate(([RGB], [RGB, np.roll(RGB, 40, 1)])):
        pages(tmp_path / f"{number}.svs", stack, photometric="rgb", compression=33003, description=text)
    with open_slide(tmp_path / "0.svs", "openslide") as slide:
        right = slide.read_region(0, 0, 0, 416, 320)
    assert "auto" in same_whatever_reads(tmp_path / "1.svs", right, MPP)
    with pytest.raises(SlideError, match="33003"):
        open_slide(tmp_path / "1.svs", plane="1")
