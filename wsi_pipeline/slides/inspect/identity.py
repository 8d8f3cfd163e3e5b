"""A quick digest, from less than 1 MB of a slide, that changes if the file changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.slides.inspect.sniff import refusal

END_BYTES = 64 << 10
SAMPLES, SAMPLE_BYTES = 16, 16 << 10
_WHOLE_BELOW = 2 * END_BYTES + SAMPLES * SAMPLE_BYTES
_VERSION = b"wsi-pipeline quick digest 1\0"


def quick_digest(path: Path) -> str:
    """SHA-256 (hex) over size, first and last 64 KiB and 16 samples of 16 KiB at even distances in between.

    For a folder (DICOM) or a MIRAX file with its data folder it covers the names and bytes of all files.
    Moving or renaming a slide file does not change its digest. At most 384 KiB of each file are read. The part that the
    path selects (`#scene=1`) is included. Raises SlideError if the path cannot be read.
    """
    file, chosen = split_choice(path)
    if chosen:
        part = "&".join(f"{key}={chosen[key]}" for key in sorted(chosen))
        return hashlib.sha256(
            _VERSION + quick_digest(file).encode() + part.encode(errors="surrogateescape")
        ).hexdigest()
    try:
        files = members(path)
        if files is None:
            return _file_digest(path)
        whole = hashlib.sha256(_VERSION)
        for name, member in files:
            whole.update(name.encode(errors="surrogateescape") + b"\0" + _file_digest(member).encode())
        return whole.hexdigest()
    except OSError as error:
        raise refusal(error, path) from error


def size_in_bytes(path: Path) -> int:
    """Bytes of all files of a slide."""
    path = split_choice(path)[0]
    files = members(path)
    return path.stat().st_size if files is None else sum(file.stat().st_size for _, file in files)


def members(path: Path) -> list[tuple[str, Path]] | None:
    """(name, file) of a slide made of several files, sorted by name; None for a single file."""
    if path.is_dir():
        return _walk(path)
    if path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
        return [("", path), *_walk(path.with_suffix(""))]
    return None


def _walk(folder: Path) -> list[tuple[str, Path]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted((file.relative_to(folder).as_posix(), file) for file in files)


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256(_VERSION)
    with path.open("rb") as file:
        size = path.stat().st_size
        digest.update(f"{size}\0".encode())
        for start, length in _pieces(size):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()


def _pieces(size: int) -> list[tuple[int, int]]:
    """(start, length) of the parts read from a file of `size` bytes."""
    if size <= _WHOLE_BELOW:
        return [(0, size)]
    room = size - 2 * END_BYTES - SAMPLE_BYTES
    between = [(END_BYTES + room * index // (SAMPLES - 1), SAMPLE_BYTES) for index in range(SAMPLES)]
    return [(0, END_BYTES), *between, (size - END_BYTES, END_BYTES)]
