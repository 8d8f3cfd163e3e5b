"""Every name and version in our files, for code; `docs/format.md` documents them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from wsi_pipeline.errors import StoreError
from wsi_pipeline.geometry import Size
from wsi_pipeline.version import __version__

VERSION = 2
"""The version written. Version 1 lacks our checksums and the seal but is otherwise equal, and can be read."""
READABLE_VERSIONS = (1, 2)
RESULT_VERSION = 1
"""Part of every digest: raised when equal settings give other content, so that stores are rebuilt."""
SEGMENT_FORMAT = "wsi-pipeline/segment"
PATCH_FORMAT = "wsi-pipeline/patches"
FEATURE_FORMAT = "wsi-pipeline/features"
CLASS_FORMAT = "wsi-pipeline/classes"

MASK, THUMBNAIL, ARTEFACTS = "mask", "thumbnail", "artefacts"
COORDS, COVERAGE, LABELS, JPEG, IMAGES, FEATURES = "coords", "coverage", "labels", "jpeg", "images", "features"
QUALITY, DROPPED = "quality", "dropped"

PROBABILITIES = "probabilities"

NETWORKS = "networks"
"""Key of a header's `specs`: the networks with weights of the user's own that found tissue and artefacts."""

IMPORTED = "imported"
"""Key of a header's `extra`: the tool that made the rows, if they were imported."""

ROWS_PER_CHUNK = 4096
"""Rows of coords, coverage and probabilities in one chunk."""

POOLED = "pooled"
"""Key of a header's `extra` if its one row is a whole slide: `encoder`, folder of the features, and `patches`."""

FEATURE_BYTES_PER_CHUNK = 1 << 19
"""About how large a chunk of features is: small enough to read a few rows, large enough to stream."""


@dataclass(frozen=True)
class SlideIdentity:
    """Which image a store belongs to, and what its pixels measure.

    width, height   level-0 pixels
    own_mpp         micrometres per pixel as the file states it, or None
    mpp             as used; mpp_source says where it came from: slide, manifest or default
    quick_digest    hash of the file's size and samples of its bytes
    """

    slide_id: str
    file_name: str
    width: int
    height: int
    vendor: str
    backend: str
    objective: float | None
    own_mpp: float | None
    mpp: float
    mpp_source: str
    quick_digest: str

    @property
    def size(self) -> Size:
        """Level-0 size."""
        return Size(self.width, self.height)

    def digest_parts(self) -> dict[str, Any]:
        """The values that determine the pixels: the bytes and the resolution, not the name or the reader."""
        return {"quick_digest": self.quick_digest, "mpp": self.mpp}


@dataclass(frozen=True)
class Header:
    """Root attributes that every store has, besides those of its own stage."""

    format: str
    digest: str
    parent_digest: str
    slide: SlideIdentity
    specs: dict[str, dict[str, Any]]
    extra: dict[str, Any]

    def attrs(self) -> dict[str, Any]:
        """As HDF5/Zarr attributes: plain strings and numbers, nested things as JSON text."""
        return {
            "format": self.format,
            "version": VERSION,
            "writer": f"wsi-pipeline {__version__}",
            "digest": self.digest,
            "parent_digest": self.parent_digest,
            "slide": json.dumps(asdict(self.slide), sort_keys=True),
            "specs": json.dumps(self.specs, sort_keys=True),
            "extra": json.dumps(self.extra, sort_keys=True),
        }

    @classmethod
    def parse(cls, attrs: dict[str, Any], wanted: str, path: object) -> Header:
        """Read back; raises StoreError for another format, a newer version, or attributes that do not parse."""
        if attrs.get("format") != wanted:
            kind = {FEATURE_FORMAT: "features", PATCH_FORMAT: "patches"}.get(wanted)
            foreign = kind is not None and attrs.get("format") is None
            raise StoreError(
                f"{path} is not a {wanted} store: its format attribute is {attrs.get('format')!r}",
                todo=f"Import a file of another tool with: wsi-pipeline import {kind}" if foreign else None,
            )
        if attrs.get("version") not in READABLE_VERSIONS:
            readable = " and ".join(str(version) for version in READABLE_VERSIONS)
            raise StoreError(
                f"{path} has format version {attrs.get('version')}, this program reads versions {readable}",
                todo="Recreate it, or use the wsi-pipeline version that wrote it",
            )
        try:
            known = {field.name for field in fields(SlideIdentity)}  # a later writer may add to it
            slide_facts, specs, extra = (_mapping(attrs, name) for name in ("slide", "specs", "extra"))
            slide = SlideIdentity(**{key: value for key, value in slide_facts.items() if key in known})
            return cls(wanted, str(attrs["digest"]), str(attrs["parent_digest"]), slide, specs, extra)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}: damaged attributes ({error})", todo="Remove the file and run again") from None


def _mapping(attrs: dict[str, Any], name: str) -> dict[str, Any]:
    found = json.loads(attrs[name])
    if not isinstance(found, dict):
        raise ValueError(f"{name} is not a JSON object")
    return found
