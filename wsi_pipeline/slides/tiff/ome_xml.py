"""OME-XML: which images a file holds, where their planes lie, and how large a pixel is.

Follows the OME schema 2016-06 (Pixels, Channel, TiffData with IFD, FirstC, FirstZ, FirstT, PlaneCount, UUID).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.metadata import number

MOST_PLANES = 1 << 20
_OME = re.compile(r"<(?:[\w.-]+:)?OME[\s>]")
_HEAD_CHARS = 20_000
_UM_PER_UNIT = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "\N{MICRO SIGN}m": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "um": 1.0,
    "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0, "nm": 1e-3, "pm": 1e-6,
    "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}": 1e-4, "\N{ANGSTROM SIGN}": 1e-4,
    "in": 25_400.0, "ft": 304_800.0, "thou": 25.4,
}  # fmt: skip
_AXES = "CZT"


@dataclass(frozen=True)
class OmeImage:
    """One image of the file.

    channels   names of its channels, empty strings for unnamed ones
    samples    per pixel of a channel: 3 for an RGB channel; None if the XML does not say
    planes     directory of the main chain by (channel, z, t); None if it lies in another file
    """

    name: str
    width: int
    height: int
    channels: tuple[str, ...]
    samples: int | None
    z: int
    t: int
    kind: str
    bits: int | None
    mpp: tuple[float | None, float | None]
    planes: dict[tuple[int, int, int], int | None]


def is_ome(description: str) -> bool:
    """Whether a description is OME-XML."""
    return bool(_OME.search(description[:_HEAD_CHARS]))


def ome_images(description: str, file_name: str = "") -> tuple[OmeImage, ...]:
    """The images of an OME-XML description, in order; raises SlideError if it cannot be parsed.

    file_name   of the TIFF, to recognise planes stored in other files
    """
    root = _parsed(description)
    pixels = [(image, found) for image in _all(root, "Image") if (found := _first(image, "Pixels")) is not None]
    elsewhere = _elsewhere(root, file_name)
    return tuple(_image(image, found, elsewhere, alone=len(pixels) == 1) for image, found in pixels)


def length_um(value: str | None, unit: str | None) -> float | None:
    """A length in micrometres; the unit defaults to µm, and one that is not a length gives None."""
    found, scale = number(value), _UM_PER_UNIT.get((unit or "um").strip())
    return found * scale if found is not None and scale is not None else None


def _parsed(description: str) -> Element:
    try:
        root: Element = fromstring(description.strip().strip("\0"))
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SlideError(
            f"the OME-XML cannot be parsed: {reason[:120]}",
            todo="Export it again, or convert it (bfconvert), so that its description is valid.",
        ) from error
    return root


def _image(image: Element, pixels: Element, elsewhere: set[Element], *, alone: bool) -> OmeImage:
    channels = list(_all(pixels, "Channel"))
    stated = [found for item in channels if (found := _count(item.get("SamplesPerPixel")))]
    samples = stated[0] if stated and len(stated) == len(channels) and len(set(stated)) == 1 else None
    size = {axis: _count(pixels.get(f"Size{axis}")) or 1 for axis in "XYCZT"}
    count = len(channels) or max(1, size["C"] // (samples or size["C"]))
    names = tuple(str(item.get("Name") or "") for item in channels) or ("",) * count
    shape = {"C": len(names), "Z": size["Z"], "T": size["T"]}
    if shape["C"] * shape["Z"] * shape["T"] > MOST_PLANES:
        raise SlideError(f"the OME-XML states more than {MOST_PLANES} planes", todo="Export it again.")
    mpp = tuple(length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit")) for axis in "XY")
    return OmeImage(
        name=str(image.get("Name") or image.get("ID") or ""),
        width=size["X"],
        height=size["Y"],
        channels=names,
        samples=samples,
        z=size["Z"],
        t=size["T"],
        kind=str(pixels.get("Type") or pixels.get("PixelType") or ""),
        bits=_count(pixels.get("SignificantBits")),
        mpp=(mpp[0], mpp[1]),
        planes=_planes(pixels, shape, elsewhere, alone=alone),
    )


def _planes(
    pixels: Element, shape: dict[str, int], elsewhere: set[Element], *, alone: bool
) -> dict[tuple[int, int, int], int | None]:
    order = [axis for axis in str(pixels.get("DimensionOrder") or "XYCZT").upper() if axis in _AXES]
    order += [axis for axis in _AXES if axis not in order]
    total = shape["C"] * shape["Z"] * shape["T"]
    blocks = list(_all(pixels, "TiffData"))
    planes: dict[tuple[int, int, int], int | None] = {}
    if not blocks and alone:
        return {place: index for index, place in enumerate(_places(order, shape, {}, total))}
    for block in blocks:
        first, stated = _natural(block.get("IFD")), _natural(block.get("PlaneCount"))
        count = min(total, (1 if first is not None else total) if stated is None else stated)
        start = {axis: _natural(block.get(f"First{axis}")) or 0 for axis in _AXES}
        for step, place in enumerate(_places(order, shape, start, count)):
            planes[place] = None if block in elsewhere else (first or 0) + step
    return planes


def _places(
    order: list[str], shape: dict[str, int], start: dict[str, int], count: int
) -> Iterator[tuple[int, int, int]]:
    """`count` planes from `start` on, the first axis of `order` fastest."""
    at = {axis: start.get(axis, 0) for axis in _AXES}
    for _ in range(count):
        if any(at[axis] >= shape[axis] for axis in _AXES):
            return
        yield at["C"], at["Z"], at["T"]
        for axis in order:
            at[axis] += 1
            if at[axis] < shape[axis]:
                break
            at[axis] = 0
        else:
            return


def _elsewhere(root: Element, file_name: str) -> set[Element]:
    """TiffData blocks whose planes lie in another file of the set.

    A renamed file still carries its old name: if all blocks name one file, it is this one.
    """
    own, named = root.get("UUID"), []
    for block in root.iter():
        found = _first(block, "UUID") if _local(block) == "TiffData" else None
        if found is not None:
            named.append((block, (found.text or "").strip(), found.get("FileName")))
    files = {(uuid, name) for _, uuid, name in named}
    if len({uuid for uuid, _ in files}) <= 1:
        return set()
    here = {uuid for uuid, name in files if uuid == own or name == file_name}
    return {block for block, uuid, _ in named if uuid not in here}


def _local(element: Element) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _all(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _local(child) == name)


def _first(element: Element, name: str) -> Element | None:
    return next(_all(element, name), None)


def _natural(value: str | None) -> int | None:
    try:
        found = int(value) if value is not None else None
    except ValueError:
        return None
    return found if found is None or found >= 0 else None


def _count(value: str | None) -> int | None:
    return _natural(value) or None
