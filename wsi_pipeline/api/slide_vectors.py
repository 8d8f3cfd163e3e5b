"""`wp.embed_slides`, `wp.similar`: one vector per slide, and which slides are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from wsi_pipeline.cohort.run_dir import pooled_name
from wsi_pipeline.encoders.slide_zoo.plan_slide import plan_slide
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.stages.embed_slides import ROWS, identity_of_embedding
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.similar_slides import neighbours_of
from wsi_pipeline.system.device import choose_device


def embed_slides(
    slides: SlideBags, model: str = "mean", *, weights: str | PathLike[str] | None = None, device: str = "auto"
) -> SlideBags:
    """The same slides (or patients), each with one vector instead of its patch features.

    slides    from `read_features(run, encoder)`
    model     "mean", or a published slide encoder such as "feather" with its `weights`

    Nothing is written. Raises EncoderError if the slide encoder needs features of another patch encoder or of another
    patch size, or is not implemented here.
    """
    if (slides.bags.lengths == 0).any():
        raise UsageError("a slide without patches has no embedding")
    plan = plan_slide(model, Path(weights) if weights is not None else None)
    patches = slides.specs.get("tile") or slides.specs.get("import") or {}
    plan.check(slides.encoder, int(patches.get("patch_px") or 0), float(patches.get("mpp") or 0), places=False)
    where = choose_device(device)
    embed = plan.open(str(where))
    vectors = []
    for row in range(len(slides.bags)):
        features = slides.bags.bag(row)
        blocks = (block.float().to(where) for block in torch.split(features, ROWS))
        vectors.append(embed(PatchRows(blocks)).cpu().numpy())
    name = pooled_name(str(slides.encoder["name"]), plan.name)
    made = np.stack(vectors)
    bags = Bags(made, np.arange(len(made) + 1, dtype=np.int64), slides.bags.slide_ids)
    encoder = identity_of_embedding(name, made.shape[1], slides.encoder, plan.fingerprint)
    specs = {**slides.specs, "embed-slides": {"model": plan.name, "features": str(slides.encoder["name"])}}
    return replace(slides, bags=bags, encoder=encoder, specs=specs, parts=())


def similar(slides: SlideBags, slide_id: str | Sequence[str] | None = None, *, neighbours: int = 5) -> pd.DataFrame:
    """The slides nearest to one, to several, or to every slide (None), as `wsi-pipeline similar` lists them.

    slides      slide embeddings from `embed_slides`, or from `read_features(run, "uni+mean")`
    neighbours  nearest slides of other patients; equally near slides of the same patient are marked, not counted

    Columns: slide_id, rank, neighbour, similarity, same_patient, and patient_id, label and site of the neighbour.
    """
    wanted = [slide_id] if isinstance(slide_id, str) else slide_id
    return neighbours_of(slides, neighbours, wanted)
