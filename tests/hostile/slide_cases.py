"""Ways to spoil a slide, each seeded: truncation, offsets, lengths, bytes, sizes, cycles, names, folders, DICOM parts.

A spoiler takes the bytes of a sound file, its layout and a random generator, and returns the spoilt bytes. What is no
change of bytes (suffixes, folders) makes its path itself.
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


def _flip(raw: bytearray, places: list[int], rng: random.Random, most: int) -> bytes:
    for _ in range(rng.randint(1, most)):
        raw[rng.choice(places)] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _flip_data(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    start, length = rng.choice(layout.data)
    return _flip(raw, list(range(start, start + length)), rng, 64)


def _flip_header(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    return _flip(raw, _header_bytes(raw, layout), rng, 6)


def _header_bytes(raw: bytearray, layout: Layout) -> list[int]:
    """Places of the file header, the directories and the values of their tags."""
    spans = [(0, 16 if layout.big else 8)]
    spans += [(entry.entry_at, 20 if layout.big else 12) for entry in layout.entries]
    spans += [(entry.values_at, min(entry.count * entry.width, 64)) for entry in layout.entries]
    spans += [(at, layout.link_bytes) for at in layout.next_at]
    return [place for start, length in spans for place in range(start, start + length) if place < len(raw)]


def _set_values(raw: bytearray, layout: Layout, entry: Entry, values: dict[int, int]) -> None:
    for index, value in values.items():
        place = entry.values_at + index * entry.width
        value %= 1 << 8 * entry.width
        raw[place : place + entry.width] = value.to_bytes(entry.width, "little" if layout.order == "<" else "big")


def _some(entry: Entry, rng: random.Random) -> list[int]:
    """Numbers of one value, of half of them, or of all."""
    size = rng.choice([1, max(1, entry.count // 2), entry.count])
    return rng.sample(range(entry.count), size)


def _beyond(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    entry = rng.choice(layout.of(*tiff_parts.OFFSETS))
    far = rng.choice([len(raw) - 1, len(raw) + rng.randrange(1, 10**6), (1 << 8 * entry.width) - rng.randrange(1, 99)])
    _set_values(raw, layout, entry, dict.fromkeys(_some(entry, rng), far))
    return bytes(raw)


def _zero_length(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    entry = rng.choice(layout.of(*rng.choice([tiff_parts.COUNTS, tiff_parts.COUNTS, tiff_parts.OFFSETS])))
    _set_values(raw, layout, entry, dict.fromkeys(_some(entry, rng), rng.choice([0, 0, 1, 3])))
    return bytes(raw)


def _wrong_length(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    entry = rng.choice(layout.of(*tiff_parts.COUNTS))
    lengths = {k: rng.randrange(1, 1 << rng.randint(2, 30)) for k in _some(entry, rng)}
    _set_values(raw, layout, entry, lengths)
    return bytes(raw)


def _huge(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    tags = (tiff_parts.WIDTH, tiff_parts.HEIGHT, tiff_parts.TILE_WIDTH, tiff_parts.TILE_HEIGHT)
    for tag in rng.sample(tags, rng.randint(1, 3)):
        for entry in layout.of(tag)[: rng.choice([1, 99])]:
            _set_values(raw, layout, entry, {0: rng.choice([0, 1, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1])})
    return bytes(raw)


def _cycle(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    subs = layout.of(tiff_parts.SUB_IFDS)
    target = rng.choice([*layout.directories, rng.randrange(len(raw)), 8, 0, 4])
    order = "little" if layout.order == "<" else "big"
    if subs and rng.random() < 0.5:
        _set_values(raw, layout, rng.choice(subs), {0: rng.choice(layout.directories)})
    else:
        place = rng.choice(layout.next_at)
        raw[place : place + layout.link_bytes] = target.to_bytes(layout.link_bytes, order)
    return bytes(raw)


def _wrong_tag(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Another type, count or value in one or two entries of a directory."""
    order = "little" if layout.order == "<" else "big"
    for _ in range(rng.randint(1, 2)):
        entry = rng.choice(layout.entries)
        part = rng.choice(["type", "count", "value"])
        if part == "type":
            raw[entry.entry_at + 2 : entry.entry_at + 4] = rng.randrange(0, 20).to_bytes(2, order)
        else:
            width = layout.link_bytes
            place = entry.entry_at + 4 + (0 if part == "count" else width)
            value = rng.choice([0, 1, 2, 255, 65536, 10**8, (1 << 8 * width) - 1, rng.randrange(1 << 8 * width)])
            raw[place : place + width] = value.to_bytes(width, order)
    return bytes(raw)


