"""Quality over a cohort: what follows the label, the report's section, its CSV, and what `check` notes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi
from scipy import stats

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide, write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.report.data import ReportData, SlideRow
from wsi_pipeline.report.page.html import render_report
from wsi_pipeline.report.page.quality_view import quality_cautions, quality_csv, quality_view
from wsi_pipeline.statistics.group_shift import group_shifts


def rows(groups: str, focus: list[float], sites: str | None = None) -> list[SlideRow]:
    """One slide per patient: label, site and focus; a second measure that is the same everywhere but for noise."""
    rng = np.random.default_rng(3)
    return [
        SlideRow(f"s{i}", "done", f"p{i}", label, sites[i] if sites else None,
                 quality={"focus": value, "saturation": float(rng.random())}, beyond={"focus": 0.0})
        for i, (label, value) in enumerate(zip(groups, focus, strict=True))
    ]  # fmt: skip


def test_the_exact_p_value_of_two_separated_groups_counts_arrangements() -> None:
    values = np.array([[1.0], [2.0], [3.0], [4.0], [11.0], [12.0], [13.0], [14.0]])
    (shift,) = group_shifts(values, list("aaaabbbb"))
    assert shift.p_value == pytest.approx(2 / 70)  # of 8! / (4! 4!) arrangements, the true one and its mirror image
    assert shift.smallest == pytest.approx(2 / 70)
    assert shift.medians == {"a": 2.5, "b": 12.5}
    assert shift.strength == pytest.approx(1 - 10 / 42)  # of ranks 1 to 8: 42 in all, 5 within each group


def test_values_without_order_do_not_differ_and_missing_ones_are_left_out() -> None:
    values = np.array([[1.0, np.nan], [8.0, 1.0], [3.0, 2.0], [6.0, 3.0], [2.0, 4.0], [7.0, 5.0]])
    first, second = group_shifts(values, list("aaabbb"))
    assert first.p_value > 0.5
    assert second.patients == 5
    assert group_shifts(values, list("abcdef")) is None


def test_strength_is_the_statistic_of_kruskal_and_wallis() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(size=40).round(1), rng.normal(size=40), np.ones(40)])
    values[rng.random(40) < 0.2, 1] = np.nan
    groups = np.array(list("abcd") * 10)
    ties, missing, same = group_shifts(values, groups.tolist())
    for column, shift in ((values[:, 0], ties), (values[:, 1], missing)):
        known = ~np.isnan(column)
        h = stats.kruskal(*(column[known & (groups == name)] for name in "abcd")).statistic
        assert shift.strength == pytest.approx(h / (known.sum() - 1))
    assert np.isnan(same.strength)


def test_correction_for_many_measures_makes_chance_rare() -> None:
    rng = np.random.default_rng(0)
    found = [min(s.p_value for s in group_shifts(rng.random((8, 10)), list("aaaabbbb"))) for _ in range(60)]
    assert np.mean(np.array(found) < 0.05) < 0.15


def test_a_quality_that_follows_the_label_is_a_caution() -> None:
    blurred = rows("aaaaabbbbb", [0.3, 0.31, 0.29, 0.33, 0.3, 0.5, 0.52, 0.49, 0.55, 0.51], "nnnnnsssss")
    (sentence,) = quality_cautions(quality_view(blurred))
    assert sentence.startswith("The quality measure focus follows the label (medians um: a 0.3, b 0.51; p = ")
    assert "It differs between sites as well." in sentence
    even = rows("ababababab", [0.3, 0.31, 0.29, 0.33, 0.3, 0.5, 0.52, 0.49, 0.55, 0.51])
    assert not quality_cautions(quality_view(even))
    assert not quality_cautions(None)


def test_a_cohort_too_small_to_show_anything_says_so() -> None:
    view = quality_view(rows("aabb", [0.3, 0.31, 0.5, 0.52]))
    assert view.notes == (
        "With 4 patients a difference between values of label cannot be shown: the smallest possible p-value is 0.33.",
    )
    assert not quality_cautions(view)


def test_patients_count_once() -> None:
    twice = rows("aaaabbbb", [0.3, 0.31, 0.29, 0.33, 0.5, 0.52, 0.49, 0.55])
    slides = [*twice, *twice, *twice]
    assert quality_view(slides).tests["label"]["focus"].patients == 8


def test_the_page_sorts_slides_by_quality_with_label_and_site() -> None:
    slides = rows("aabb", [0.3, 0.31, 0.5, 0.9], "nsns")
    page = render_report(ReportData("cohort", "today", tuple(slides)))
    section = page[page.index('<section id="quality">') :]
    section = section[: section.index("</section>")]
    assert 'class="sortable"' in section
    assert 'data-sort="0.9"' in section
    assert "focus um" in section
    assert "<td>n</td>" in section
    assert '<section id="quality">' not in render_report(ReportData("c", "t", (SlideRow("s", "done"),)))


def test_the_table_has_units_and_cannot_be_a_formula() -> None:
    slide = SlideRow("=1+1", "done", "p", "a", quality={"focus": 0.25}, beyond={"focus": 0.5}, dropped={"pen": 2})
    (row,) = csv.DictReader(quality_csv([slide]).splitlines())
    assert row["slide_id"] == "'=1+1"
    assert (row["focus_um"], row["focus_beyond"], row["dropped"], row["haematoxylin_OD"]) == ("0.25", "0.5", "2", "")


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of one sharp slide and one out of focus on its right half."""
    folder = tmp_path_factory.mktemp("blurred")
    write_cohort(folder, per_class=1, broken=False)
    picture = ndi.gaussian_filter(blob_slide(0), (3, 3, 0))
    write_pyramid_tiff(folder / "s0.svs", picture, mpp=0.5)
    return folder


def test_check_warns_of_a_slide_out_of_focus(blurred: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(blurred / "slides.csv"), "--patch-px", "128", "--run", str(blurred / "none")]
    assert main(words) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("s")}
    assert "out of focus (edges " in lines["s0"]
    assert "out of focus" not in lines["s1"]


def test_the_report_shows_what_tile_measured(blurred: Path) -> None:
    run = blurred / "run"
    words = ["tile", str(blurred / "slides.csv"), "--patch-px", "128", "--workers", "0", "--run", str(run)]
    assert main([*words, "--quality", "all"]) == 0
    assert main(["report", "--run", str(run)]) == 0
    table = {row["slide_id"]: row for row in csv.DictReader((run / "report/quality.csv").open())}
    assert float(table["s0"]["focus_um"]) > 0.5 > float(table["s1"]["focus_um"])
    assert float(table["s0"]["focus_beyond"]) > 0.9
    page = (run / "report/report.html").read_text()
    assert "Artefacts of s0" in page
    assert "Artefacts of s1" not in page
