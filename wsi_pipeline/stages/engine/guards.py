"""Checks that several stages share: the slide has not changed, and it has only one store of each kind."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import STORE_SUFFIXES
from wsi_pipeline.errors import SlideError
from wsi_pipeline.files.addresses import address_name
from wsi_pipeline.slides.inspect.identity import quick_digest, same_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.slides.spacing import Spacing
from wsi_pipeline.store.schema import SlideIdentity
from wsi_pipeline.system.atomic import remove


def check_unchanged(path: Path, identity: SlideIdentity) -> None:
    """Raise SlideError if the slide file has changed since its mask was computed. Call after reading pixels."""
    if not same_slide(path, identity.quick_digest):
        raise SlideError(
            f"{path} was replaced or changed since its tissue detection began",
            slide=identity.slide_id,
            todo="Run again: wsi-pipeline tile slides.csv",
        )


def drop_other_format(path: Path) -> None:
    """Remove the slide's store in the other format (HDF5 or Zarr), so that only `path` is left."""
    for suffix in STORE_SUFFIXES.values():
        if suffix != path.suffix:
            remove(path.with_suffix(suffix))


def identity_of(record: SlideRecord, slide: Slide, spacing: Spacing | None) -> SlideIdentity:
    """Identity of an open slide's image; its mpp is 0, meaning unknown, if `spacing` is None."""
    info = slide.info
    return SlideIdentity(
        slide_id=record.slide_id,
        file_name=address_name(record.path),
        width=info.size.width,
        height=info.size.height,
        vendor=info.vendor,
        backend=info.backend,
        objective=info.objective,
        own_mpp=info.mpp,
        mpp=float(spacing.mpp) if spacing else 0.0,
        mpp_source=spacing.source if spacing else "not known",
        quick_digest=quick_digest(record.path),
    )