def _odd_scheme(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Another compression, colour model, bit depth or number of samples than the data has."""
    tags = (tiff_parts.COMPRESSION, tiff_parts.PHOTOMETRIC, tiff_parts.BITS, tiff_parts.SAMPLES)
    for entry in layout.of(rng.choice(tags)):
        codes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 33003, 33005, 34712, 34887, 50000, 50001, 52479, 65000]
        _set_values(raw, layout, entry, dict.fromkeys(range(entry.count), rng.choice(codes)))
    return bytes(raw)


def _odd_text(raw: bytearray, layout: Layout, rng: random.Random) -> bytes:
    """Numbers that are none in the description of an Aperio or OME file, of the same length."""
    texts = layout.of(tiff_parts.DESCRIPTION)
    if not texts:
        return _flip_header(raw, layout, rng)
    entry = rng.choice(texts)
    text = bytes(raw[entry.values_at : entry.values_at + entry.count])
    odd = rng.choice([b"nan", b"-1", b"1e999", b"0", b"\xff\xfe", b"&xxe;", b"<" * 8, b"9" * 40, b"\0"])
    for start in (b"MPP = ", b'PhysicalSizeX="', b"AppMag = ", b'SizeX="', b"[0,0 "):
        at = text.find(start)
        if at >= 0 and rng.random() < 0.7:
            text = (text[: at + len(start)] + odd + text[at + len(start) + len(odd) :])[: entry.count]
    raw[entry.values_at : entry.values_at + entry.count] = text.ljust(entry.count, b"\0")
    return bytes(raw)


TIFF_SPOILERS: dict[str, Spoil] = {
    "tile offsets beyond the end": _beyond,
    "zero-length tiles": _zero_length,
    "wrong lengths": _wrong_length,
    "flipped bytes in pixel data": _flip_data,
    "flipped bytes in headers": _flip_header,
    "huge declared sizes": _huge,
    "cyclic directories": _cycle,
    "wrong types and counts": _wrong_tag,
    "other codec than declared": _odd_scheme,
    "odd numbers in texts": _odd_text,
}


def _dicom_flip(raw: bytearray, rng: random.Random) -> bytes:
    return _flip(raw, list(range(128, min(len(raw), 20_000))), rng, 6)


def _dicom_without(raw: bytearray, rng: random.Random) -> bytes:
    """One or two elements cut out of the first kilobytes, or the pixel data renamed to a private element."""
    if rng.random() < 0.2:
        return bytes(raw).replace(b"\xe0\x7f\x10\x00", b"\xe1\x7f\x10\x00")
    for _ in range(rng.randint(1, 2)):
        start = rng.randrange(132, min(len(raw), 8000))
        del raw[start : start + rng.choice([8, 12, 16, 32, 128])]
    return bytes(raw)


DICOM_SPOILERS: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "DICOM with flipped bytes": _dicom_flip,
    "DICOM with missing parts": _dicom_without,
}


def _names_and_folders(case: Case, raw: bytes, folder: Path, rng: random.Random) -> Path:
    """Wrong suffixes, empty files, folders, bytes of nothing."""
    what = ("suffix", "empty", "folder", "full folder", "noise", "magic", "appended", "prefixed")[case.seed % 8]
    suffix = rng.choice([".svs", ".tif", ".jpg", ".dcm", ".mrxs", ".ndpi", ".txt", ".h5", "", ".scn", ".vms", ".czi"])
    path = folder / f"{case.name}{suffix}"
    if what in ("folder", "full folder"):
        path.mkdir()
        if what == "full folder":
            (path / f"inside{case.base.suffix}").write_bytes(raw[: rng.choice([0, 200, len(raw)])])
        return path
    noise = rng.randbytes(rng.randrange(1, 4000))
    content = {
        "suffix": raw,
        "empty": b"",
        "noise": noise,
        "magic": rng.choice([*TIFF_MAGIC, b"\xff\xd8\xff\xe0", bytes(128) + b"DICM"]) + noise,
        "appended": raw + noise,
        "prefixed": noise + raw,
    }[what]
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
    elif case.kind in DICOM_SPOILERS:
        spoilt = DICOM_SPOILERS[case.kind](raw, rng)
    else:
        spoilt = TIFF_SPOILERS[case.kind](raw, layout_of(case.base), rng)
    path = folder / f"{case.name}{''.join(case.base.suffixes[-2:]) if '.ome' in case.base.name else case.base.suffix}"
    path.write_bytes(spoilt)
    return path


def kinds_for(base: Path) -> tuple[str, ...]:
    """What can be done to a base."""
    with base.open("rb") as file:
        is_tiff = file.read(4) in TIFF_MAGIC
    return ("truncated", *(TIFF_SPOILERS if is_tiff else DICOM_SPOILERS), "names and folders")


def cases(bases: list[Path], seeds: int) -> Iterator[Case]:
    """All kinds on all bases with seeds 0 to `seeds` - 1; truncation at places spread over the file."""
    for base in bases:
        for kind in kinds_for(base):
            for seed in range(seeds):
                spread = seed * PLACES // seeds if kind == "truncated" and seeds < PLACES else seed
                yield Case(kind, base, spread)
