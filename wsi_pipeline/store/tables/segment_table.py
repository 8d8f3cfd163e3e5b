"""The segment store: the tissue mask of one slide and a small picture of it, enough to draw without the slide."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.schema import ARTEFACTS, MASK, SEGMENT_FORMAT, THUMBNAIL, Header
from wsi_pipeline.store.store import ArraySpec
from wsi_pipeline.tissue.mask import TissueMask

THUMBNAIL_LEAST_PX, THUMBNAIL_PX = 1000, 1200
"""Range for the longest side of the stored thumbnail, pixels: the size of a pyramid level in it, else the maximum."""


@dataclass(frozen=True, eq=False)
class SegmentTable:
    """A whole segment store: the mask, the thumbnail uint8 (h, w, 3), and a warning ("" if none).

    artefacts   kind of artefact of each mask pixel, uint8 (h, w), 0 for none; None if none were sought
    """

    header: Header
    mask: TissueMask
    thumbnail: NDArray[np.uint8]
    warning: str
    artefacts: NDArray[np.uint8] | None = None


def write_segment(
    path: Path,
    header: Header,
    mask: TissueMask,
    thumbnail: NDArray[np.uint8],
    artefacts: NDArray[np.uint8] | None = None,
) -> None:
    """Write a segment store at `path`, atomically; `header.extra` carries the warning."""
    jpeg = io.BytesIO()
    Image.fromarray(thumbnail).save(jpeg, "JPEG", quality=88)
    data = np.frombuffer(jpeg.getvalue(), np.uint8)
    with create_store(path) as writer:
        rows = max(1, (1 << 20) // mask.pixels.shape[1])
        writer.create(ArraySpec(MASK, mask.pixels.shape, "uint8", rows, compress=True))
        writer.write(MASK, 0, mask.pixels.astype(np.uint8))
        if artefacts is not None:
            writer.create(ArraySpec(ARTEFACTS, artefacts.shape, "uint8", rows, compress=True))
            writer.write(ARTEFACTS, 0, artefacts)
        writer.create(ArraySpec(THUMBNAIL, data.shape, "uint8", len(data)))
        writer.write(THUMBNAIL, 0, data)
        writer.set_attrs(header.attrs())


def read_segment_table(path: str | PathLike[str]) -> SegmentTable:
    """Read a segment store. Raises StoreError if it is not a segment store or is damaged."""
    path = Path(path)
    with closing(open_store(path)) as store:
        header = Header.parse(store.attrs, SEGMENT_FORMAT, path)
        pixels = store.read(MASK).astype(np.bool_)
        artefacts = store.read(ARTEFACTS) if ARTEFACTS in store.names() else None
        thumbnail = np.asarray(Image.open(io.BytesIO(store.read(THUMBNAIL).tobytes())).convert("RGB"))
    mask = TissueMask(pixels, header.slide.size, header.slide.mpp)
    return SegmentTable(header, mask, thumbnail, str(header.extra.get("warning", "")), artefacts)
