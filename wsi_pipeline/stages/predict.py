"""Stage `predict`: a trained model's word on slides it has not been tested on.

predict/<encoder>/<mil model>/predictions.csv   one row a slide: slide_id, patient_id, the outcome where it is known
                                                (label; time, event), the prediction, spread (see mil.predict),
                                                novelty, far_from_training (see mil.novelty); one row a patient,
                                                without slide_id, where the model's bags are patients
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from wsi_pipeline.atomic import write_text
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.rundir import RunDir, slug
from wsi_pipeline.encoders.device import choose_device
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil import novelty
from wsi_pipeline.mil.checkpoint import Ensemble
from wsi_pipeline.mil.predict import predict
from wsi_pipeline.stages.bags import SlideBags, gather
from wsi_pipeline.stages.train_mil import training_name

NAME = "predict"


def predict_slides(
    run: RunDir,
    records: Sequence[SlideRecord],
    ensemble: Ensemble,
    device: str = "auto",
    known: novelty.Novelty | None = None,
) -> tuple[pd.DataFrame, Path, SlideBags]:
    """Predict every slide of `records` that has features of the model's encoder, or every patient by these slides.

    known   what the training slides look like; without it no slide is said to be near or far

    Returns (table, the CSV it was written to, the slides). Raises MilError where encoder, weights or patch settings
    are not those the model was trained on.
    """
    encoder = slug(str(ensemble.encoder["name"]))
    slides = gather(run, records, encoder)
    if ensemble.spec.bag == "patient":
        slides = slides.by_patient(refuse=False)  # an outcome that slides contradict is of no use here, nor needed
    ensemble.check_encoder(slides.encoder)
    _check_patches(slides, ensemble)
    told = predict(ensemble, slides.bags, device=choose_device(device))
    if known is not None:
        told = told.merge(known.columns(slides.bags), on="slide_id", validate="one_to_one")
    table = _known(slides, ensemble).merge(told, on="slide_id", validate="one_to_one")
    if slides.parts:
        table = table.drop(columns="slide_id")
    folder = run.root / NAME / encoder / slug(training_name(ensemble.spec))
    write_text(
        folder / "predictions.csv", table.to_csv(index=False, float_format=_digits(ensemble), lineterminator="\n")
    )
    write_text(folder / "model.json", json.dumps({"fingerprint": ensemble.fingerprint}) + "\n")
    return table, folder / "predictions.csv", slides


def _known(slides: SlideBags, ensemble: Ensemble) -> pd.DataFrame:
    """Who they are, and the outcome as far as it is known."""
    outcome = [name for name in ensemble.task.columns if name in slides.table]
    return slides.table[["slide_id", "patient_id", *outcome]]


def _digits(ensemble: Ensemble) -> str:
    """Probabilities have six decimals; a number or a time of any size has its digits."""
    return "%.6f" if ensemble.classes else "%.9g"


def _check_patches(slides: SlideBags, ensemble: Ensemble) -> None:
    """The patches must be of the size and resolution that the model was trained on."""
    trained, here = ensemble.provenance["specs"]["tile"], slides.specs["tile"]
    differing = [key for key in ("patch_px", "mpp") if trained.get(key) != here.get(key)]
    if differing:
        words = ", ".join(f"{key} {here.get(key)}, not {trained.get(key)}" for key in differing)
        raise MilError(
            f"the patches are not such as this model was trained on: {words}",
            todo="Tile and embed these slides in a run of their own: wsi-pipeline predict SLIDES --run NEW",
        )
