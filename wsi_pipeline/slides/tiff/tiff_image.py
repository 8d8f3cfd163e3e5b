"""Which image of a TIFF file is the slide: by its OME-XML, else by its directories."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, BinaryIO

import tifffile

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.image_choice import ImageChoice
from wsi_pipeline.slides.tiff.bright_field import CONVERT
from wsi_pipeline.slides.tiff.decode import PARSE_ERRORS
from wsi_pipeline.slides.tiff.directories import directories, every_page
from wsi_pipeline.slides.tiff.ome_tiff import ome_slide
from wsi_pipeline.slides.tiff.ome_xml import is_ome, ome_images
from wsi_pipeline.slides.tiff.plain_tiff import imagej_counts, plain_slide
from wsi_pipeline.slides.tiff.same_picture import same_picture
from wsi_pipeline.slides.tiff.slide_image import SlideImage

_STACKS = {
    "is_stk": "MetaMorph stack",
    "is_lsm": "Zeiss LSM file",
    "is_fluoview": "Olympus FluoView file",
    "is_nih": "NIH Image stack",
    "is_scanimage": "ScanImage stack",
    "is_mdgel": "MD Gel file",
    "is_eer": "EER movie",
}
"""Microscope files whose channels, planes or values are described by private tags, which are not supported."""

_TRUNCATED = re.compile(r'"truncated"\s*:\s*true')


def tiff_image(path: Path, choice: ImageChoice, file: BinaryIO | None = None) -> SlideImage:
    """The slide image of a TIFF file; raises SlideError, saying what the file is, if it cannot be shown.

    file   read instead of `path`
    """
    try:
        with tifffile.TiffFile(path) if file is None else tifffile.TiffFile(file, name=path.name) as tiff:
            return _image(tiff, path, choice)
    except SlideError:
        raise
    except PARSE_ERRORS as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
        raise SlideError(f"the TIFF cannot be parsed: {reason[:200]}", todo=CONVERT) from error


def _image(tiff: Any, path: Path, choice: ImageChoice) -> SlideImage:
    kind = next((name for flag, name in _STACKS.items() if getattr(tiff, flag, False)), None)
    if kind is not None:
        raise SlideError(f"{kind}, not a bright-field slide", todo=CONVERT)
    chain = directories(tiff)
    text = next((item.description for item in chain if is_ome(item.description)), "")
    images = ome_images(text, path.name) if text else ()
    if images:
        return ome_slide(images, chain, choice)
    _refuse_hidden_planes(chain[0].description, len(chain))
    pages = every_page(tiff)
    return plain_slide(chain, choice, lambda large, small: same_picture(pages[large.offset], pages[small.offset]))


def _refuse_hidden_planes(description: str, directories_there: int) -> None:
    """Refuse stacks whose later planes follow the first one's data without directories of their own."""
    counts = imagej_counts(description)
    hidden = counts[1] if counts is not None else 0
    if hidden > directories_there or (description.startswith('{"shape"') and _TRUNCATED.search(description)):
        what = f"ImageJ stack of {hidden} planes" if hidden else "TIFF stack"
        raise SlideError(f"{what} in which only the first plane has a directory, not one RGB image", todo=CONVERT)
