"""Which directory of a TIFF file without OME-XML is the slide: the largest full image, and its reduced copies."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.image_choice import ImageChoice, number_of
from wsi_pipeline.slides.metadata import imagej_mpp, number, one_mpp, stated_field
from wsi_pipeline.slides.tiff.bright_field import RGB, YCBCR
from wsi_pipeline.slides.tiff.directories import Directory
from wsi_pipeline.slides.tiff.slide_image import (
    SlideImage,
    alike,
    by_size,
    check_not_aside,
    checked,
    is_reduction,
    others_note,
    pick,
    sampled_channels,
)

_ORDERLY = ("aperio", "huron", "akoya")
"""Scanners whose tiled images are all levels or planes of one slide, whatever their flags say."""

SamePicture = Callable[[Directory, Directory], bool]
"""Whether the second directory is a smaller copy of the first."""


@dataclass(frozen=True)
class _Stack:
    """The directories that share the slide's size, by what they are: one for each channel of each plane."""

    kind: str
    channels: tuple[str, ...]
    planes: int
    pages: tuple[Directory, ...]
    first_plane: bool = False

    def place(self, channel: int, plane: int) -> int:
        return plane * max(1, len(self.channels)) + channel


def plain_slide(chain: Sequence[Directory], choice: ImageChoice, same: SamePicture) -> SlideImage:
    """The largest image that is not a mask, label, macro or overview, or the one chosen, with its levels.

    same   called only if the file's flags do not settle whether one image is a reduction of another

    Raises SlideError if it is not bright-field RGB and nothing else is chosen.
    """
    pool = _candidates(chain)
    if choice.image is None:
        check_not_aside(all(item.aside for item in pool))
    base, scenes = _base(pool, choice, same)
    vendor = vendor_of_texts(base)
    stack = _stack(base, pool, vendor)
    sampled = sampled_channels(base, choice)
    names = sampled or stack.channels
    kind = "TIFF" if sampled else stack.kind
    picked = pick(kind, names, stack.planes, choice, first_plane=stack.first_plane)
    wanted = (0,) if sampled or picked.channels is None else picked.channels
    numbers = [stack.place(channel, picked.plane) for channel in wanted]
    pages = tuple(stack.pages[number] for number in numbers)
    levels = by_size([pages, *_levels(pages, numbers, len(stack.pages), pool, vendor, same)])
    mpp, note = one_mpp(*_mpp(pages[0], vendor, chain[0].description))
    shown = picked.channels
    return checked(
        SlideImage(
            levels=levels,
            samples=None if shown is None else (shown if sampled else (0,) * len(pages)),
            window=choice.window,
            mpp=mpp,
            mpp_note=note,
            objective=number(stated_field(base.description, "AppMag")),
            vendor=vendor,
            notes=(*scenes, *picked.notes),
        )
    )


def vendor_of_texts(image: Directory) -> str:
    """Scanner family, from a directory's description and software tags."""
    if image.description.startswith("Aperio"):
        return "aperio"
    if "huron" in f"{image.description[:400]} {image.software}".lower():
        return "huron"
    if _is_akoya(image):
        return "akoya"
    return "generic-tiff"


def _candidates(chain: Sequence[Directory]) -> list[Directory]:
    """Directories that may be the slide or a level of it; SubIFDs only if they are larger than their parent."""
    every = list(chain)
    every += [sub for parent in chain for sub in parent.subs if sub.size.pixels > parent.size.pixels]
    every = [item for item in every if item.size.pixels and not item.mask] or every
    return [item for item in every if not item.aside] or every


def _base(pool: list[Directory], choice: ImageChoice, same: SamePicture) -> tuple[Directory, tuple[str, ...]]:
    """The image that is the slide, and a note about the others."""
    largest = max(pool, key=lambda item: (item.size.pixels, not item.reduced, item.photometric in (RGB, YCBCR)))
    if vendor_of_texts(largest) in _ORDERLY and choice.image is None:
        return largest, ()
    scenes = [largest]
    for item in pool:
        known = any(item.size == other.size or _reduces(item, other, same) for other in scenes)
        if not known and not item.reduced:
            scenes.append(item)
    scenes.sort(key=pool.index)
    chosen = scenes.index(largest)
    if choice.image is not None:
        chosen = number_of(choice.image, ("",) * len(scenes), "image")
    return scenes[chosen], others_note(chosen, [item.size for item in scenes], ("",) * len(scenes))


