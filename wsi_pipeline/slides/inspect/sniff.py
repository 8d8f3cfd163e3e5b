"""What a path is, by its content: TIFF, DICOM, MIRAX, another format OpenSlide knows, or not a slide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.dicom_header import is_dicom, read_dicom_header
from wsi_pipeline.files.foreign_formats import BY_NAME_ALONE, elsewhere, foreign_kind
from wsi_pipeline.slides.inspect.vendor import vendor_of
from wsi_pipeline.slides.tiff.tiff_check import TIFF_MAGIC, check_complete

PICTURE_MAGIC = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}

Kind = Literal["tiff", "dicom", "mirax", "picture", "other"]
_DICOM_MAGIC, _DICOM_PREAMBLE = b"DICM", 128
_PICTURES = {b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP"}


@dataclass(frozen=True)
class Sniffed:
    """A file that may be a slide.

    kind     TIFF, DICOM, MIRAX, picture or other
    path     the file to open (for a DICOM folder: one file of its series)
    vendor   the format that OpenSlide detects, or None
    """

    kind: Kind
    path: Path
    vendor: str | None


def sniff(path: Path) -> Sniffed:
    """Find out what `path` is. Raises SlideError in one sentence if it cannot be a slide."""
    try:
        kind = foreign_kind(path) if path.exists() else None
        if path.is_dir():
            return _sniff_folder(path, kind)
        header = _header(path)
        if kind and (path.suffix.lower() in BY_NAME_ALONE or header[:4] not in TIFF_MAGIC):
            raise SlideError(f"{kind[0]} is not supported", todo=kind[1])
        if header[_DICOM_PREAMBLE:] == _DICOM_MAGIC:
            return Sniffed("dicom", path, vendor_of(path))
        if path.suffix.lower() == ".mrxs":
            return _sniff_mirax(path)
        vendor = vendor_of(path)
        if header[:4] in TIFF_MAGIC:
            if vendor != "hamamatsu":  # NDPI keeps 64-bit offsets in classic TIFF, which the check cannot follow
                check_complete(path)
            return Sniffed("tiff", path, vendor)
    except OSError as error:
        raise refusal(error, path) from error
    if vendor is None and header.startswith(tuple(PICTURE_MAGIC)):
        return Sniffed("picture", path, None)
    if vendor is None:
        raise _not_a_slide(header)
    return Sniffed("other", path, vendor)


def refusal(error: OSError, path: Path) -> SlideError:
    """A SlideError for what the file system reports."""
    if isinstance(error, PermissionError):
        return SlideError(f"permission denied: {path}", todo="Make the file readable (chmod u+r) or ask its owner.")
    if isinstance(error, FileNotFoundError) and (problem := elsewhere(path)):
        return SlideError(problem[0], todo=problem[1])
    if isinstance(error, FileNotFoundError):
        kind = "link to a missing file" if path.is_symlink() else "file not found"
        return SlideError(f"{kind}: {path}", todo="Check the path of this slide in the CSV.")
    return SlideError(f"{error.strerror or error}: {path}", todo="Check the disk or the network share.")


def _header(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise SlideError(f"neither a file nor a folder: {path}", todo="Check the path of this slide in the CSV.")
    with path.open("rb") as file:
        header = file.read(_DICOM_PREAMBLE + len(_DICOM_MAGIC))
    if not header:
        raise SlideError(f"empty file: {path}", todo="Copy the file again from its source.")
    return header


def _not_a_slide(header: bytes) -> SlideError:
    picture = next((name for magic, name in _PICTURES.items() if header.startswith(magic)), None)
    if picture:
        return SlideError(
            f"not a slide: a {picture} picture (header {header[:4]!r}) is not TIFF, DICOM or MIRAX",
            todo="Convert it to PNG or TIFF, or leave it out.",
        )
    return SlideError(
        f"not a slide: header {header[:4]!r} is not TIFF, DICOM or MIRAX",
        todo="Check that the path names the slide itself and that the copy is complete.",
    )


def _sniff_mirax(path: Path) -> Sniffed:
    folder = path.with_suffix("")
    if not (folder / "Slidedat.ini").is_file():
        raise SlideError(
            f"MIRAX slide without its data folder: {folder.name}/Slidedat.ini is missing",
            todo=f"Copy the folder {folder.name}/ next to {path.name}.",
        )
    return Sniffed("mirax", path, vendor_of(path))


def _sniff_folder(folder: Path, kind: tuple[str, str] | None) -> Sniffed:
    """The DICOM series of a folder, by one of its files; `kind` is set if the name belongs to another format."""
    if kind:
        raise SlideError(f"{kind[0]} is not supported", todo=kind[1])
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path)]
    if not files:
        hint = "Use the .mrxs file next to it." if (folder / "Slidedat.ini").is_file() else "Use the slide file itself."
        raise SlideError(f"the folder holds no DICOM files: {folder}", todo=hint)
    vendors = ((path, vendor_of(path)) for path in files)
    path, vendor = next((found for found in vendors if found[1] == "dicom"), (files[0], None))
    return Sniffed("dicom", path, vendor)


def other_series(folder: Path, series_uid: str) -> list[Path]:
    """Whole-slide DICOM files of a folder that belong to series other than `series_uid`, hence to other slides."""
    headers = ((path, read_dicom_header(path)) for path in sorted(folder.iterdir()) if path.is_file())
    return [path for path, header in headers if header and header.is_slide and header.series != series_uid]


def pyramids_of(path: Path, series_uid: str) -> int:
    """Number of pyramids in one series, as stated by the files beside `path`; 1 if they state none."""
    headers = (read_dicom_header(item) for item in path.parent.iterdir() if item.is_file() and is_dicom(item))
    found = {header.pyramid for header in headers if header and header.series == series_uid and header.is_level}
    return max(1, len(found - {""}))
