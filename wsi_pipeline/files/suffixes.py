"""The suffixes of slides, and the slide id that remains without one."""

from __future__ import annotations

from pathlib import Path

SLIDE_SUFFIXES = frozenset(
    {
        *(".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ptif", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu"),
        *(".svslide", ".czi", ".qptiff", ".dcm", ".dicom"),
    }
)
"""Files that count as slides when a folder is listed; a file named explicitly may have any suffix."""

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
"""Pictures of regions: slides if named explicitly, not when a folder is listed (thumbnails lie beside slides)."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})


def slide_id_of(path: Path) -> str:
    """The file name without its suffix (`a.ome.tiff` -> `a`); the whole name where the suffix is not a slide's."""
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif", ".ome.btf"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES | PICTURE_SUFFIXES else name
