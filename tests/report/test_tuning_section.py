"""The report's section on tuning: numbers and pictures there, every name escaped, nothing from outside the file."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from test_html import HOSTILE, Page
from test_tuning import epochs

from wsi_pipeline.report.data import ReportData, TuningSection
from wsi_pipeline.report.figures.tuning_figures import confusion_png, curves_png
from wsi_pipeline.report.maps.pictures import shrink_png
from wsi_pipeline.report.page.html import render_report
from wsi_pipeline.stages.results.patch_scores import patch_scores

CLASSES = ("benign", HOSTILE)


def section(name: str, skill: float = 0.8, part: str = "test", data: str = "d1", groups: int = 12) -> TuningSection:
    rng = np.random.default_rng(3)
    truth = np.arange(120) % 2
    sure = np.clip(rng.normal(skill, 0.2, 120), 0.02, 0.98)
    found = np.where(np.eye(2, dtype=bool)[truth], sure[:, None], 1 - sure[:, None])
    scores = patch_scores(truth, found, [f"g{k % groups}" for k in range(120)], CLASSES, part=part, resamples=100)
    metrics: dict[str, Any] = {
        **scores,
        "method": "pathotune",
        "backbone": {"name": "vit-mini"},
        "trained": {"parameters": 160_036, "share": 0.029, "backbone": 5_524_416},
        "training": {"best_epoch": 7, "epochs": 9, "stopped_early": True},
        "data": {"source": f"crops/{HOSTILE}", "patch_px": 48, "mpp": None},
        "data_digest": data,
        "split": {"train": {"patches": 640, "groups": 63}},
        "specs": {"tune": {"seed": 0}},
    }
    return TuningSection(name, json.loads(json.dumps(metrics)), *pictures())


@cache
def pictures() -> tuple[bytes, bytes, bytes]:
    drawn = curves_png(epochs(9), 7), confusion_png([[5, 1], [2, 4]], CLASSES)
    return shrink_png(drawn[0]), shrink_png(drawn[1]), shrink_png(np.zeros((40, 60, 3), np.uint8))


def page_of(*tunings: TuningSection) -> Page:
    return Page(render_report(ReportData("t", "today", (), tunings=tunings)))


def test_a_run_in_which_was_only_tuned_has_a_report_with_its_pictures() -> None:
    page = page_of(section("pathotune"))
    assert [attributes.get("id") for attributes in page.all("section")] == ["summary", "tuning", "provenance"]
    shown = [image for image in page.all("img") if (image["alt"] or "").endswith("of pathotune")]
    assert len(shown) == 3
    assert all(re.match("data:image/(webp|jpeg);base64,", image["src"] or "") for image in shown)
    assert "The tuned adapter pathotune reaches a macro F1 of" in page.text
    assert "on 120 test patches from 12 groups" in page.text
    assert "160 036 trained parameters (2.90% of the backbone); 640 training patches from 63 groups" in page.text
    assert "kept epoch 7 of 9, stopped early" in page.text
    assert re.search(r"95 % intervals by percentile bootstrap over the groups .* 100 resamples of 12 groups", page.text)


def test_every_name_is_escaped_and_nothing_comes_from_outside() -> None:
    page = page_of(section(HOSTILE), section("linear"))
    assert len(page.all("script")) == 1
    assert HOSTILE in page.text
    assert not any(attributes.get("id") == "x" for _, attributes in page.tags)
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all((value or "").startswith(("data:", "#")) for value in links)


def test_several_tunings_are_ranked_with_those_measured_on_test_patches_first() -> None:
    page = page_of(section("worse", 0.6), section("flattered", 0.95, "validation"), section("better", 0.9))
    text = page.text
    assert re.findall(r"(\w+) pathotune on vit-mini", text) == ["better", "worse", "flattered"]
    assert "The tuned adapter better reaches" in text
    assert "flattered was measured on validation patches" in text
    assert "Not all measured on the same patches" in text


@pytest.mark.parametrize(
    ("other", "words"), [("d1", "All measured on the same"), ("d2", "Not all measured on the same")]
)
def test_a_table_says_whether_its_rows_can_be_compared(other: str, words: str) -> None:
    assert words in page_of(section("a"), section("b", data=other)).text


def test_few_groups_are_a_caution() -> None:
    assert (
        "The test patches come from only 4 groups: the intervals are imprecise." in page_of(section("a", groups=4)).text
    )


def test_numbers_and_pictures_may_be_missing() -> None:
    page = page_of(
        TuningSection("bare"), TuningSection("null", {"pooled": {"macro_f1": {"value": None}}, "per_class": None})
    )
    assert "undefined" in page.text or "–" in page.text
    assert "reaches a macro F1" not in page.text
