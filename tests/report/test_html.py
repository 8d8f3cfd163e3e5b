"""The page as text: complete, escaped, self-contained, and whole with any part missing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pandas as pd
import pytest
from fixture import (
    make_model,
    make_predictions,
    make_regression,
    make_report,
    make_survival,
    make_validated,
    paint_slide,
    pictures,
)

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.report.data import ModelSection, PredictionSection, Provenance, ReportData, SlideRow
from wsi_pipeline.report.maps.pictures import plan_pictures, shrink_png
from wsi_pipeline.report.page.html import render_report
from wsi_pipeline.report.page.slide_view import slide_cards

HOSTILE = "<i>one</i>\"'&<b id=x>two</b>"
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, words, ids; complains about tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@cache
def whole() -> str:
    return render_report(make_report(14))


def null_model() -> ModelSection:
    """A model whose every number is undefined."""
    nothing = {"value": None, "low": None, "high": None, "n_undefined": 1000}
    metrics = {"task": "classification", "classes": ["a"], "n_slides": None, "n_patients": None, "interval": None}
    metrics |= {"pooled": {"auroc": nothing, "accuracy": None}, "per_class": {"a": {"precision": None}}}
    metrics |= {"folds": [{"fold": 0, "metrics": {"auroc": None}, "best_epoch": None}], "confusion": [[3]]}
    metrics |= {"warnings": None, "calibration": None, "threshold": None, "permutation": None, "repeats": None}
    table = pd.DataFrame({"slide_id": ["s"], "patient_id": [None], "fold": [None], "label": [None]})
    return ModelSection("enc", "mean", metrics, table.assign(predicted="a", p_a=1.0))


def test_every_part_is_there_once() -> None:
    page = Page(whole())
    sections = [attributes.get("id") for attributes in page.all("section")]
    assert sections == ["summary", "cohort", "patches", "models", "slides", "failures", "provenance"]
    assert len(page.ids) == len(set(page.ids))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_links_lead_somewhere() -> None:
    page = Page(whole())
    targets = {(attributes["href"] or "") for attributes in page.all("a")}
    assert {target.removeprefix("#") for target in targets} <= set(page.ids)


def test_summary_and_tables_say_the_numbers() -> None:
    text = Page(whole()).text
    for words in ("slides 14", "done 11", "without tissue 1", "failed 1", "pending 1"):
        assert words in text
    assert "vit_small_patch16_224 with gated-abmil reaches an AUROC of" in text
    assert "The colour baseline reaches" in text
    assert "200 resamples of patients" in text
    assert "60 slides from 40 patients" in text
    assert "not a slide: header b'IJrE' is not TIFF, DICOM or MIRAX" in text
    assert "Traceback (most recent call last)" in text
    assert "wsi-pipeline embed --model colour" in text
    assert "Diamonds: outliers" in text
    assert "predicted" in text


def test_each_picture_is_embedded_once_and_described() -> None:
    data = make_report(14)
    pictures_in = [attributes for attributes in Page(whole()).all("img") if attributes.get("id") != "viewer-image"]
    expected = sum(
        (slide.overlay_png is not None) + (slide.thumbnail is not None) + len(slide.heatmaps) + len(slide.sheets)
        for slide in data.slides
    )
    assert len(pictures_in) == expected
    assert all(attributes["alt"] for attributes in pictures_in)


def test_nothing_is_fetched_from_anywhere() -> None:
    html = whole()
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href", "background"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), (tag, name, address[:60])
        assert not any(name.startswith("on") for name in attributes), f"inline handler on {tag}"
    assert not re.search(r"https?://", html)
    assert "@import" not in html
    assert "url(" not in html


def test_only_our_script_may_run() -> None:
    html = whole()
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for a in Page(html).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_words_are_shown_not_run() -> None:
    picture = pictures(1, 0)[0]
    words = dict.fromkeys(("patient_id", "label", "site", "stage", "reason", "todo", "traceback", "note"), HOSTILE)
    slides = (
        SlideRow(HOSTILE, "failed", **words, mpp=0.5, mpp_source=HOSTILE, overlay_png=picture),
        *(SlideRow(f"{HOSTILE}{i}", "done", patches=1000 if i else 1, overlay_png=picture) for i in range(8)),
    )
    model = make_model(HOSTILE, HOSTILE, 1.0, n=12, classes=(HOSTILE, "b", "c"))
    model.metrics["warnings"].append(HOSTILE)  # type: ignore[index]
    model.metrics["interval"]["method"] = HOSTILE
    model.predictions["slide_id"] = HOSTILE  # type: ignore[index]
    made = Provenance((HOSTILE,), {HOSTILE: HOSTILE}, {HOSTILE: {HOSTILE: HOSTILE}}, {HOSTILE: HOSTILE})
    html = render_report(ReportData(HOSTILE, HOSTILE, slides, (model,), (HOSTILE,), made))
    assert html.count("<script") == 1
    assert "<i>one" not in html
    page = Page(html)
    assert page.text.count(HOSTILE) > 25
    assert not any(attributes.get("id") == "x" for _, attributes in page.tags)


@pytest.mark.parametrize(
    "data",
    [
        ReportData("none", "today", ()),
        ReportData("tiled", "today", (SlideRow("s", "done", patches=5, tissue_mm2=1.0, mpp=0.5),)),
        ReportData("failed", "today", (SlideRow("s", "failed"),)),
        ReportData("null", "today", (SlideRow("s", "done", overlay_png=pictures(1, 0)[0]),), (null_model(),)),
        ReportData("bare", "today", (SlideRow("s", "done"),), (ModelSection("x", "y"),)),
        ReportData("no labels", "today", (SlideRow("s", "pending"),), (make_model("colour", "mean", 0.0),)),
    ],
    ids=lambda data: data.title,
)
def test_whole_with_any_part_missing(data: ReportData) -> None:
    page = Page(render_report(data))
    assert data.title in page.text
    assert not re.search(r"\b(None|nan|NaN|inf)\b", page.text)


def test_prediction_without_a_true_label_claims_neither_right_nor_wrong() -> None:
    slides = (SlideRow("s", "done", overlay_png=pictures(1, 0)[0]),)
    text = Page(render_report(ReportData("t", "today", slides, (null_model(),)))).text
    assert "predicted a 1.00" in text
    assert "✓" not in text
    assert "✕" not in text


def test_every_task_has_its_figures_and_words() -> None:
    slides = (SlideRow("S000", "done", overlay_png=pictures(1, 0)[0]),)
    survived, regressed = make_survival(), make_regression()
    survival = Page(render_report(ReportData("t", "today", slides, (survived,))))
    descriptions = " ".join(attributes.get("aria-label") or "" for attributes in survival.all("svg"))
    assert "Kaplan-Meier curves, low risk: 30" in descriptions
    assert f"reaches a C-index of {survived.metrics['pooled']['c_index']['value']:.3f}" in survival.text
    assert "selected" in survival.text
    assert "model abmil" in survival.text
    regression = Page(render_report(ReportData("t", "today", slides, (regressed,))))
    descriptions = " ".join(attributes.get("aria-label") or "" for attributes in regression.all("svg"))
    assert "Predicted against measured, 60 slides" in descriptions
    assert f"reaches an MAE of {regressed.metrics['pooled']['mae']['value']:.3f}" in regression.text
    assert f"mean {regressed.metrics['target']['mean']:.4g}" in regression.text


def test_all_results_of_a_validation_are_shown() -> None:
    model = make_validated()
    metrics = model.metrics
    page = Page(render_report(ReportData("t", "today", (SlideRow("S000", "done"),), (model,))))
    descriptions = " ".join(attributes.get("aria-label") or "" for attributes in page.all("svg"))
    bins = f"120 predictions in {len(metrics['calibration']['bins'])} bins"
    for figure in ("ROC curve", "Precision-recall curve", "Confusion matrix of 60", bins):
        assert figure in descriptions
    test, spread = metrics["permutation"], metrics["repeats"]["auroc"]
    rates = [f"{name} {_with_bounds(metrics['threshold'][name])}" for name in ("sensitivity", "specificity")]
    for words in (
        f"{', '.join(rates)} for tumour",
        f"p = {test['p_value']:.3g} for AUROC, {test['n']} permutations",
        f"Brier score {_with_bounds(metrics['calibration']['brier'])}",
        f"{spread['mean']:.3f} ± {spread['sd']:.3f}",
        "repeat.fold",
        "learning_rate 0.001",
        "chance level",
    ):
        assert words in page.text


def _with_bounds(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"


def test_predictions_name_the_slides_that_are_far_first() -> None:
    data = ReportData("t", "today", (SlideRow("new-1", "done"),), predictions=(make_predictions(),))
    page = Page(render_report(data))
    text = page.text
    assert text.index("new-2") < text.index("new-1 tumour")
    assert "1 slide is out of distribution for" in text
    assert "unknown" in text
    assert "about 1 in 20" in text
    assert not re.search(r"\b(None|nan|NaN)\b", text)


def test_predictions_of_patients_and_of_grades() -> None:
    """One row a patient, without slide_id; classes that are numbers keep their name and their probability."""
    table = pd.DataFrame(
        {"patient_id": ["P1", "P2"], "predicted": ["01", "00"], "p_00": [0.2, 0.9], "p_01": [0.8, 0.1]}
    )
    section = PredictionSection("colour/mean", table.assign(novelty=[1.0, 9.0], far_from_training=["no", "yes"]))
    page = Page(render_report(ReportData("t", "today", (), predictions=(section,))))
    assert "patient predicted probability" in page.text
    assert page.text.index("P2 00 0.900 9.00") < page.text.index("P1 01 0.800 1.00")


def test_captions_name_what_was_tested() -> None:
    """Curves by risk are of patients always; the rest of slides, or of patients where these are the bags."""
    survival, regression = make_survival(), make_regression()
    page = Page(render_report(ReportData("t", "today", (), (survival,))))
    assert "patients above and below the median risk of each fold" in page.text
    page = Page(render_report(ReportData("t", "today", (), (regression,))))
    assert "Test slides; dotted line" in page.text
    of_patients = replace(regression, metrics={**regression.metrics, "bag": "patient"})
    page = Page(render_report(ReportData("t", "today", (), (of_patients,))))
    assert "Test patients; dotted line" in page.text
    validated = make_validated()
    pages = [replace(validated, metrics={**validated.metrics, "bag": bag}) for bag in ("slide", "patient")]
    tables = [Page(render_report(ReportData("t", "today", (), (model,)))).text for model in pages]
    assert ["F1 AUROC slides patients" in text for text in tables] == [True, False]


def test_a_prediction_is_that_of_the_slide_not_of_a_namesake() -> None:
    """Slide a2, not predicted, is of a patient called as slide a, which is."""
    slides = tuple(SlideRow(name, "done", patient_id="a", overlay_png=pictures(1, 0)[0]) for name in ("a", "a2"))
    table = pd.DataFrame({"slide_id": ["a"], "patient_id": ["a"], "fold": [0], "label": ["t"], "predicted": ["t"]})
    model = ModelSection("colour", "mean", {}, table.assign(p_t=0.9))
    assert [len(card["heats"]) for card in slide_cards(slides, [model])] == [1, 0]
    of_patients = ModelSection("colour", "mean", {}, table.assign(p_t=0.9).drop(columns="slide_id"))
    assert [len(card["heats"]) for card in slide_cards(slides, [of_patients])] == [1, 1]


def test_a_picture_of_unknown_kind_is_refused() -> None:
    with pytest.raises((WsiPipelineError, OSError)):
        render_report(ReportData("t", "today", (SlideRow("s", "done", overlay_png=b"<svg/>"),)))


def test_unknown_state_is_refused() -> None:
    with pytest.raises(WsiPipelineError, match="state must be one of"):
        SlideRow("s", "fine")


def test_five_hundred_slides_stay_small() -> None:
    overlay, (heat,), _ = pictures(2, 1)
    side = plan_pictures(500, 1).side
    overlay, heat = shrink_png(overlay, side), shrink_png(heat, side)
    model = make_model("colour", "mean", 1.0, n=500)
    slides = tuple(
        SlideRow(f"S{i:03d}", "done", patches=900 + i, overlay_png=overlay, heatmaps={model.key: heat})
        for i in range(500)
    )
    html = render_report(ReportData("large", "today", slides, (model,)))
    assert len(html) < 30e6
    assert len(html) - 500 * 4 / 3 * (len(overlay) + len(heat)) < 1.8e6, "words around the pictures"


def test_a_thousand_slides_stay_below_forty_five_megabytes() -> None:
    """With pictures as full of tissue as any."""
    plan = plan_pictures(1000, 3)
    noisy = paint_slide(4, 1200, 900)[0]
    picture = shrink_png(noisy, plan.side)
    models = tuple(make_model(name, "mean", 1.0, n=1000) for name in ("a", "b", "colour"))
    shown = {model.key: picture for model in models[: plan.models]}
    slides = tuple(
        SlideRow(f"S{i:03d}", "done", patches=900, overlay_png=picture, thumbnail=picture, heatmaps=shown)
        for i in range(plan.slides)
    )
    assert plan.slides == 1000
    assert len(render_report(ReportData("large", "today", slides, models))) < 45e6


def test_log_rank_statistic_of_new_and_of_older_files_is_chi_square() -> None:
    """Files that do not say what their statistic is hold the signed root of chi-square."""
    test = {"statistic": 7.29, "statistic_is": "chi-square, 1 degree of freedom", "p_value": 0.007}
    for written in (test, {"statistic": -2.7, "p_value": 0.007}):
        model = make_survival()
        model.metrics["survival"]["logrank"] = written  # type: ignore[index]
        assert "chi-square 7.29, p = 0.007" in Page(render_report(ReportData("t", "today", (), (model,)))).text
