"""Stage `segment`: detects tissue. Writes the mask, its contours for QuPath, and an overlay picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.config.registries import TISSUE_METHODS, TISSUE_NETWORKS
from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.errors import MissingSlideError, UsageError, WsiPipelineError
from wsi_pipeline.files.addresses import is_address, may_exist
from wsi_pipeline.files.dicom_header import is_dicom
from wsi_pipeline.files.path_choices import split_choice
from wsi_pipeline.report.maps.overlays import write_overlay
from wsi_pipeline.slides.inspect.identity import members, quick_digest, same_slide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide, SlideInfo
from wsi_pipeline.slides.spacing import Spacing, resolve_mpp, spacing_of
from wsi_pipeline.stages.engine.freshness import REVISIONS, read_header, segment_digest, stale
from wsi_pipeline.stages.engine.guards import check_unchanged, drop_other_format, identity_of
from wsi_pipeline.stages.engine.known_files import SETTLED_SECONDS, look_up
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.qupath_origin import ORIGIN, bounds_origin
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.store.schema import NETWORKS, SEGMENT_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.segment_table import write_segment
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.geojson import from_origin, origin_of_file, to_geojson
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.own.given import given_tissue, tissue_digest
from wsi_pipeline.tissue.segmentation import Segmentation
from wsi_pipeline.tissue_networks.find_by_network import Artefacts, segment_by_networks
from wsi_pipeline.tissue_networks.plan_networks import NO_NETWORKS, NetworkPlan

_MAY_HAVE_BOUNDS = {"argos", "generic-tiff", "hamamatsu", "leica", "mirax", "philips", "trestle", "ventana"}
"""Vendors whose slides may have bounds in OpenSlide."""


@dataclass(frozen=True)
class SegmentStage:
    """Detects tissue on slides.

    default_mpp   resolution of slides that state none in the file or the manifest
    store         hdf5 or zarr
    overlay       draw the overlay picture; off if `tile` follows, which draws its own with the patches
    no_crop       contour coordinates from the corner of the whole slide, for QuPath set to show it uncropped
    networks      networks with weights of the user's own, for tissue and artefacts

    Raises UsageError for an unknown tissue detector, or for one whose network is not among `networks`.
    """

    run_dir: RunDir
    spec: SegmentSpec
    default_mpp: float | None = None
    store: str = "hdf5"
    overlay: bool = True
    no_crop: bool = False
    networks: NetworkPlan = NO_NETWORKS
    name: str = "segment"

    def __post_init__(self) -> None:
        TISSUE_METHODS.get(self.spec.method)  # refuse an unknown one here, not slide by slide
        if self.spec.method in TISSUE_NETWORKS and self.networks.tissue is None:
            raise UsageError(f"tissue detector {self.spec.method} needs the weights of its network")

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that networks need: see `SlideStage`."""
        return ("torch", "wsi_pipeline.tissue_networks.unet") if self.networks else ()

    def open_networks(self, records: Iterable[SlideRecord]) -> None:
        """Load the networks if any of these slides needs them. Raises EncoderError, once, if weights do not fit."""
        if self.networks and any(record.tissue is None and not self._is_fresh(record) for record in records):
            self.networks.open()

    def _is_fresh(self, record: SlideRecord) -> bool:
        try:
            return self.check(record).fresh
        except (WsiPipelineError, OSError):
            return False

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the mask's digest matches the slide's bytes, its resolution and the settings."""
        path = self.run_dir.segment_store(record.slide_id, self.store)
        header = read_header(path, SEGMENT_FORMAT)
        if header is not None and self._matches(record, header) and self._pictures_there(record):
            if self._contours_placed(record, header):
                return Freshness(True, status=_status(header))
            return Freshness(False, "its contours use another origin than QuPath")
        if header is not None and header.specs.get(NETWORKS, {}) != self.networks.facts():
            return Freshness(False, "other networks or weights")
        return stale(path, header, {"segment": asdict(self.spec)})

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Segment one slide; the store is written last, so its presence means the output is complete."""
        tissue = self._tissue_digest(record)
        opened = slide.open()
        info, spacing = opened.info, spacing_of(opened.info, record.mpp, self.default_mpp)
        identity = identity_of(record, opened, spacing)
        rgb, thumbnail = slide.pictures(spacing.mpp, self.spec.mask_mpp)
        check_unchanged(record.path, identity)
        found, artefacts = self._tissue(record, opened, spacing.mpp, rgb)
        used = self.networks.facts()
        note = notes_of(info, spacing, found)
        self._write_pictures(record.slide_id, thumbnail, found.mask, info.origin)
        header = Header(
            SEGMENT_FORMAT,
            digest=segment_digest(self.spec, identity, tissue, used),
            parent_digest=identity.quick_digest,
            slide=identity,
            specs={"segment": asdict(self.spec), **({NETWORKS: used} if used else {})},
            extra={
                "revision": REVISIONS["segment"],
                "warning": note,
                "tissue_mm2": round(found.mask.tissue_mm2, 4),
                **({"artefacts_mm2": artefacts.mm2} if artefacts else {}),
                **({ORIGIN: list(info.origin)} if any(info.origin) else {}),
                **({"tissue": record.tissue.name} if record.tissue else {}),
            },
        )
        write_segment(
            self.run_dir.segment_store(record.slide_id, self.store),
            header,
            found.mask,
            thumbnail,
            artefacts.kinds if artefacts else None,
        )
        drop_other_format(self.run_dir.segment_store(record.slide_id, self.store))
        return _status(header)

    def _matches(self, record: SlideRecord, header: Header) -> bool:
        known = header.slide
        spacing = resolve_mpp(known.own_mpp, record.mpp, self.default_mpp, objective=known.objective, size=known.size)
        # A slide that has since been archived is assumed to be the one its mask was made from.
        same = _same_if_there(record.path, known.quick_digest)
        digest = known.quick_digest if same else quick_digest(record.path)
        parts: dict[str, Any] = {**asdict(header.slide), "quick_digest": digest}
        now = SlideIdentity(**{**parts, "mpp": float(spacing.mpp), "mpp_source": spacing.source})
        return segment_digest(self.spec, now, self._tissue_digest(record), self.networks.facts()) == header.digest

    def _tissue_digest(self, record: SlideRecord) -> str | None:
        return None if record.tissue is None else tissue_digest(record.tissue, self.no_crop, record.tissue_mpp)

    def _tissue(
        self, record: SlideRecord, slide: Slide, mpp: float, rgb: NDArray[np.uint8]
    ) -> tuple[Segmentation, Artefacts | None]:
        """The user's tissue mask if the manifest names one, else the detected one and what was taken out of it."""
        if record.tissue is None:
            return segment_by_networks(slide, mpp, rgb, self.spec, self.networks)
        mask_mpp, own = self.spec.mask_mpp, record.tissue_mpp
        given = given_tissue(record.tissue, slide.info, mpp, mask_mpp, rgb, no_crop=self.no_crop, own_mpp=own)
        return given, None

    def _pictures_there(self, record: SlideRecord) -> bool:
        drawn = not self.overlay or self.run_dir.overlay(record.slide_id).is_file()
        return drawn and self.run_dir.contours(record.slide_id).is_file()

    def _contours_placed(self, record: SlideRecord, header: Header) -> bool:
        """Whether the contours are recorded to use QuPath's origin; old runs do not record it."""
        stated, origin = origin_of_file(self.run_dir.contours(record.slide_id)), bounds_origin(header)
        if stated is None and header.slide.vendor in _MAY_HAVE_BOUNDS:
            with open_slide(record.path) as slide:
                origin = slide.info.origin
        return (stated or (0, 0)) == ((0, 0) if self.no_crop else origin)

    def _write_pictures(
        self, slide_id: str, thumbnail: NDArray[np.uint8], mask: TissueMask, origin: tuple[int, int]
    ) -> None:
        contours = to_geojson(tissue_polygons(mask), mpp=mask.mpp)
        placed = from_origin(contours, (0, 0) if self.no_crop else origin)
        write_text(self.run_dir.contours(slide_id), json.dumps(placed))
        if self.overlay:
            write_overlay(self.run_dir.overlay(slide_id), thumbnail, mask, None, 0)


