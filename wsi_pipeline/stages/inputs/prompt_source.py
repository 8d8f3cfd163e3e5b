"""What `train-mil --tune-prompts` needs beside the bags: the network of the features, and the pixels of the patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathotune.backbone import Backbone, BackboneCard, open_backbone
from pathotune.errors import PathoTuneError
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.encoders.names import is_tuned
from wsi_pipeline.errors import EncoderError, MilError, SlideError, StoreError
from wsi_pipeline.labelled.slide_patches import PatchesOfSlides
from wsi_pipeline.mil.prompts.prompt_inputs import InstancePixels
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.stages.inputs.find_adapter import plan_in_run
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.wording import counted

_WHICH = "Embed the slides with a plain vision transformer, such as --model vit-mini or a timm ViT"


def open_network(run: RunDir, slides: SlideBags, weights: str | None) -> tuple[Backbone, BackboneCard]:
    """The plain vision transformer that the features of `slides` come from. Raises MilError if they do not."""
    name, wanted = str(slides.encoder.get("name", "")), slides.encoder.get("fingerprint")
    if not wanted or is_tuned(name):
        what = "a tuned adapter" if wanted else "another program"
        raise MilError(f"prompts cannot be tuned on {name}: its features come from {what}", todo=_WHICH)
    with _as_mil_error(name):
        plan = plan_in_run(run, name, weights=weights)[0]
        if plan.fingerprint != wanted:
            raise MilError(
                f"the features are of {name} with the fingerprint {str(wanted)[:12]}, these weights have "
                f"{plan.fingerprint[:12]}",
                todo="Name the weights that the slides were embedded with: --weights FILE",
            )
        return open_backbone(name, Path(weights) if weights else None, input_px=plan.info.input_px)


def open_pixels(run: RunDir, slides: SlideBags, records: Sequence[SlideRecord]) -> InstancePixels:
    """The pixels of every row of the bags, from patch stores that keep them (`tile --pixels jpeg`), else from slides.

    Raises MilError, naming the slide, if there are neither, or its patches do not match its features.
    """
    known = {record.slide_id: record for record in records}
    lengths = _lengths(slides)
    parts: list[PatchFiles] = []
    part_of: list[NDArray[np.int64]] = []
    patch_of: list[NDArray[np.int64]] = []
    sizes: dict[tuple[int, float], str] = {}
    for slide_id, count in lengths.items():
        part, side = _part(run, known[slide_id], count)
        sizes.setdefault(side, slide_id)
        if len(sizes) > 1:
            raise MilError(
                "patches of the slides differ in size or resolution", slide=slide_id, todo="Tile them alike again."
            )
        part_of.append(np.full(count, len(parts), np.int64))
        patch_of.append(np.arange(count, dtype=np.int64))
        parts.append(part)
    patch_px, mpp = next(iter(sizes))
    pixels = PatchesOfSlides(
        tuple(parts), np.concatenate(part_of), np.concatenate(patch_of), patch_px, mpp, list(lengths)
    )
    return InstancePixels(pixels, sum(lengths.values()))


def _lengths(slides: SlideBags) -> Mapping[str, int]:
    """The slides in the order of the rows, with the number of their rows."""
    if slides.parts:
        return {part.slide_id: part.stop - part.start for bag in slides.parts for part in bag}
    return dict(zip(slides.bags.slide_ids, slides.bags.lengths.tolist(), strict=True))


def _part(run: RunDir, record: SlideRecord, count: int) -> tuple[PatchFiles, tuple[int, float]]:
    """The patches of a slide, and their side and resolution."""
    store = existing_store(run.patch_store(record.slide_id))
    if store is None:
        raise MilError(
            "prompts need the pixels of the patches, and this slide has no patch store",
            slide=record.slide_id,
            todo="Tile and embed the slides here: wsi-pipeline tile slides.csv --pixels jpeg",
        )
    table = read_patch_table(store)
    if len(table.grid) != count:
        raise MilError(
            f"{counted(count, 'feature')}, but {counted(len(table.grid), 'patch')}",
            slide=record.slide_id,
            todo="Embed this slide again.",
        )
    part = PatchFiles.of(table, store, record.path)
    try:
        part.open().close()
    except (SlideError, StoreError, OSError) as error:
        what = error.what if isinstance(error, SlideError | StoreError) else str(error)
        raise MilError(
            f"prompts need pixels of the patches: the patch store keeps none, and the slide cannot be read ({what})",
            slide=record.slide_id,
            todo="Bring the slide back, or keep pixels: wsi-pipeline tile slides.csv --pixels jpeg",
        ) from None
    return part, (table.geometry.patch_px, round(table.geometry.mpp, 3))


@contextmanager
def _as_mil_error(name: str) -> Iterator[None]:
    try:
        yield
    except (EncoderError, PathoTuneError) as error:
        raise MilError(f"prompts cannot be tuned on {name}: {error.what}", todo=error.todo or _WHICH) from None
