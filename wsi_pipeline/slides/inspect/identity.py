"""A quick digest, from less than 1 MB of a slide, that changes if the file changes."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.files.dicom_header import is_dicom, read_dicom_header
from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.whole_file import NO_RANGES, whole_file
from wsi_pipeline.slides.inspect.sniff import refusal

END_BYTES = 64 << 10
SAMPLES, SAMPLE_BYTES = 16, 16 << 10
_WHOLE_BELOW = 2 * END_BYTES + SAMPLES * SAMPLE_BYTES
STAT_BYTES = 1 << 10
"""Read to learn size and tag of a remote file."""
_NOTE = "digest"
_VERSION = b"wsi-pipeline quick digest 1\0"


def quick_digest(path: Path, *, series: bool = True) -> str:
    """SHA-256 (hex) over size, first and last 64 KiB and 16 samples of 16 KiB at even distances in between.

    For a folder (DICOM) or a MIRAX file with its data folder it covers the names and bytes of all files; for a DICOM
    file also sizes and headers of the other files of its series beside it (not if `series` is false, as in older
    stores). Moving or renaming a slide file does not change its digest. At most 384 KiB of each file are read. The part
    that the path selects (`#scene=1`) is included. Raises SlideError if the path cannot be read.
    """
    file, chosen = split_choice(path)
    if chosen:
        part = "&".join(f"{key}={chosen[key]}" for key in sorted(chosen))
        return hashlib.sha256(
            _VERSION + quick_digest(file, series=series).encode() + part.encode(errors="surrogateescape")
        ).hexdigest()
    if is_address(path):
        return _address_digest(path)
    try:
        files = members(path)
        if files is None:
            own = _file_digest(path)
            others = _others_of_series(path) if series else []
            return hashlib.sha256(_VERSION + "\0".join([own, *others]).encode()).hexdigest() if others else own
        whole = hashlib.sha256(_VERSION)
        for name, member in files:
            whole.update(name.encode(errors="surrogateescape") + b"\0" + _file_digest(member).encode())
        return whole.hexdigest()
    except OSError as error:
        raise refusal(error, path) from error


def same_slide(path: Path, digest: str) -> bool:
    """Whether a slide still has the digest of a store; older stores cover only one file of a DICOM series."""
    return digest == quick_digest(path) or digest == quick_digest(path, series=False)


def size_in_bytes(path: Path) -> int:
    """Bytes of all files of a slide."""
    path = split_choice(path)[0]
    if is_address(path):
        with closing(RemoteFile(path, head=STAT_BYTES)) as file:
            return file.size
    files = members(path)
    return path.stat().st_size if files is None else sum(file.stat().st_size for _, file in files)


def members(path: Path) -> list[tuple[str, Path]] | None:
    """(name, file) of a slide made of several files, sorted by name; None for a single file."""
    if is_address(path):
        return None
    if path.is_dir():
        return _walk(path)
    if path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
        return [("", path), *_walk(path.with_suffix(""))]
    return None


def _walk(folder: Path) -> list[tuple[str, Path]]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted((file.relative_to(folder).as_posix(), file) for file in files)


def _others_of_series(path: Path) -> list[str]:
    """Size and header of each other file of a DICOM file's series in its folder, whatever their names, in order."""
    own = read_dicom_header(path) if is_dicom(path) else None
    if own is None or not own.series:
        return []
    found = []
    for other in path.parent.iterdir():
        if other != path and other.is_file() and (header := read_dicom_header(other)) and header.series == own.series:
            with other.open("rb") as file:
                head = hashlib.sha256(file.read(END_BYTES)).hexdigest()
            found.append(f"{other.stat().st_size} {head}")
    return sorted(found)


def _address_digest(path: Path) -> str:
    """The digest that a copy of the file would have; kept in the cache for this version of it, so read once."""
    with closing(RemoteFile(path, head=STAT_BYTES)) as file:
        if file.version is not None:
            known = file.cache.note(file.version, _NOTE)
            if len(known) == hashlib.sha256().digest_size * 2:
                return known
        if file.ranges:
            parts = file.read_many([(start, start + length) for start, length in _pieces(file.size)])
            digest = hashlib.sha256(_VERSION + f"{file.size}\0".encode() + b"".join(parts)).hexdigest()
        else:
            digest = _file_digest(whole_file(file, NO_RANGES))
        if file.version is not None:
            file.cache.keep_note(file.version, _NOTE, digest)
        return digest


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
