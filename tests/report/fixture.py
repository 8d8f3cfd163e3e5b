"""A cohort as a report would show it, pictures painted on the spot: tissue-like blobs, contours, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.geometry import Size
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.tasks.regression import make_regression as regression_of
from wsi_pipeline.mil.tasks.survival import CoxTask
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.mil.validation.validation_metrics import validation_metrics
from wsi_pipeline.report.data import ModelSection, PredictionSection, Provenance, ReportData, SlideRow
from wsi_pipeline.report.maps.heatmaps import Heat, draw_heat
from wsi_pipeline.report.maps.pictures import shrink_png

CLASSES = ("normal", "tumour")
TRACEBACK = """Traceback (most recent call last):
  File "wsi_pipeline/stages/engine/runner.py", line 88, in work
    stage.run(slide)
  File "wsi_pipeline/slides/open.py", line 41, in open_slide
    raise SlideError("not a slide: header b'IJrE' is not TIFF, DICOM or MIRAX")
wsi_pipeline.errors.SlideError: not a slide: header b'IJrE' is not TIFF, DICOM or MIRAX
"""


def paint_slide(seed: int, width: int = 420, height: int = 300) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A pink and purple thumbnail and where its tissue is: uint8 (h, w, 3), bool (h, w)."""
    rng = np.random.default_rng(seed)
    field = np.zeros((height, width))
    rows, columns = np.mgrid[0:height, 0:width]
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.25, 0.75) * height
        a, b = rng.uniform(30, 85), rng.uniform(25, 60)
        field += np.exp(-(((columns - x) / a) ** 2 + ((rows - y) / b) ** 2))
    rough, fine = (_blurred(rng, height, width, sigma) for sigma in (6, 1.2))
    tissue = field + rough * 0.02 > 0.55
    mix = np.clip((fine + 17) / 40 + rough * 0.04, 0, 1)[..., None]
    colour = (1 - mix) * np.array([226, 168, 204]) + mix * np.array([128, 84, 158])
    return np.where(tissue[..., None], colour, 243).astype(np.uint8), tissue


def _blurred(rng: np.random.Generator, height: int, width: int, sigma: float) -> NDArray[np.float64]:
    noise = Image.fromarray((rng.random((height, width)) * 255).astype(np.uint8))
    return np.asarray(noise.filter(ImageFilter.GaussianBlur(sigma)), np.float64) - 127


def pictures(seed: int, n_models: int, tall: bool = False) -> tuple[bytes, list[bytes], int]:
    """Overlay, one heatmap per model (without its bar), and the number of patches."""
    width, height, patch = (230, 420, 7) if tall else (420, 300, 7)
    thumbnail, tissue = paint_slide(seed, width, height)
    overlay = Image.fromarray(thumbnail)
    draw = ImageDraw.Draw(overlay)
    corners = [(x, y) for y in range(0, height - patch, patch) for x in range(0, width - patch, patch)]
    kept = [(x, y) for x, y in corners if tissue[y : y + patch, x : x + patch].mean() > 0.5]
    for x, y in kept:
        draw.rectangle((x, y, x + patch, y + patch), outline=(30, 90, 60))
    coords = np.array(kept, np.int64).reshape(-1, 2) * 64
    rng = np.random.default_rng(seed)
    heats = []
    for _ in range(n_models):
        centre = coords[rng.integers(len(coords))]
        values = np.exp(-np.sum(((coords - centre) / 6000) ** 2, axis=1)) * rng.uniform(0.6, 1.4, len(coords))
        heat = draw_heat(
            thumbnail, Size(width * 64, height * 64), Heat.of_attention(coords, patch * 64, values / values.sum())
        )
        heats.append(shrink_png(heat.crop((0, 0, width, height)), 420))
    return shrink_png(overlay, 420), heats, len(kept)


