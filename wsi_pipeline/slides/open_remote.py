"""Slides at an address: what our own readers read locally is read there in parts; anything else needs the whole file.

OpenSlide opens no address. It is asked about a stand-in that has the directories of the file (`remote.skeleton`), so a
remote slide has the same levels, resolution, vendor and notes as a local copy. Its pixels come from our readers only,
after the same comparison with OpenSlide's pixels that local files pass; where a local file would be left to OpenSlide,
a remote one is refused by name, or fetched whole if that is allowed. Pixels are thus equal to those of a local copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.foreign_formats import foreign_kind
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.skeleton import RemoteReader, fill_in, skeleton
from wsi_pipeline.remote.tiff_directories import is_tiff
from wsi_pipeline.remote.whole_file import NO_RANGES, kept_whole, whole_file
from wsi_pipeline.slides.backends.jpegtiff import JpegTiffSlide
from wsi_pipeline.slides.backends.tiffslide import TiffSlideSlide
from wsi_pipeline.slides.image_choice import ImageChoice
from wsi_pipeline.slides.inspect.sniff import sniff
from wsi_pipeline.slides.open_tiff import PLAIN, open_tiff
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.tiff.slide_image import SlideImage
from wsi_pipeline.slides.tiff.tiff_image import tiff_image
from wsi_pipeline.slides.tiles.remote_tiles import RemoteTileBytes
from wsi_pipeline.slides.tiles.tile_check import same_pixels, sampled_tiles
from wsi_pipeline.slides.tiles.tile_level import TiledLevel
from wsi_pipeline.slides.tiles.tile_pages import opening_ranges, tiled_levels

_SEVERAL_FILES = {
    ".mrxs": "MIRAX",
    ".vms": "Hamamatsu VMS",
    ".vmu": "Hamamatsu VMU",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
}
_OPENSLIDE_ONLY = {".ndpi": "Hamamatsu NDPI"}
_DICOM_MAGIC = slice(128, 132)


class _NotInPartsError(Exception):
    """Our readers cannot read the file in parts; the message says why."""


def open_remote(path: Path, choice: ImageChoice, local: Callable[[Path], Slide]) -> Slide:
    """The slide at an address; `local` opens a copy that had to be fetched whole.

    Raises SlideError, saying what to do, if it is not there, may not be read, or needs to be copied here first.
    """
    kind = foreign_kind(path)
    if kind:
        raise SlideError(f"{kind[0]} is not supported", todo=kind[1])
    suffix = path.suffix.lower()
    if suffix in _SEVERAL_FILES:
        raise _several_files(_SEVERAL_FILES[suffix], path)
    file = RemoteFile(path)
    try:
        why = _why_whole(file, suffix)
        if not why:
            try:
                return _in_parts(file, choice)
            except _NotInPartsError as error:
                why = str(error)
        copy = kept_whole(file) or whole_file(file, why)
    except BaseException:
        file.close()
        raise
    file.close()
    return local(copy)


def _several_files(kind: str, path: Path) -> SlideError:
    return SlideError(
        f"{kind} slides consist of several files, which are not read from an address: {path}",
        todo="Copy the slide with all its files to this machine, or convert it to a tiled pyramid TIFF.",
    )


def _why_whole(file: RemoteFile, suffix: str) -> str:
    """Why the file cannot be read in parts, by its first bytes; empty if it may be."""
    if not file.ranges:
        return NO_RANGES
    head = file.read(0, _DICOM_MAGIC.stop)
    if head[_DICOM_MAGIC] == b"DICM":
        raise _several_files("DICOM", file.path)
    if suffix in _OPENSLIDE_ONLY:
        return f"only OpenSlide reads {_OPENSLIDE_ONLY[suffix]}, and it opens no address"
    return "" if is_tiff(head) else "not a TIFF file, so it cannot be read in parts"


def _in_parts(file: RemoteFile, choice: ImageChoice) -> Slide:
    with skeleton(file) as stand_in:
        found = sniff(stand_in)
        if found.vendor not in PLAIN:
            raise _NotInPartsError(f"only OpenSlide assembles the tiles of {found.vendor}, and it opens no address")
        image = tiff_image(stand_in, choice, cast(BinaryIO, RemoteReader(file)))
        file.read_many(opening_ranges(stand_in, image))  # at once, as each of those who ask for them waits for one
        with open_tiff(found, image) as described:
            info = described.info
            other = TiffSlideSlide(stand_in, image, file)
            try:
                levels = _checked_levels(file, stand_in, described, other, image)
            except BaseException:
                other.close()
                raise
    other.info = replace(info, backend="tiffslide")
    return JpegTiffSlide(stand_in, other, image, levels) if levels else other


def _checked_levels(
    file: RemoteFile, stand_in: Path, described: Slide, other: Slide, image: SlideImage
) -> dict[int, TiledLevel]:
    """All levels as tiles decoded here, compared as those of local files are; none if a local file had none either.

    Raises _NotInPartsError if OpenSlide would read a level of a local copy.
    """
    by_openslide = described.info.backend == "openslide"
    try:
        levels = tiled_levels(stand_in, described, image, RemoteTileBytes(file))
    except SlideError as error:
        if by_openslide:
            raise _NotInPartsError(f"only OpenSlide reads it ({error.what}), and it opens no address") from error
        return {}
    samples = [part for number, level in levels.items() for part in sampled_tiles(number, level)]
    file.read_many(samples)
    finest = {0: levels[0]}
    if by_openslide:
        fill_in(stand_in, file, sampled_tiles(0, levels[0]))
    same = same_pixels(finest, described if by_openslide else other, file.name)
    same |= same_pixels({number: level for number, level in levels.items() if number}, other, file.name)
    if by_openslide and len(same) < len(image.levels):
        missing = sorted(set(range(len(image.levels))) - set(same))
        raise _NotInPartsError(f"only OpenSlide reads its level {missing[0]}, and it opens no address")
    return same if 0 in same else {}
