"""Stage `predict`: predictions of a trained model for slides it has not been tested on.

predict/<encoder>/<training>/
  predictions.csv   one row per slide: slide_id, patient_id, the outcome if known (label; time, event), the
                    prediction, spread (see mil.predict), novelty, far_from_training (see mil.novelty), whether the
                    model was trained on the patient; one row per patient, without slide_id, if the model's bags are
                    patients. Several calls (--chunk, --only) with one model add to the same file
  patients.csv      one row per patient, if patients have several slides
  metrics.json      metrics, if outcomes are known (see mil.external): of slides and, under `by_patient`, of
                    patients
  model.json        the model behind the predictions; written last
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import predict
from wsi_pipeline.mil.validation.external import SEEN, Cut, RiskCut, by_patient, external_metrics, with_calls
from wsi_pipeline.stages.inputs.alike import differing_patches, tissue_warnings
from wsi_pipeline.stages.inputs.slide_bags import (
    SlideBags,
    gather,
    outcomes_of,
    stain_warnings,
    tuned_on_warnings,
)
from wsi_pipeline.stages.results import prediction_files as files
from wsi_pipeline.stages.results.trainings import read_training, trained_patients, training_name
from wsi_pipeline.system.atomic import remove, write_text
from wsi_pipeline.system.device import choose_device
from wsi_pipeline.system.locks import locked
from wsi_pipeline.wording import agreed, counted, listed

NAME = "predict"

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Predicted:
    """The predictions of one call, and the results together with those of earlier calls.

    table      rows of this call; `whole`: all rows of predictions.csv
    slides     the bags they were predicted from
    patients   one row per patient, if patients have several slides
    metrics    metrics, if outcomes are known
    warnings   how the slides were prepared otherwise than those of the training; also among those of `metrics`
    former     folder that earlier predictions, now replaced, were moved to
    """

    folder: Path
    table: pd.DataFrame
    whole: pd.DataFrame
    slides: SlideBags
    patients: pd.DataFrame | None
    metrics: Json | None
    warnings: tuple[str, ...] = ()
    former: Path | None = None

    @property
    def path(self) -> Path:
        """The file with all rows."""
        return self.folder / files.PREDICTIONS


def predict_slides(
    run: RunDir,
    records: Sequence[SlideRecord],
    ensemble: Ensemble,
    device: str = "auto",
    known: novelty.Novelty | None = None,
    *,
    trained: Path | None = None,
    cohort: Sequence[SlideRecord] | None = None,
    patients: str = "stated",
) -> Predicted:
    """Predict every slide of `records` that has features of the model's encoder, or every patient from these slides.

    known     distribution of the training slides' features; without it there is no novelty column
    trained   folder of the training, the source of its patients and its cut
    cohort    all slides of the run, of which `records` may be a part
    patients  where the patients come from, see `Cohort.patients_stated`

    Raises MilError if encoder, weights or patch settings differ from those the model was trained on.
    """
    encoder = slug(str(ensemble.encoder["name"]))
    slides = gather(run, records, encoder)
    if ensemble.spec.bag == "patient":
        slides = slides.by_patient(refuse=False)  # prediction needs no outcome, so contradictory ones do no harm
    cut = cut_of(trained, ensemble) if trained else None
    table = predicted_table(slides, ensemble, device, known, cut, trained)
    name = trained.resolve().name if trained else training_name(ensemble.spec)
    with locked(run.lock(NAME, slug(f"{encoder}/{name}")), math.inf):
        where = str(trained.resolve()) if trained else ""
        folder, former = files.place_of(run.predict(encoder, name), ensemble.fingerprint, where)
        model = _Model(ensemble, cut, where)
        outcomes = outcomes_of(cohort, ensemble.spec.bag) if cohort is not None else None
        return replace(_join(folder, table, slides, model, outcomes, patients), former=former)


def predicted_table(
    slides: SlideBags,
    ensemble: Ensemble,
    device: str = "auto",
    known: novelty.Novelty | None = None,
    cut: Cut | RiskCut | None = None,
    trained: Path | None = None,
) -> pd.DataFrame:
    """One row per bag: its ids, the outcome if known, the prediction; see `predict_slides`."""
    ensemble.check_encoder(slides.encoder)
    check_patches(slides.specs, ensemble)
    predictions = predicted_columns(slides.bags, ensemble, device, known, cut)
    outcome = [name for name in ensemble.task.columns if name in slides.table]
    who = slides.table[["slide_id", "patient_id", *outcome]]
    table = who.merge(predictions, on="slide_id", validate="one_to_one")
    if trained is not None:
        seen = trained_patients(trained)
        table[SEEN] = ["yes" if who in seen else "no" for who in table["patient_id"].astype(str)]
    return table.drop(columns="slide_id") if slides.parts else table


def predicted_columns(
    bags: Bags,
    ensemble: Ensemble,
    device: str = "auto",
    known: novelty.Novelty | None = None,
    cut: Cut | RiskCut | None = None,
) -> pd.DataFrame:
    """slide_id and prediction of each bag; with `cut`, its class or risk group; with `known`, its novelty."""
    predictions = with_calls(predict(ensemble, bags, device=choose_device(device)), cut, ensemble.classes)
    return (
        predictions if known is None else predictions.merge(known.columns(bags), on="slide_id", validate="one_to_one")
    )


def cut_of(trained: Path, ensemble: Ensemble) -> Cut | RiskCut | None:
    """The cut that training chose for two classes, or its median risk; None if the training records neither.

    For older trainings without a recorded median risk, that of the out-of-fold predictions is used if these are on the
    scale of `predict`, which those of Cox models are not.
    """
    metrics = files.read_json(trained / files.METRICS) or {}
    threshold = metrics.get("threshold")
    same = metrics.get("digest") == ensemble.provenance.get("digest")
    if same and ensemble.task.name == "survival":
        return _risk_cut(trained, metrics, ensemble)
    if not same or not isinstance(threshold, dict) or len(ensemble.classes) != 2:
        return None
    value, positive = threshold.get("value"), threshold.get("class")
    chosen = threshold.get("folds_without", 0) < len(metrics.get("folds") or (0,))
    if not chosen or positive not in ensemble.classes or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Cut(str(positive), float(value))


def _risk_cut(trained: Path, metrics: Json, ensemble: Ensemble) -> RiskCut | None:
    stated = metrics.get("risk_cut")
    value = stated.get("value") if isinstance(stated, dict) else None
    if value is None and not ensemble.task.relative:
        training = read_training(trained)
        if training is not None and {"risk", "patient_id"} <= set(training.predictions):
            value = float(training.predictions.groupby("patient_id")["risk"].mean().median())
    return RiskCut(float(value)) if isinstance(value, int | float) and math.isfinite(value) else None


def whole_patients(
    records: Sequence[SlideRecord], cohort: Sequence[SlideRecord], *, first: bool
) -> tuple[SlideRecord, ...]:
    """All slides of the patients of `records`, so that no patient is predicted from only some of its slides.

    first   only patients whose first slide is in `records`, so that each patient is in one part of a divided cohort
    """
    chosen = {record.slide_id for record in records}
    start: dict[str, str] = {}
    for record in cohort:
        start.setdefault(record.patient_id, record.slide_id)
    patients = {r.patient_id for r in records if not first or start[r.patient_id] in chosen}
    return tuple(record for record in cohort if record.patient_id in patients)


@dataclass(frozen=True, eq=False)
class _Model:
    """The model behind the predictions of one folder; `trained`: the folder of the training, "" if unknown."""

    ensemble: Ensemble
    cut: Cut | RiskCut | None
    trained: str

    def to_json(self) -> Json:
        """The content of model.json."""
        return {
            "fingerprint": self.ensemble.fingerprint, "trained": self.trained, "task": self.ensemble.task.to_json(),
            "bag": self.ensemble.spec.bag, "cut": self.cut and asdict(self.cut),
        }  # fmt: skip


def _join(
    folder: Path, table: pd.DataFrame, slides: SlideBags, model: _Model, outcomes: pd.DataFrame | None, whose: str
) -> Predicted:
    """Merge the rows with those of earlier calls, compute metrics and write all. The caller holds the lock."""
    path = folder / files.PREDICTIONS
    before = files.read_predictions(path) if path.is_file() else None
    whole = files.merged(before, table, outcomes)
    text = _csv(whole, model.ensemble)
    # Metrics use the values as written, so that the number of calls makes no difference.
    current = files.in_cohort(files.read_predictions(io.StringIO(text)), outcomes)
    patients, metrics = _measure(current, model.ensemble, model.cut, slides)
    write_text(path, text)
    _write_or_remove(folder / files.PATIENTS, None if patients is None else _csv(patients, model.ensemble))
    if metrics is not None:
        metrics = {"encoder": folder.parent.name, "name": folder.name, "trained_model": model.to_json(), **metrics}
        metrics |= {"patients": whose} if whose != "stated" else {}
    shown = None if metrics is None else json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write_or_remove(folder / files.METRICS, shown)
    write_text(folder / files.MODEL, json.dumps(model.to_json(), ensure_ascii=False) + "\n")
    return Predicted(folder, table, whole, slides, patients, metrics, prepared_warnings(slides, model.ensemble))


def _measure(
    table: pd.DataFrame, ensemble: Ensemble, cut: Cut | RiskCut | None, slides: SlideBags
) -> tuple[pd.DataFrame | None, Json | None]:
    """The table of patients, if they have several slides, and the metrics of slides and patients."""
    task, spec = ensemble.task, ensemble.spec
    named = table if "slide_id" in table else table.assign(slide_id=table["patient_id"])
    notes = [*prepared_warnings(slides, ensemble), *tuned_on_warnings(slides), *stain_warnings(slides)]
    metrics = external_metrics(task, named, spec, cut, notes)
    if "slide_id" not in table or not table["patient_id"].duplicated().any():
        return None, metrics
    patients, conflicting = by_patient(task, table, cut)
    if metrics is not None:
        conflict = f"Patients whose slides differ in {' or '.join(task.columns)} were excluded: {listed(conflicting)}."
        notes = [conflict] if conflicting else []
        own = external_metrics(
            task, patients.assign(slide_id=patients["patient_id"]), _of_patients(ensemble), cut, notes
        )
        metrics["by_patient"] = own
        metrics["warnings"] = [*metrics["warnings"], *_several(patients)]
    return patients, metrics


def _of_patients(ensemble: Ensemble) -> Any:
    return type(ensemble.spec)(**{**asdict(ensemble.spec), "bag": "patient"})


def _several(patients: pd.DataFrame) -> list[str]:
    n = int((patients["n_slides"] > 1).sum())
    return [
        f"{counted(n, 'patient')} {agreed(n, 'has')} several slides: `by_patient` has the metrics of one "
        "prediction per patient, the mean over its slides."
    ]


def _csv(table: pd.DataFrame, ensemble: Ensemble) -> str:
    """The table as CSV: six decimals for a classifier, else nine significant digits, for numbers of any size."""
    digits = "%.6f" if ensemble.classes else "%.9g"
    text: str = table.to_csv(index=False, float_format=digits, lineterminator="\n")
    return text


def _write_or_remove(path: Path, text: str | None) -> None:
    if text is None:
        remove(path)
    else:
        write_text(path, text)


def prepared_warnings(slides: SlideBags, ensemble: Ensemble) -> tuple[str, ...]:
    """How tissue was found on these slides and patches were laid over it, where it was otherwise for the training."""
    return tuple(tissue_warnings(slides.specs, ensemble.provenance["specs"]))


def check_patches(specs: Mapping[str, Mapping[str, Any]], ensemble: Ensemble) -> None:
    """Check that the patches have the size and resolution that the model was trained on."""
    differing = differing_patches(specs, ensemble.provenance["specs"])
    if differing:
        raise MilError(
            f"the patches differ from those this model was trained on: {', '.join(differing)}",
            todo="Tile and embed these slides in a run of their own: wsi-pipeline predict SLIDES --run NEW",
        )