def patient_of(i: int) -> int:
    """Every third slide is a second one of the patient before."""
    return 2 * (i // 3) + min(i % 3, 1)


def make_model(
    encoder: str, mil: str, separation: float, n: int = 60, classes: tuple[str, ...] = CLASSES
) -> ModelSection:
    """A model with predictions of `n` slides, some patients with two, and the metrics of them."""
    rng = np.random.default_rng(len(encoder) + len(mil))
    table = _classified(rng, separation, n, classes)
    return ModelSection(encoder, mil, _metrics(ClassificationTask(classes), table), table, _histories(rng))


def _classified(
    rng: np.random.Generator, separation: float, n: int, classes: tuple[str, ...], repeat: int = 0
) -> pd.DataFrame:
    """Predictions of one repeat, as train-mil writes them; slide i is of the same patient and class in all."""
    patients = [patient_of(i) for i in range(n)]
    truth = np.array(patients) % len(classes)
    labels = np.array(classes)[truth]
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), truth] += separation
    chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = np.array(classes)[chance.argmax(1)]
    return pd.DataFrame(
        {"slide_id": [f"S{i:03d}" for i in range(n)], "patient_id": [f"P{p:03d}" for p in patients], "repeat": repeat}
        | {"fold": (np.array(patients) + repeat) % 5, "label": labels, "predicted": predicted}
        | {f"p_{name}": chance[:, i] for i, name in enumerate(classes)}
    )


def _metrics(
    task: Task, table: pd.DataFrame, chosen: dict[str, float | str] | None = None, permutations: int = 0
) -> dict[str, Any]:
    """metrics.json of predictions; `chosen` is what every fold chose, if it had a choice."""
    parts = table.groupby(["repeat", "fold"]).size()
    facts: list[dict[str, Any]] = [
        {"repeat": int(repeat), "fold": int(fold), "n_train": 36, "n_val": 12, "n_test": int(n_test)}
        | {"best_epoch": 9 + int(fold), "epochs": 24, **({"chosen": chosen} if chosen else {}), "threshold": 0.5}
        for (repeat, fold), n_test in parts.items()
    ]
    return validation_metrics(task, table, facts, MilSpec(bootstrap=200, permutations=permutations), [], fixed=False)


def _histories(rng: np.random.Generator) -> list[list[dict[str, float | None]]]:
    def fold() -> list[dict[str, float | None]]:
        noise = rng.normal(0, 0.02, (24, 2))
        train = [0.69 * math.exp(-e / 9) + 0.05 + noise[e, 0] for e in range(24)]
        val = [0.62 * math.exp(-e / 6) + 0.22 + 0.006 * max(0, e - 11) + noise[e, 1] for e in range(24)]
        return [{"epoch": e + 1, "train_loss": train[e], "val_loss": val[e]} for e in range(24)]

    return [fold() for _ in range(5)]


def make_models() -> tuple[ModelSection, ...]:
    """A deep encoder with two MIL models, another one, and the baseline."""
    return (
        make_model("colour", "gated-abmil", 0.35),
        make_model("vit_small_patch16_224", "gated-abmil", 1.3),
        make_model("vit_small_patch16_224", "mean", 0.9),
        make_model("hf-hub:some-org/a-pathology-encoder", "gated-abmil", 0.2),
    )


def make_slides(models: tuple[ModelSection, ...], n: int = 60) -> tuple[SlideRow, ...]:
    """n slides: most done, one empty, one failed, one pending, two with odd patch counts."""
    return tuple(_make_slide(i, models) for i in range(n))


def _make_slide(i: int, models: tuple[ModelSection, ...]) -> SlideRow:
    name = f"S{i:03d}"
    about = {
        "patient_id": f"P{patient_of(i):03d}",
        "label": CLASSES[patient_of(i) % 2],
        "site": f"site {'AB'[i % 4 > 1]}",
    }
    if i == 7:
        return SlideRow(
            name, "failed", **about, stage="segment", reason="not a slide: header b'IJrE' is not TIFF, DICOM or MIRAX",
            todo="Check that the file was copied whole, or take the slide out of slides.csv.", traceback=TRACEBACK,
        )  # fmt: skip
    if i == 11:
        return SlideRow(name, "pending", **about, stage="segment")
    overlay, heats, patches = pictures(i, len(models), tall=i % 9 == 4)
    if i == 5:
        blank = shrink_png(np.full((300, 420, 3), 243, np.uint8))
        return SlideRow(
            name, "empty", **about, stage="tile", patches=0, tissue_mm2=0.0, mpp=0.499, mpp_source="slide",
            reason="no tissue found", overlay_png=blank,
        )  # fmt: skip
    patches = {3: 31, 20: 21_480}.get(i, patches * 4)
    return SlideRow(
        name, "done", **about, stage="heatmap", patches=patches, tissue_mm2=patches * 0.0164,
        mpp=0.5048 - 0.0008 * (i % 7), mpp_source="manifest" if i % 8 == 2 else "slide",
        note="resampled" if i % 6 == 0 else None, overlay_png=overlay,
        thumbnail=shrink_png(paint_slide(i, *((230, 420) if i % 9 == 4 else (420, 300)))[0], 420),
        heatmaps={model.key: heat for model, heat in zip(models, heats, strict=True)},
        sheets={models[0].key: shrink_png(np.full((60, 240, 3), 180, np.uint8))} if models and i == 0 else {},
    )  # fmt: skip


