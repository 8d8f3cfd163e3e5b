"""How metrics and their estimates are written."""

from __future__ import annotations

import pytest

from wsi_pipeline.statistics.metric_words import estimate_words, metric_words, p_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auroc", "AUROC"), ("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1"),
        ("c_index", "C-index"), ("integrated_brier", "integrated Brier score"), ("r2", "R²"),
        ("class_f1", "class F1"), ("recall", "recall"),
    ],
)  # fmt: skip
def test_metrics_are_written_as_people_write_them(name: str, words: str) -> None:
    assert metric_words(name) == words


def test_estimates_show_their_interval_where_there_is_one() -> None:
    assert estimate_words(0.9123, 0.8, 0.95) == "0.912 [0.800, 0.950]"
    assert estimate_words(0.9123, 0.8, 0.95, interval="({low}–{high})") == "0.912 (0.800–0.950)"
    assert estimate_words(1234.5, 1200.0, 1300.0, digits="#.3g") == "1.23e+03 [1.20e+03, 1.30e+03]"
    assert estimate_words(0.5, None, 0.6) == "0.500"
    assert estimate_words(None, 0.1, 0.2) == "undefined"


def test_p_values_have_the_digits_that_matter() -> None:
    assert [p_words(value) for value in (0.21, 0.1, 0.0449, 0.00099)] == [
        "p = 0.21",
        "p = 0.10",
        "p = 0.045",
        "p < 0.001",
    ]
