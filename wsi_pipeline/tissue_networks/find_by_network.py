"""Tissue and artefacts of one slide by published networks, as a mask of the same kind as the other detectors'."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Box, Size
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.tissue.cleanup import drop_small
from wsi_pipeline.tissue.segmentation import Segmentation, finished, segment_tissue
from wsi_pipeline.tissue_networks.plan_networks import NetworkPlan, PlannedNetwork
from wsi_pipeline.tissue_networks.published import ARTEFACTS
from wsi_pipeline.tissue_networks.windows import BoxReader, SlideBoxes, Votes, WholePicture, run_windows

ENOUGH = 0.5
"""Least fraction of a mask pixel that must be of a kind for the pixel to be of it."""
COARSER = 1.1
"""A slide may be this many times as coarse as the input of a network; then its pixels are enlarged."""
MUCH = 0.5
"""A warning is given if artefacts take more than this fraction of the tissue."""


@dataclass(frozen=True, eq=False)
class Artefacts:
    """What an artefact network found on the tissue of one slide.

    kinds   uint8 (h, w), pixels of the mask: 0 none, else 1 + place in ARTEFACTS
    mm2     area of each kind that was found
    """

    kinds: NDArray[np.uint8]
    mm2: dict[str, float]


def segment_by_networks(
    slide: Slide, mpp: float, picture: NDArray[np.uint8], spec: SegmentSpec, plan: NetworkPlan
) -> tuple[Segmentation, Artefacts | None]:
    """Tissue of one slide, less its artefacts if the plan has a network for them.

    mpp       micrometres per level-0 pixel
    picture   the whole slide at about spec.mask_mpp, uint8 (h, w, 3): the mask gets its size

    Raises EncoderError for weights that do not fit, SlideError for a slide that is too coarse or does not decode.
    """
    networks = [planned for planned in (plan.tissue, plan.artefacts) if planned is not None]
    for planned in networks:
        _check_resolution(mpp, planned)
    if networks:
        _limit_threads(plan.threads)
    if plan.tissue is None:
        found = segment_tissue(picture, slide.info.size, mpp, spec)
    else:
        mask = _tissue(slide, mpp, Size(picture.shape[1], picture.shape[0]), plan.tissue)
        found = finished(mask, picture, slide.info.size, mpp, spec)
    if plan.artefacts is None:
        return found, None
    return _without_artefacts(slide, found, spec, plan.artefacts)


def _tissue(slide: Slide, mpp: float, size: Size, planned: PlannedNetwork) -> NDArray[np.bool_]:
    network = planned.published
    canvas: BoxReader = (
        WholePicture(slide, mpp, network.mpp, network.jpeg) if network.jpeg else SlideBoxes(slide, mpp, network.mpp)
    )
    votes = Votes(canvas.size, size, len(network.classes))
    run_windows(canvas, planned.open(), votes, glass=network.classes.index("background"))
    return np.asarray(votes.share(network.tissue) >= ENOUGH)


def _without_artefacts(
    slide: Slide, found: Segmentation, spec: SegmentSpec, planned: PlannedNetwork
) -> tuple[Segmentation, Artefacts]:
    mask, network = found.mask, planned.published
    canvas = SlideBoxes(slide, mask.mpp, network.mpp)
    height, width = mask.pixels.shape
    votes = Votes(canvas.size, Size(width, height), len(network.classes))

    def holds_tissue(box: Box) -> bool:
        """Whether a box of the canvas meets the mask."""
        across, down = width / canvas.size.width, height / canvas.size.height
        rows = slice(int(box.y * down), int(np.ceil(box.bottom * down)))
        columns = slice(int(box.x * across), int(np.ceil(box.right * across)))
        return bool(mask.pixels[rows, columns].any())

    run_windows(canvas, planned.open(), votes, network.classes.index("background"), holds_tissue)
    bad = mask.pixels & (votes.share(network.tissue) < ENOUGH) & (votes.counts.sum(axis=0) > 0)
    first = len(network.classes) - len(ARTEFACTS)
    kinds = np.where(bad, votes.counts[first:].argmax(axis=0) + 1, 0).astype(np.uint8)
    areas = np.bincount(kinds.ravel(), minlength=len(ARTEFACTS) + 1)[1:] * mask.pixel_um2 / 1e6
    mm2 = {name: round(float(area), 4) for name, area in zip(ARTEFACTS, areas, strict=True) if area}
    kept = drop_small(mask.pixels & ~bad, spec.min_tissue_um2 / mask.pixel_um2)
    taken = 1 - np.count_nonzero(kept) / max(1, int(np.count_nonzero(mask.pixels)))
    notes = [found.warning]
    if taken > MUCH:
        most = max(mm2, key=lambda name: mm2[name])
        notes.append(f"{100 * taken:.0f} % of the tissue was taken out as artefacts, most as {most}")
    warning = "; ".join(note for note in notes if note)
    return Segmentation(replace(mask, pixels=kept), warning), Artefacts(kinds, mm2)


def _check_resolution(mpp: float, planned: PlannedNetwork) -> None:
    network = planned.published
    if mpp > COARSER * network.mpp:
        raise SlideError(
            f"its {mpp:.4g} micrometres per pixel are too coarse for {network.name} ({network.mpp:g})",
            todo="Use --method hybrid, or a mask of your own (column tissue)",
        )


def _limit_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