def make_report(n: int = 60) -> ReportData:
    """The whole fixture."""
    models = make_models()
    provenance = Provenance(
        commands=("wsi-pipeline tile slides.csv", "wsi-pipeline embed --model colour", "wsi-pipeline train-mil"),
        versions={"wsi-pipeline": "0.1.0", "python": "3.13.1", "torch": "2.15.0", "openslide": "4.0.0"},
        specs={"tile": {"patch_px": 256, "mpp": 0.5, "pixels": "none"}, "train-mil": {"folds": 5, "seed": 0}},
        digests={"tile/S000": "9f2c" * 16, "embed/colour/S000": "07ab" * 16},
    )
    return ReportData(
        "Breast biopsies, pilot cohort", "23 November 2026, 14:05", make_slides(models, n), models, (), provenance
    )


def _people(n: int) -> pd.DataFrame:
    """One slide a patient, five folds."""
    table = pd.DataFrame({"slide_id": [f"S{i:03d}" for i in range(n)], "patient_id": [f"P{i:03d}" for i in range(n)]})
    return table.assign(repeat=0, fold=np.arange(n) % 5)


def make_survival(n: int = 60) -> ModelSection:
    """A survival model as train-mil leaves it: risks, curves by risk, C-index."""
    rng = np.random.default_rng(5)
    risk = rng.normal(size=n)
    time = rng.exponential(20 * np.exp(-0.8 * risk)) + 0.1
    event = rng.random(n) < 0.7
    table = _people(n).assign(time=time, event=event.astype(int), risk=risk)
    metrics = _metrics(CoxTask(), table, {"model": "abmil"})
    return ModelSection("vit_small_patch16_224", "abmil", metrics, table)


def make_regression(n: int = 60) -> ModelSection:
    """A regression model as train-mil leaves it."""
    rng = np.random.default_rng(6)
    truth = rng.normal(40, 9, n)
    table = _people(n).assign(label=truth, predicted=truth + rng.normal(0, 4, n))
    return ModelSection("vit_small_patch16_224", "mean", _metrics(regression_of(table), table), table)


def make_validated() -> ModelSection:
    """A classifier with all that metrics.json may hold: repeats, chosen settings, permutation test too."""
    rng = np.random.default_rng(7)
    table = pd.concat([_classified(rng, 1.1, 60, CLASSES, repeat) for repeat in range(2)], ignore_index=True)
    metrics = _metrics(ClassificationTask(CLASSES), table, {"learning_rate": 0.001}, permutations=100)
    return ModelSection("vit_small_patch16_224", "clam-sb", metrics, table, _histories(rng))


def make_predictions() -> PredictionSection:
    """Predictions of three new slides: near, far, and one without patches."""
    table = pd.DataFrame({"slide_id": ["new-1", "new-2", "new-3"], "predicted": ["tumour", "normal", "normal"]})
    numbers = {"p_normal": [0.1, 0.7, 0.5], "p_tumour": [0.9, 0.3, 0.5], "spread": [0.02, 0.2, 0.0]}
    novelty = {"novelty": [0.9, 3.4, None], "far_from_training": ["no", "yes", "unknown"]}
    return PredictionSection("vit_small_patch16_224/gated-abmil", table.assign(**numbers, **novelty))
