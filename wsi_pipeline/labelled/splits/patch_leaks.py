"""Leaks: a group, or the same image, on more than one side of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.splits.patch_split import PatchSplit
from wsi_pipeline.wording import listed


@dataclass(frozen=True)
class PatchLeak:
    """A group or image (`what`) on more than one side; `sides` names one of its patches for each part."""

    what: str
    name: str
    sides: dict[str, str]

    def __str__(self) -> str:
        places = ", ".join(f"{part} ({patch})" for part, patch in self.sides.items())
        return f"{self.what} {self.name} in {places}"


def find_leaks(patches: LabelledPatches, split: PatchSplit) -> tuple[PatchLeak, ...]:
    """Groups, then images with equal content, that more than one part of the split holds.

    An image is the file or slide that a patch is cut from: two crops of one image, or of two copies of it, on
    two sides are a leak even if their groups differ.
    """
    divided = _divided(patches.groups, patches, split)
    leaks = [PatchLeak("group", group, sides) for group, sides in divided.items()]
    known = {tuple(leak.sides.values()) for leak in leaks}
    for sides in _divided(patches.contents(), patches, split).values():
        if tuple(sides.values()) not in known:
            leaks.append(PatchLeak("image", next(iter(sides.values())), sides))
    return tuple(leaks)


def check_leaks(patches: LabelledPatches, split: PatchSplit) -> None:
    """Raise LabelError if the split leaks, naming the groups and images on more than one side."""
    leaks = find_leaks(patches, split)
    if leaks:
        raise LabelError(
            f"the split leaks: {len(leaks)} on more than one side: {listed(leaks, separator='; ')}",
            todo="Give copies of an image, and all patches of a patient, the same group and the same split",
        )


def _divided(values: Sequence[str], patches: LabelledPatches, split: PatchSplit) -> dict[str, dict[str, str]]:
    """Value -> part -> the first patch there, for values on more than one side."""
    found: dict[str, dict[str, str]] = {}
    for part, rows in split.parts().items():
        for row in rows.tolist():
            found.setdefault(values[row], {}).setdefault(part, patches.names[row])
    return {value: sides for value, sides in found.items() if len(sides) > 1}
