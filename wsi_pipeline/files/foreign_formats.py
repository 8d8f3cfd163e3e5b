"""Unsupported formats and locations, recognised by name: what each is, and how to convert or reach it."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.system.redaction import redact

_BIO_FORMATS = "Convert it to pyramidal OME-TIFF with QuPath or bfconvert (Bio-Formats)."
_MAKER = "Export it as SVS or tiled TIFF with the vendor's software."

KINDS: dict[str, tuple[str, str]] = {
    ".vsi": ("Olympus/Evident VSI, whose pixels lie in .ets files beside it", _BIO_FORMATS),
    ".ets": ("pixels of an Olympus/Evident VSI slide", _BIO_FORMATS),
    ".oir": ("Olympus OIR", _BIO_FORMATS),
    ".oib": ("Olympus OIB", _BIO_FORMATS),
    ".oif": ("Olympus OIF", _BIO_FORMATS),
    ".isyntax": ("Philips iSyntax", "Convert it with Philips' SDK, libisyntax (isyntax-to-tiff) or isyntax2raw."),
    ".i2syntax": ("Philips iSyntax 2", "Convert it with Philips' SDK."),
    ".kfb": ("KFBio KFB", _MAKER),
    ".kfbf": ("KFBio KFB", _MAKER),
    ".sdpc": ("Sqray SDPC", _MAKER),
    ".dyqx": ("Sqray DYQX", _MAKER),
    ".tmap": ("Unic TMAP", _MAKER),
    ".mds": ("Motic MDS", _MAKER),
    ".mdsx": ("Motic MDSX", _MAKER),
    ".tron": ("InteMedic TRON", _MAKER),
    ".lif": ("Leica LIF", _BIO_FORMATS),
    ".lof": ("Leica LOF", _BIO_FORMATS),
    ".lsm": ("Zeiss LSM", _BIO_FORMATS),
    ".zvi": ("Zeiss ZVI", _BIO_FORMATS),
    ".nd2": ("Nikon ND2", _BIO_FORMATS),
    ".ims": ("Imaris IMS", _BIO_FORMATS),
    ".sld": ("SlideBook SLD", _BIO_FORMATS),
    ".afi": ("Aperio AFI, a list of fluorescence channels", "Only bright-field slides are read."),
    ".ndpis": ("Hamamatsu NDPIS, a list of fluorescence channels", "Only bright-field slides are read."),
    ".jp2": ("plain JPEG 2000", "Convert it to a tiled pyramid TIFF: vips tiffsave in.jp2 out.tif --tile --pyramid."),
    ".dzi": ("Deep Zoom", "Use the slide it was made from."),
    ".zarr": ("OME-Zarr", "Convert it to pyramidal OME-TIFF, for example with raw2ometiff or QuPath."),
    ".zip": ("zip archive", "Unpack it."),
    ".tar": ("tar archive", "Unpack it."),
    ".gz": ("gzip archive", "Unpack it."),
    ".rar": ("rar archive", "Unpack it."),
    ".7z": ("7z archive", "Unpack it."),
}
"""Suffix -> what it is, what to do."""

BY_NAME_ALONE = frozenset({".vsi", ".lsm"})
"""These files are TIFF inside, but a TIFF reader would find only an overview, or fluorescence."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")


def foreign_kind(path: Path) -> tuple[str, str] | None:
    """What a file or folder is, by name, and what to do, if it is of an unsupported kind; else None."""
    name = path.name.lower()
    if name.endswith(".zarr.zip"):
        return KINDS[".zarr"]
    kind = KINDS.get(path.suffix.lower())
    inside = any((path / part).exists() for part in (".zgroup", ".zattrs", "zarr.json")) if kind is None else False
    return KINDS[".zarr"] if inside else kind


def elsewhere(name: str | Path) -> tuple[str, str] | None:
    """What is wrong with a name that is not a path of this machine (a URL, a Windows path), and what to do."""
    text = str(name)
    if _WINDOWS.match(text):
        return f"a Windows path: {text}", "Write the file's path on this machine."
    address = _ADDRESS.match(text)
    if address is None:
        return None
    whole = redact(f"{address[1]}://{text[address.end() :]}")  # pathlib collapses two slashes into one
    if is_address(text):
        return f"a URL, not a file: {whole}", "Only the slides themselves (column path) are read from addresses."
    return f"a URL, not a file: {whole}", "Download or mount it, and write its path, or use s3://, gs:// or https://."


def local_name(name: str) -> str:
    """`file:///a/b.svs` as the path it names; anything else as it is."""
    if not name.lower().startswith("file:/"):
        return name
    rest = name[len("file:") :]
    return unquote(rest[2:] if rest.startswith("///") else rest.removeprefix("//localhost"))


def base_name(name: str) -> str:
    """The last part of a path or URL, also of a Windows path."""
    return PureWindowsPath(name).name if _WINDOWS.match(name) else Path(name).name