def _reduces(small: Directory, large: Directory, same: SamePicture) -> bool:
    return alike(small, large) and is_reduction(small.size, large.size) and same(large, small)


def _stack(base: Directory, pool: list[Directory], vendor: str) -> _Stack:
    pages = tuple(item for item in pool if item.size == base.size and alike(item, base))
    if base not in pages or (base.samples > 1 and base.photometric in (0, 1)):
        pages = (base,)
    if vendor == "akoya" and base.samples == 1:
        return _Stack("Akoya QPTIFF", tuple(_akoya_channel(page) for page in pages), 1, pages)
    counts = imagej_counts(base.description) or imagej_counts(pool[0].description)
    if counts is not None and counts[0] > 1 and base.samples == 1 and len(pages) % counts[0] == 0:
        return _Stack("ImageJ stack", ("",) * counts[0], len(pages) // counts[0], pages)
    first = vendor in ("aperio", "huron") or all(page.reduced for page in pages[1:])
    return _Stack("TIFF stack" if counts is None else "ImageJ stack", (), len(pages), pages, first)


def _levels(
    pages: tuple[Directory, ...],
    numbers: Sequence[int],
    total: int,
    pool: list[Directory],
    vendor: str,
    same: SamePicture,
) -> list[tuple[Directory, ...]]:
    """Coarser levels: SubIFDs or, if there are none, directories of the main chain.

    numbers   positions of `pages` among the `total` directories of this size; a coarser size has as many directories,
              or only one, which belongs to the first
    """
    base = pages[0]
    subs = [
        level
        for level in zip(*(page.subs for page in pages), strict=False)
        if is_reduction(level[0].size, base.size) and len({part.size for part in level}) == 1
    ]
    if subs:
        return subs
    groups: dict[Size, list[Directory]] = {}
    for item in pool:
        if alike(item, base) and item.tiled == base.tiled and is_reduction(item.size, base.size):
            groups.setdefault(item.size, []).append(item)
    found = []
    for group in groups.values():
        ways = [tuple(group[number] for number in numbers)] if len(group) == total else []
        ways += [(item,) for item in group] if numbers == [0] else []
        sure = vendor in _ORDERLY or not any(_may_be_of_another(item, base, pool) for item in group)
        found += [way for way in ways if sure or same(base, way[0])][:1]
    return found


def _may_be_of_another(item: Directory, base: Directory, pool: list[Directory]) -> bool:
    """Whether a directory may be a reduction of `base` although its flags do not say so."""
    full = (other for other in pool if not other.reduced and other.size != base.size)
    return not item.reduced or any(is_reduction(item.size, other.size) for other in full)


def _mpp(image: Directory, vendor: str, first: str) -> tuple[float | None, float | None]:
    """(x, y) as stated by the directory that is read: its description, then its resolution tags.

    first   description of the first directory, which has ImageJ's unit for all
    """
    stated = number(stated_field(image.description, "MPP"))
    if stated is not None or vendor == "aperio":
        return stated, stated
    x, y = imagej_mpp(first, *image.resolution)
    return (x, y) if x or y else image.tag_mpp


def imagej_counts(description: str) -> tuple[int, int] | None:
    """(channels, images) of an ImageJ description, None if it is another."""
    if not description.startswith("ImageJ="):
        return None
    fields = dict(re.findall(r"^(\w+)=(\d+)\s*$", description, re.MULTILINE))
    return int(fields.get("channels", 1)) or 1, int(fields.get("images", 1)) or 1


def _is_akoya(image: Directory) -> bool:
    return "PerkinElmer-QPI" in image.software or "PerkinElmer-QPI" in image.description[:400]


def _akoya_channel(image: Directory) -> str:
    try:
        root = fromstring(image.description.strip().strip("\0"))
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return ""
    found = root.find("Biomarker")
    if found is None or not (found.text or "").strip():
        found = root.find("Name")
    return (found.text or "").strip() if found is not None else ""
