"""OME-XML, as converters write it: quotes, prefixes, units, orders, several images, several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.slide_files import Pixels, resolution, shrunk, tissue_like
from tests.slides.test_tiff_directories import same_whatever_reads
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.tiff.ome_xml import is_ome, ome_images

RGB = tissue_like(416, 320)
SMALL = shrunk(RGB, 4)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def image(
    number: int, pixels: Pixels, attributes: str, data: str, *, name: str = "", channel: str = 'SamplesPerPixel="3"'
) -> str:
    """One Image element of RGB pixels."""
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="{pixels.shape[1]}" SizeY="{pixels.shape[0]}" SizeC="3" SizeZ="1" SizeT="1" {attributes}>'
        f'<Channel ID="Channel:{number}:0" {channel}/>{data}</Pixels></Image>'
    )


def xml(*images: str, head: str = "") -> str:
    """A document of images."""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}" {head}>{"".join(images)}</OME>'


def write(path: Path, text: str, *pixels: Pixels, mpp: float | None = None) -> Path:
    """Tiled images, the first one with the description."""
    with tifffile.TiffWriter(path) as writer:
        for number, one in enumerate(pixels):
            extra = {"description": text.encode()} if number == 0 else {}
            writer.write(one, photometric="rgb", tile=(128, 128), compression="deflate", metadata=None, **extra,
                         **resolution(mpp))  # fmt: skip
    return path


SIZE = 'PhysicalSizeX="0.5" PhysicalSizeY="0.5"'
FIRST, SECOND = '<TiffData IFD="0" PlaneCount="1"/>', '<TiffData IFD="1" PlaneCount="1"/>'


@pytest.mark.parametrize(
    ("attributes", "mpp"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.25"', 0.25),
        ("PhysicalSizeX='0.25' PhysicalSizeY='0.25'", 0.25),
        ('PhysicalSizeX = "0.25"\n PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="µm" PhysicalSizeY="0.25" PhysicalSizeYUnit="μm"', 0.25),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="0.25" PhysicalSizeYUnit="&#x3bc;m"', 0.25),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="250" PhysicalSizeYUnit="nm"', 0.25),
        ('PhysicalSizeX="2.5E-4" PhysicalSizeXUnit="mm" PhysicalSizeY="2.5e-4" PhysicalSizeYUnit="mm"', 0.25),
        ('PhysicalSizeX="0.000025" PhysicalSizeXUnit="cm" PhysicalSizeY="0.25"', 0.25),
        ('PhysicalSizeX="2500" PhysicalSizeXUnit="Å" PhysicalSizeY="2500" PhysicalSizeYUnit="Å"', 0.25),
        ('PhysicalSizeX="0.25"', 0.25),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="reference frame"', None),
        ("", None),
    ],
)
def test_pixel_sizes_in_any_writing(attributes: str, mpp: float | None, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", xml(image(0, RGB, attributes, FIRST)), RGB)
    same_whatever_reads(path, RGB, mpp)


def test_resolution_tags_count_where_the_xml_states_no_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", xml(image(0, RGB, "", FIRST)), RGB, mpp=0.4)
    same_whatever_reads(path, RGB, 0.4)


def test_prefixes_comments_and_annotations_do_not_matter(tmp_path: Path) -> None:
    annotation = '<XMLAnnotation ID="A:0"><Value><Pixels PhysicalSizeX="9"/></Value></XMLAnnotation>'
    notes = f"<StructuredAnnotations>{annotation}</StructuredAnnotations>"
    text = xml(notes, '<!-- <Pixels PhysicalSizeX="7"/> -->', image(0, RGB, SIZE, FIRST))
    for part in ("OME", "Image", "Pixels", "Channel", "TiffData", "StructuredAnnotations", "XMLAnnotation", "Value"):
        text = text.replace(f"<{part}", f"<ome:{part}").replace(f"</{part}", f"</ome:{part}")
    text = text.replace("xmlns=", "xmlns:ome=")
    same_whatever_reads(write(tmp_path / "a.ome.tif", text, RGB), RGB, 0.5)


@pytest.mark.parametrize("named", [False, True])
def test_images_in_another_order_than_directories(named: bool, tmp_path: Path) -> None:
    small = image(1, SMALL, 'PhysicalSizeX="2" PhysicalSizeY="2"', FIRST, name="macro image" if named else "")
    large = image(0, RGB, SIZE, SECOND, name="slide" if named else "")
    for number, text in enumerate((xml(large, small), xml(small, large))):
        path = write(tmp_path / f"{number}.ome.tif", text, SMALL, RGB, mpp=7)
        same_whatever_reads(path, RGB, 0.5)
        with open_slide(path) as slide:
            assert slide.info.notes[0].startswith(f"image {number} of the file is read, 1 other not: {1 - number}")
        same_whatever_reads(path, SMALL, 2.0, image=str(1 - number))
    if named:
        same_whatever_reads(path, SMALL, 2.0, image="macro image")


def test_a_macro_that_is_larger_is_not_the_slide(tmp_path: Path) -> None:
    macro = tissue_like(800, 600, seed=4)
    text = xml(image(0, macro, 'PhysicalSizeX="9"', FIRST, name="a.svs macro"), image(1, RGB, SIZE, SECOND))
    same_whatever_reads(write(tmp_path / "a.ome.tif", text, macro, RGB), RGB, 0.5)


def test_of_scenes_of_equal_size_the_first_is_read_and_the_other_can_be_chosen(tmp_path: Path) -> None:
    other = tissue_like(416, 320, seed=8)
    text = xml(image(0, RGB, SIZE, FIRST, name="A"), image(1, other, 'PhysicalSizeX="0.25"', SECOND, name="B"))
    path = write(tmp_path / "a.ome.tif", text, RGB, other)
    same_whatever_reads(path, RGB, 0.5)
    for choice in ("1", "B", "b"):
        same_whatever_reads(path, other, 0.25, image=choice)
    same_whatever_reads(tmp_path / "a.ome.tif#scene=1", other, 0.25)
    with pytest.raises(SlideError, match=r"the file has no image 'C', only 0 to 1 \(A, B\)"):
        open_slide(path, image="C")


def test_a_document_without_directories_counts_them_from_the_first(tmp_path: Path) -> None:
    for data in ("", "<TiffData/>", '<TiffData FirstC="0"/>'):
        same_whatever_reads(write(tmp_path / "a.ome.tif", xml(image(0, RGB, SIZE, data)), RGB), RGB, 0.5)


def test_a_renamed_file_is_still_itself_and_pixels_in_other_files_are_refused(tmp_path: Path) -> None:
    def block(number: int, ifd: int) -> str:
        uuid = f'<UUID FileName="part{number}.ome.tif">urn:uuid:{number}</UUID>'
        return f'<TiffData IFD="{ifd}" PlaneCount="1">{uuid}</TiffData>'

    alone = xml(image(0, RGB, SIZE, block(0, 0)))
    same_whatever_reads(write(tmp_path / "renamed.ome.tif", alone, RGB), RGB, 0.5)
    both = (image(0, SMALL, SIZE, block(0, 0)), image(1, RGB, SIZE, block(1, 0)))
    path = write(tmp_path / "part1.ome.tif", xml(*both), RGB)
    same_whatever_reads(path, RGB, 0.5)
    path = write(tmp_path / "part0.ome.tif", xml(*both), SMALL)
    with pytest.raises(SlideError, match="lies in other files of its set"):
        open_slide(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (xml(image(0, SMALL, SIZE, FIRST)), "has 104 x 80 pixels, directory 0 has 416 x 320"),
        (xml(image(0, RGB, SIZE, '<TiffData IFD="5" PlaneCount="1"/>')), "in directory 5, but there are only 1"),
        (xml(image(0, RGB, SIZE, FIRST)).replace("</Pixels>", ""), "the OME-XML cannot be parsed"),
    ],
)
def test_descriptions_that_are_another_files_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=sentence):
        open_slide(write(tmp_path / "a.ome.tif", text, RGB))


@pytest.mark.parametrize("order", ["XYCZT", "XYZCT", "XYTZC", "XYZTC"])
def test_planes_are_counted_in_the_stated_order(order: str) -> None:
    text = xml(
        f'<Image ID="Image:0"><Pixels ID="P" DimensionOrder="{order}" Type="uint8" SizeX="8" SizeY="8" SizeC="2" '
        'SizeZ="3" SizeT="4"><Channel ID="C:0" Name="a"/><Channel ID="C:1" Name="b"/><TiffData/></Pixels></Image>'
    )
    sizes = {"C": 2, "Z": 3, "T": 4}
    shape = [sizes[axis] for axis in reversed(order[2:])]
    (found,) = ome_images(text)
    for place, index in found.planes.items():
        at = dict(zip("CZT", place, strict=True))
        assert np.ravel_multi_index([at[axis] for axis in reversed(order[2:])], shape) == index
    assert len(found.planes) == 24


def test_what_is_no_ome_xml() -> None:
    assert not is_ome("Aperio Image Library |OME = 3")
    assert not is_ome("<HOMER>")
    assert is_ome('<?xml version="1.0"?><ome:OME xmlns:ome="x">')


@pytest.mark.parametrize(
    "channels", ["", "<Channel/>", '<Channel SamplesPerPixel="3"/>', "<Channel/><Channel/><Channel/>"]
)
def test_the_directory_says_whether_samples_are_colours(channels: str, tmp_path: Path) -> None:
    one = image(0, RGB, SIZE, FIRST)
    text = xml(one[: one.index("<Channel")] + channels + one[one.index("<TiffData") :])
    same_whatever_reads(write(tmp_path / "a.ome.tif", text, RGB), RGB, 0.5)
