"""Match slide ids of a table to file names, with or without suffixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wsi_pipeline.files.suffixes import PICTURE_SUFFIXES, SLIDE_SUFFIXES

_SUFFIXES = (
    *(".ome.tiff", ".ome.tif", ".ome.btf", ".ome.zarr"),
    *sorted(SLIDE_SUFFIXES | PICTURE_SUFFIXES),
    *(".h5", ".hdf5", ".npy", ".npz", ".pt", ".pth", ".safetensors", ".zarr", ".isyntax", ".vsi"),
)


@dataclass(frozen=True)
class Matches:
    """The result of matching ids of a table to names of files.

    names       id -> name of its file
    without     ids without a file, in order
    left        names without an id, in order
    """

    names: dict[str, str]
    without: tuple[str, ...]
    left: tuple[str, ...]


def match_names(ids: Sequence[str], names: Iterable[str]) -> Matches:
    """Match ids and names: exactly, then without suffixes, ignoring case, then up to the first dot.

    The last rule is for TCGA, whose file names end in a dot and a UUID. A looser rule applies only to what stricter
    rules have left unmatched, and only if it is unambiguous.
    """
    waiting, free = list(dict.fromkeys(ids)), list(dict.fromkeys(names))
    found: dict[str, str] = {}
    for rule in (str, without_suffixes, _plain, _first_part):
        made = _matched(waiting, free, rule)
        found |= made
        used = set(made.values())
        waiting = [one for one in waiting if one not in made]
        free = [one for one in free if one not in used]
    return Matches({one: found[one] for one in ids if one in found}, tuple(waiting), tuple(free))


def without_suffixes(name: str) -> str:
    """`s1.ome.tiff.h5` -> `s1`."""
    while suffix := next((end for end in _SUFFIXES if name.lower().endswith(end) and len(name) > len(end)), None):
        name = name[: -len(suffix)]
    return name


def _plain(name: str) -> str:
    return without_suffixes(name).casefold().strip()


def _first_part(name: str) -> str:
    return _plain(name).partition(".")[0]


def _matched(ids: Sequence[str], names: Sequence[str], rule: Callable[[str], str]) -> dict[str, str]:
    of_ids, of_names = (Counter(rule(one) for one in part) for part in (ids, names))
    by_key = {rule(name): name for name in names}
    return {one: by_key[key] for one in ids if (key := rule(one)) in by_key and of_ids[key] == 1 and of_names[key] == 1}