def _same_if_there(path: Path, digest: str) -> bool:
    if not may_exist(path):
        return True
    try:
        return _known_same(path, digest)
    except MissingSlideError:
        return True


def _known_same(path: Path, digest: str) -> bool:
    """Like `same_slide`; a file that has not been touched since its digest was computed is not read again."""
    file, chosen = split_choice(path)
    if is_address(path) or not file.is_file() or members(file) is not None:
        return same_slide(path, digest)
    # The digest of a DICOM file covers its series, so other files.
    known = look_up(file, f"digest {chosen}", lambda: None if is_dicom(file) else quick_digest(path), SETTLED_SECONDS)
    return same_slide(path, digest) if known is None else bool(known == digest)


def notes_of(info: SlideInfo, spacing: Spacing, found: Segmentation) -> str:
    """Notes on anything unusual about a slide, its resolution or its tissue; "" if there are none."""
    return "; ".join(part for part in (*info.notes, spacing.note, found.warning) if part)


def _status(header: Header) -> StageStatus:
    summary = {"tissue_mm2": header.extra["tissue_mm2"], "mpp": header.slide.mpp, "mpp_source": header.slide.mpp_source}
    if "artefacts_mm2" in header.extra:
        summary["artefacts_mm2"] = header.extra["artefacts_mm2"]
    return StageStatus("done", note=str(header.extra.get("warning", "")), digest=header.digest, summary=summary)
