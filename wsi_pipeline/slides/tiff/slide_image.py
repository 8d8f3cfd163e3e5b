"""The image of a TIFF file that is the slide: its directories by level, what is shown, and notes on what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.image_choice import ImageChoice, number_of, numbered, numbers_of
from wsi_pipeline.slides.tiff.bright_field import (
    CONVERT,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    OR_CONVERT,
    RGB,
    check_bright_field,
    check_channels,
)
from wsi_pipeline.slides.tiff.directories import Directory
from wsi_pipeline.wording import counted, listed

Window = tuple[float, float]


@dataclass(frozen=True)
class SlideImage:
    """Which directories and samples of a file are read.

    levels     the directories of each level, finest first: one, or the three that become red, green and blue
    samples    of a pixel that are shown, one or three; None: its colours, as they are
    window     values that become 0 and 255; None: 8 bits, as they are
    mpp, note  as the image states them: see SlideInfo
    vendor     of the file, as its tags state
    notes      what the user should know: other images, planes, orientation
    """

    levels: tuple[tuple[Directory, ...], ...]
    samples: tuple[int, ...] | None = None
    window: Window | None = None
    mpp: float | None = None
    mpp_note: str = ""
    objective: float | None = None
    vendor: str = "generic-tiff"
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> Directory:
        """The first directory of the finest level."""
        return self.levels[0][0]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each level as stored, finest first."""
        return [(level[0].size.width, level[0].size.height) for level in self.levels]

    @property
    def as_stored(self) -> bool:
        """Whether the pixels are shown as other readers would: all colours, 8 bits, upright."""
        return self.samples is None and self.window is None and self.base.orientation == 1


@dataclass(frozen=True)
class Picked:
    """Channels (None: colours as stored) and plane chosen from a stack."""

    channels: tuple[int, ...] | None
    plane: int
    notes: tuple[str, ...] = ()


def pick(kind: str, channels: Sequence[str], planes: int, choice: ImageChoice, *, first_plane: bool) -> Picked:
    """Choose from a stack of `planes` with single-sample `channels` (empty: RGB).

    first_plane   the first plane represents the slide and is read if none is chosen

    Raises SlideError, listing the options, if nothing is chosen or the choice does not exist.
    """
    chosen = numbers_of(choice.which, channels, "channel") if choice.which is not None and channels else None
    if choice.which is not None and not channels:
        raise SlideError(
            f"no channel {choice.which!r}: {kind} has RGB pixels", todo="Leave the column channel empty for it."
        )
    if len(channels) > 1 and chosen is None:
        raise SlideError(
            f"{kind} with {len(channels)} channels, not one RGB image",
            todo=f"Choose one in the manifest (column channel: {numbered(channels)}; or three as red+green+blue), "
            f"{OR_CONVERT}",
        )
    plane = 0
    if choice.plane is not None:
        plane = number_of(choice.plane, ("",) * planes, "plane")
    elif planes > 1 and not first_plane:
        raise SlideError(
            f"{kind} with {planes} planes of equal size (focal planes, time points or separate slides), not one RGB "
            "image",
            todo=f"Choose one in the manifest (column plane: 0 to {planes - 1}), {OR_CONVERT}",
        )
    notes = (f"plane {plane} of {planes} (0 to {planes - 1}) is read",) if planes > 1 else ()
    return Picked(chosen, plane, notes)


def sampled_channels(image: Directory, choice: ImageChoice) -> tuple[str, ...]:
    """Names of channels stored as samples of one image's pixels, if they can be chosen separately; else empty."""
    if image.photometric == RGB and choice.which is not None:
        return ("red", "green", "blue", *("",) * (image.samples - 3))
    return ("",) * image.samples if image.photometric in (MIN_IS_WHITE, MIN_IS_BLACK) and image.samples > 1 else ()


def checked(image: SlideImage) -> SlideImage:
    """`image` without the coarser levels that cannot be shown; raises SlideError if level 0 cannot.

    Coarser levels that are not stored like level 0 are left out.
    """
    check = check_bright_field if image.samples is None else check_channels
    for directory in image.levels[0]:
        check(directory, image.window)
    kept = [image.levels[0]]
    for level in image.levels[1:]:
        if all(alike(directory, image.base) for directory in level):
            kept.append(level)
    notes = image.notes
    if image.base.orientation != 1:
        if not 1 <= image.base.orientation <= 8:
            raise SlideError(f"invalid TIFF orientation {image.base.orientation}", todo=CONVERT)
        notes = (*notes, f"rotated or mirrored as its orientation tag {image.base.orientation} says")
    return SlideImage(**{**image.__dict__, "levels": tuple(kept), "notes": notes})


def check_not_aside(nothing_else: bool) -> None:
    """Raise SlideError if a file has only a label, macro or overview, and none of them is chosen."""
    if nothing_else:
        raise SlideError(
            "the TIFF holds only a label, macro or overview image, no slide",
            todo="Use the slide's own file; if this image is the slide, write 0 into the manifest's column image.",
        )


def alike(one: Directory, other: Directory) -> bool:
    """Whether two directories hold samples of the same kind and layout."""
    return (one.samples, one.bits, one.kind, one.orientation, one.depth) == (
        other.samples, other.bits, other.kind, other.orientation, other.depth,
    )  # fmt: skip


def is_reduction(small: Size, large: Size) -> bool:
    """Whether one size is a reduction of the other, allowing for repeated rounding."""
    if small.width >= large.width or small.height >= large.height or small.width < 1 or small.height < 1:
        return False
    expected = large.height * small.width / large.width
    return abs(small.height - expected) <= 2 + 2 * small.height / small.width


def others_note(scene: int, sizes: Sequence[Size], names: Sequence[str]) -> tuple[str, ...]:
    """A note about the images that are not read."""
    if len(sizes) < 2:
        return ()
    rest = [
        f"{index}{f' {name!r}' if name else ''} ({size.width} x {size.height})"
        for index, (size, name) in enumerate(zip(sizes, names, strict=True))
        if index != scene
    ]
    return (
        f"image {scene} of the file is read, {counted(len(rest), 'other')} not: {listed(rest, 4)}; "
        "choose with the column image or #scene=N",
    )


def by_size(levels: Iterable[tuple[Directory, ...]]) -> tuple[tuple[Directory, ...], ...]:
    """Levels finest first, one of each size."""
    found: dict[Size, tuple[Directory, ...]] = {}
    for level in levels:
        found.setdefault(level[0].size, level)
    return tuple(found[size] for size in sorted(found, key=lambda size: -size.width * size.height))
