"""The directories of a TIFF file as plain data: sizes, samples, flags and resolutions, in file order.

Tags as in TIFF 6.0 and its supplements: NewSubfileType (254) marks reduced images and masks, SubIFDs (330) hold levels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.metadata import number

_OLD_SUBFILE_TYPE, _MAKE, _PAGE_NAME, _X_RESOLUTION, _RESOLUTION_UNIT, _ORIENTATION, _EXTRA_SAMPLES = (
    255, 271, 285, 282, 296, 274, 338,
)  # fmt: skip
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
_MACRO = 9
"""NewSubfileType of the macro in files of Aperio and vendors that follow it."""
_MICRONS_PER_UNIT = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}
"""ResolutionUnit: inch, centimetre and, by extension, millimetre and micrometre. 1 stands for none."""

_ASIDE = "label|macro|thumbnail|overview|preview|barcode"
_ASIDE_LINE = re.compile(rf"^\s*(?:{_ASIDE})(?![a-z])|<ImageType>\s*(?:{_ASIDE})\s*<", re.IGNORECASE | re.MULTILINE)
_ASIDE_NAME = re.compile(rf"(?:^|[^a-z])(?:{_ASIDE})(?:[ _-]?image)?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Directory:
    """One image directory.

    index         its number in the main chain; a SubIFD has its parent's
    offset        where it lies in the file, which identifies it
    bits          of each sample, all alike; 0 if they differ
    kind          numpy kind of the samples (`u`, `i`, `f`), empty if there is none
    reduced       marked as a reduced version of another image
    mask          marked as a transparency mask
    aside         its description names a label, macro, thumbnail or overview
    orientation   1 is upright; TIFF 6.0 lists the others
    resolution    (x, y) pixels per `unit` as the tags state, None if they do not
    subs          the directories of its SubIFDs tag, in order
    """

    index: int
    offset: int
    size: Size
    samples: int
    bits: int
    kind: str
    photometric: int
    photometric_name: str
    planar: int
    compression: int
    depth: int
    tiled: bool
    reduced: bool
    mask: bool
    aside: bool
    orientation: int
    extra: int | None
    description: str
    software: str
    resolution: tuple[float | None, float | None]
    unit: int
    subs: tuple[Directory, ...] = ()

    @property
    def tag_mpp(self) -> tuple[float | None, float | None]:
        """(x, y) micrometres per pixel by the resolution tags; None if they state none."""
        microns = _MICRONS_PER_UNIT.get(self.unit)
        x, y = (None if microns is None or per_unit is None else microns / per_unit for per_unit in self.resolution)
        return x, y


def directories(tiff: Any) -> tuple[Directory, ...]:
    """The main chain of an open tifffile.TiffFile, each directory with its SubIFDs."""
    found = []
    for index, entry in enumerate(tiff.pages):
        page = entry.aspage()
        found.append(_directory(page, index, tuple(_directory(sub.aspage(), index) for sub in page.pages or ())))
    return tuple(found)


def every_page(tiff: Any) -> dict[int, Any]:
    """All pages of an open tifffile.TiffFile, those of SubIFDs too, by their offsets."""
    pages = {}
    for entry in tiff.pages:
        page = entry.aspage()
        pages[int(page.offset)] = page
        pages |= {int(sub.offset): sub.aspage() for sub in page.pages or ()}
    return pages


def is_aside(name: str) -> bool:
    """Whether an image of that name is a label, macro or overview rather than the slide."""
    return bool(_ASIDE_NAME.search(name))


def _directory(page: Any, index: int, subs: tuple[Directory, ...] = ()) -> Directory:
    tags = page.tags
    marks, old = int(page.subfiletype), tags.valueof(_OLD_SUBFILE_TYPE, 0)
    extra = page.extrasamples
    bits = page.bitspersample
    description = str(page.description or "")
    named = str(tags.valueof(_PAGE_NAME, "") or "")
    return Directory(
        index=index,
        offset=int(page.offset),
        size=Size(int(page.imagewidth), int(page.imagelength)),
        samples=int(page.samplesperpixel),
        bits=int(bits) if isinstance(bits, int) else 0,
        kind=page.dtype.kind if page.dtype is not None else "",
        photometric=int(page.photometric),
        photometric_name=str(getattr(page.photometric, "name", page.photometric)),
        planar=int(page.planarconfig),
        compression=int(page.compression),
        depth=int(page.imagedepth),
        tiled=bool(page.is_tiled),
        reduced=bool(marks & _REDUCED) or old == _OLD_REDUCED,
        mask=bool(marks & _MASK),
        aside=marks & _MACRO == _MACRO or bool(_ASIDE_LINE.search(description[:4096])) or is_aside(named),
        orientation=_whole(tags.valueof(_ORIENTATION, 1)),
        extra=int(extra[0]) if extra else None,
        description=description,
        software=" ".join(str(part) for part in (page.software, tags.valueof(_MAKE, "")) if part),
        resolution=(_per_unit(tags.valueof(_X_RESOLUTION)), _per_unit(tags.valueof(_X_RESOLUTION + 1))),
        unit=_whole(tags.valueof(_RESOLUTION_UNIT, 2)),
        subs=subs,
    )


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _per_unit(value: Any) -> float | None:
    if isinstance(value, tuple) and len(value) == 2:
        top, bottom = number(value[0]), number(value[1])
        return top / bottom if top and bottom else None
    return number(value)
