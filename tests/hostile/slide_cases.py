"""Ways to spoil a slide that our guards have to notice, each seeded: cut, past the end, empty, another size, names.

Each is the mildest of its kind, and none is known to harm a program that reads slides without such guards. A spoiler
takes the bytes of a sound file, its layout and a random generator, and returns the spoilt bytes. What is no change of
bytes (suffixes, folders) makes its path itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import tiff_parts
from tests.hostile.tiff_parts import Entry, Layout, layout_of

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLACES = 50
"""A file is cut at this many places."""


@dataclass(frozen=True)
class Case:
    """One spoilt slide: what is done (`kind`) to which sound file, with which seed."""

    kind: str
    base: Path
    seed: int

    @property
    def name(self) -> str:
        """A plain name for files and tables."""
        return f"{self.kind}-{self.base.stem}-{self.seed}".replace(" ", "-")[:140]


Spoil = Callable[[bytearray, Layout, random.Random], bytes]


def _truncate(raw: bytearray, rng: random.Random, seed: int) -> bytes:
    return bytes(raw[: len(raw) * (seed % PLACES + 1) // (PLACES + 1)])


def _set_values(raw: bytearray, layout: Layout, entry: Entry, values: dict[int, int]) -> None:
    for index, value in values.items():
        place = entry.values_at + index * entry.width
        raw[place : place + entry.width] = value.to_bytes(entry.width, "little" if layout.order == "<" else "big")


def _numbers(raw: bytearray, layout: Layout, entry: Entry) -> list[int]:
    order, at, width = "little" if layout.order == "<" else "big", entry.values_at, entry.width
    return [int.from_bytes(raw[at + k * width : at + (k + 1) * width], order) for k in range(entry.count)]  # type: ignore[arg-type]


def _some(entry: Entry, rng: random.Random) -> list[int]:
    """Numbers of one value, of half of them, or of all."""
    size = rng.choice([1, max(1, entry.count // 2), entry.count])
    return rng.sample(range(entry.count), size)


def _beyond(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Tiles that begin a little past the end of the file."""
    entry = rng.choice([item for item in layout.of(*tiff_parts.OFFSETS) if item.width >= 4])
    _set_values(raw, layout, entry, dict.fromkeys(_some(entry, rng), len(raw) + rng.randrange(1, 1000)))
    return bytes(raw)


def _cut_tile(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """A tile or strip that begins inside the file and ends a little past its end."""
    number = rng.randrange(len(layout.of(*tiff_parts.OFFSETS)))
    offsets, counts = layout.of(*tiff_parts.OFFSETS)[number], layout.of(*tiff_parts.COUNTS)[number]
    lengths = _numbers(raw, layout, counts)
    longest = lengths.index(max(lengths))
    _set_values(raw, layout, offsets, {longest: len(raw) - lengths[longest] + rng.randrange(1, lengths[longest])})
    return bytes(raw)


def _no_data(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Tiles or strips of length 0: one of an image, half of them, or all."""
    entry = rng.choice(layout.of(*tiff_parts.COUNTS))
    _set_values(raw, layout, entry, dict.fromkeys(_some(entry, rng), 0))
    return bytes(raw)


def _another_size(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """An image that says it is one tile wider, or higher, than its tiles are."""
    tag, step = rng.choice([(tiff_parts.WIDTH, tiff_parts.TILE_WIDTH), (tiff_parts.HEIGHT, tiff_parts.TILE_HEIGHT)])
    entry, steps = rng.choice(layout.of(tag)), layout.of(step)
    more = _numbers(raw, layout, steps[0])[0] if steps else 16
    _set_values(raw, layout, entry, {0: _numbers(raw, layout, entry)[0] + more})
    return bytes(raw)


def _blanked(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """The data of one tile or strip overwritten by 0xFF, which no codestream begins with."""
    start, length = rng.choice(layout.data)
    raw[start : start + length] = b"\xff" * length
    return bytes(raw)


def _odd_text(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Numbers that are none in the description of an Aperio or OME file, of the same length."""
    texts = layout.of(tiff_parts.DESCRIPTION)
    if not texts:
        return _no_data(raw, layout, rng)
    entry = rng.choice(texts)
    text = bytes(raw[entry.values_at : entry.values_at + entry.count])
    odd = rng.choice([b"nan", b"-1", b"0", b"x", b"1,5"])
    for start in (b"MPP = ", b'PhysicalSizeX="', b"AppMag = "):
        at = text.find(start)
        if at >= 0:
            text = (text[: at + len(start)] + odd + text[at + len(start) + len(odd) :])[: entry.count]
    raw[entry.values_at : entry.values_at + entry.count] = text.ljust(entry.count, b"\0")
    return bytes(raw)


TIFF_SPOILERS: dict[str, Spoil] = {
    "tiles past the end": _beyond,
    "tile that ends past the end": _cut_tile,
    "tiles without data": _no_data,
    "another size than the tiles": _another_size,
    "overwritten tile": _blanked,
    "odd numbers in texts": _odd_text,
}


def _names_and_folders(case: Case, raw: bytes, folder: Path, rng: random.Random) -> Path:
    """Wrong suffixes, empty files, folders, texts."""
    what = ("suffix", "empty", "folder", "full folder", "text", "appended")[case.seed % 6]
    suffix = rng.choice([".svs", ".tif", ".jpg", ".dcm", ".mrxs", ".ndpi", ".txt", ".h5", "", ".scn", ".vms", ".czi"])
    path = folder / f"{case.name}{suffix}"
    if what in ("folder", "full folder"):
        path.mkdir()
        if what == "full folder":
            (path / f"inside{case.base.suffix}").write_bytes(raw)
        return path
    content = {"suffix": raw, "empty": b"", "text": b"no slide at all\n" * 100, "appended": raw + bytes(100)}[what]
    path.write_bytes(content)
    return path


def make(case: Case, folder: Path) -> Path:
    """Write the spoilt slide of a case into `folder`."""
    rng = random.Random(f"{case.kind} {case.base.name} {case.seed}")
    raw = bytearray(case.base.read_bytes())
    if case.kind == "names and folders":
        return _names_and_folders(case, bytes(raw), folder, rng)
    if case.kind == "truncated":
        spoilt = _truncate(raw, rng, case.seed)
    elif case.kind == "sound":
        spoilt = bytes(raw)
    else:
        spoilt = TIFF_SPOILERS[case.kind](raw, layout_of(case.base), rng)
    path = folder / f"{case.name}{''.join(case.base.suffixes[-2:]) if '.ome' in case.base.name else case.base.suffix}"
    path.write_bytes(spoilt)
    return path


def kinds_for(base: Path) -> tuple[str, ...]:
    """What can be done to a base."""
    with base.open("rb") as file:
        is_tiff = file.read(4) in TIFF_MAGIC
    return ("truncated", *(TIFF_SPOILERS if is_tiff else ()), "names and folders")


def cases(bases: list[Path], seeds: int) -> Iterator[Case]:
    """All kinds on all bases with seeds 0 to `seeds` - 1; truncation at places spread over the file."""
    for base in bases:
        for kind in kinds_for(base):
            for seed in range(seeds):
                spread = seed * PLACES // seeds if kind == "truncated" and seeds < PLACES else seed
                yield Case(kind, base, spread)
