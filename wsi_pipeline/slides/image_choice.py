"""Which image, channel and plane of a multi-image file to read, chosen in the manifest or at the end of the path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.path_choices import split_choice

_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_RANGE = re.compile(rf"^(?P<which>.*?)\s*@\s*(?P<low>{_NUMBER})\s*(?:-|:|to)\s*(?P<high>{_NUMBER})$", re.IGNORECASE)


@dataclass(frozen=True)
class ImageChoice:
    """The user's choice of image, channel and plane; None if not chosen.

    image     a number from 0 on or a name
    channel   numbers (from 0) or names, one or three joined by `+` (red+green+blue), then `@low-high`, the
              display range that becomes 0 to 255: `2`, `DAPI@200-6000`, `0+1+2`, `@0-4095`
    plane     number of the focal plane or time point from 0 on
    """

    image: str | None = None
    channel: str | None = None
    plane: str | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.image, self.channel, self.plane))

    @property
    def window(self) -> tuple[float, float] | None:
        """The display range, if one is given."""
        found = _RANGE.match(self.channel.strip()) if self.channel else None
        if found is None:
            return None
        low, high = float(found["low"]), float(found["high"])
        if low >= high:
            raise SlideError(
                f"display range {low:g} to {high:g} in channel {self.channel!r} is empty",
                todo="Write the lower value first, as in `0@100-4000`.",
            )
        return low, high

    @property
    def which(self) -> str | None:
        """The channels without the display range; None if no channel is chosen."""
        text = (self.channel or "").strip()
        found = _RANGE.match(text)
        return (found["which"].strip() if found else text) or None


def choice_of(path: Path, image: str | None, channel: str | None, plane: str | None) -> tuple[Path, ImageChoice]:
    """The file and the choice, from the arguments or else from the end of its path (`slide.ome.tif#scene=1`)."""
    file, named = split_choice(path)
    given = {"image": image, "channel": channel, "plane": plane}
    return file, ImageChoice(**{key: named.get(key) if value is None else value for key, value in given.items()})


def numbers_of(text: str, names: Sequence[str], what: str) -> tuple[int, ...]:
    """Numbers of the one or three channels in `text`; raises SlideError listing the channels there are."""
    whole = _number_of(text, names)
    parts = [whole] if whole is not None else [_number_of(part.strip(), names) for part in text.split("+")]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or len(parts) not in (1, 3):
        raise SlideError(f"the file has no {what} {text!r}, only {numbered(names)}", todo=f"Correct the column {what}.")
    return tuple(known)


def number_of(text: str, names: Sequence[str], what: str) -> int:
    """The number of the image or plane in `text`; raises SlideError listing those of the file if it is missing."""
    found = _number_of(text, names)
    if found is None:
        raise SlideError(f"the file has no {what} {text!r}, only {numbered(names)}", todo=f"Correct the column {what}.")
    return found


def numbered(names: Sequence[str], most: int = 8) -> str:
    """`0 to 4 (DAPI, CD3, ...)`, with names if there are any."""
    span = "0" if len(names) == 1 else f"0 to {len(names) - 1}"
    known = [name for name in names if name]
    if not known:
        return span
    return f"{span} ({', '.join(known[:most])}{', ...' if len(known) > most else ''})"


def _number_of(text: str, names: Sequence[str]) -> int | None:
    text = text.strip()
    exact = [index for index, name in enumerate(names) if name == text]
    folded = [index for index, name in enumerate(names) if name and name.casefold() == text.casefold()]
    for matching in (exact, folded):
        if text and len(matching) == 1:
            return matching[0]
    number = re.fullmatch(r"(\d+)(?:\.0+)?", text)
    return int(number[1]) if number and int(number[1]) < len(names) else None
