"""Which OME image of a file is the slide, and which directories hold its levels."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.image_choice import ImageChoice, number_of
from wsi_pipeline.slides.metadata import one_mpp
from wsi_pipeline.slides.tiff.directories import Directory, is_aside
from wsi_pipeline.slides.tiff.ome_xml import OmeImage
from wsi_pipeline.slides.tiff.slide_image import (
    SlideImage,
    by_size,
    check_not_aside,
    checked,
    is_reduction,
    others_note,
    pick,
    sampled_channels,
)

_KIND = "OME-TIFF"


def ome_slide(images: Sequence[OmeImage], chain: Sequence[Directory], choice: ImageChoice) -> SlideImage:
    """The largest image that is not a label, macro or overview, or the chosen one.

    images   as the OME-XML lists them
    chain    the directories its IFD numbers count

    Raises SlideError if it is not bright-field RGB and nothing else is chosen, or lies in another file.
    """
    scene = _scene(images, choice)
    image = images[scene]
    colour = _is_colour(image, chain)
    sampled = _sampled_channels(image, chain, choice) if not colour or choice.which is not None else ()
    colour = colour and not sampled
    names = () if colour else sampled or image.channels
    picked = pick(_KIND, names, image.z * image.t, choice, first_plane=False)
    z, t = picked.plane % image.z, picked.plane // image.z
    chosen = picked.channels if len(names) > 1 or picked.channels is not None else None
    wanted = (0,) if colour or sampled or chosen is None else chosen
    pages = tuple(_directory(image, chain, (channel, z, t)) for channel in wanted)
    x, y = image.mpp if any(image.mpp) else pages[0].tag_mpp
    mpp, note = one_mpp(x, y)
    notes = others_note(scene, [Size(item.width, item.height) for item in images], [item.name for item in images])
    return checked(
        SlideImage(
            levels=_levels(pages, chain, images),
            samples=None if chosen is None else (chosen if sampled else (0,) * len(pages)),
            window=choice.window,
            mpp=mpp,
            mpp_note=note,
            vendor="ome-tiff",
            notes=(*notes, *picked.notes),
        )
    )


def _scene(images: Sequence[OmeImage], choice: ImageChoice) -> int:
    names = [image.name for image in images]
    if choice.image is not None:
        return number_of(choice.image, names, "image")
    pool = [index for index, image in enumerate(images) if not is_aside(image.name)]
    check_not_aside(not pool)
    return max(pool, key=lambda index: images[index].width * images[index].height)


def _first_page(image: OmeImage, chain: Sequence[Directory]) -> Directory | None:
    first = next((index for index in image.planes.values() if index is not None), None)
    return chain[first] if first is not None and first < len(chain) else None


def _is_colour(image: OmeImage, chain: Sequence[Directory]) -> bool:
    """One channel of three or four samples, or as many channels, in a directory that calls them colours."""
    page = _first_page(image, chain)
    if page is None or page.samples not in (3, 4) or page.photometric in (0, 1):
        return False
    return len(image.channels) in (1, page.samples)


def _sampled_channels(image: OmeImage, chain: Sequence[Directory], choice: ImageChoice) -> tuple[str, ...]:
    """Names of channels that lie in one directory, as samples of its pixels; empty if each has its own."""
    page = _first_page(image, chain)
    if page is None or page.samples == 1:
        return ()
    named = len(image.channels) == page.samples
    return image.channels if named else sampled_channels(page, choice)


def _directory(image: OmeImage, chain: Sequence[Directory], place: tuple[int, int, int]) -> Directory:
    index = image.planes.get(place, -1)
    if index is None:
        raise SlideError(
            f"image {image.name!r} of this OME-TIFF lies in other files of its set",
            todo="Use the file that holds the pixels, or convert the set to one file (bfconvert).",
        )
    if not 0 <= index < len(chain):
        raise SlideError(
            f"OME-XML places image {image.name!r} in directory {index}, but there are only {len(chain)}"
            if index >= 0
            else f"OME-XML does not say where image {image.name!r} lies",
            todo="The file is damaged or its description belongs to another file; export it again.",
        )
    found = chain[index]
    if (found.size.width, found.size.height) != (image.width, image.height):
        raise SlideError(
            f"OME-XML says that image {image.name!r} has {image.width} x {image.height} pixels, directory {index} has "
            f"{found.size.width} x {found.size.height}",
            todo="Its description belongs to another file; export it again.",
        )
    return found


def _levels(
    pages: tuple[Directory, ...], chain: Sequence[Directory], images: Sequence[OmeImage]
) -> tuple[tuple[Directory, ...], ...]:
    """Level 0 and the levels in its SubIFDs or, for a single plane, in reduced directories that belong to no image."""
    base = pages[0]
    subs = [
        level
        for level in zip(*(page.subs for page in pages), strict=False)
        if is_reduction(level[0].size, base.size) and len({part.size for part in level}) == 1
    ]
    if not subs and len(images) == 1 and len(images[0].planes) == 1:
        claimed = {index for image in images for index in image.planes.values()}
        subs = [(item,) for item in chain if item.index not in claimed and item.reduced and not item.aside
                and item.tiled == base.tiled and is_reduction(item.size, base.size)]  # fmt: skip
    return by_size([pages, *subs])
