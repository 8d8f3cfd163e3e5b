"""The report's section on classes: bars in proportion, all text escaped, no section if nothing was classified."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wsi_pipeline.report.data import ClassRow, ClassSection, ReportData, SlideRow
from wsi_pipeline.report.maps.class_areas import class_colours
from wsi_pipeline.report.maps.pictures import shrink_png
from wsi_pipeline.report.page.class_view import fraction_bar, hex_of
from wsi_pipeline.report.page.html import render_report

CLASSES = ("stroma", "<b>tumour</b>", "fat & co")


def section() -> ClassSection:
    picture = shrink_png(np.full((60, 80, 3), 128, np.uint8))
    rows = (
        ClassRow("s01", 200, {"stroma": 0.5, CLASSES[1]: 0.25, CLASSES[2]: 0.15}, 0.1, picture),
        ClassRow("s02", 0),
    )
    return ClassSection("pathotune", "built-in", CLASSES, rows, ("patches of 64 um",))


def page(*sections: ClassSection) -> str:
    slides = (SlideRow("s01", "done"), SlideRow("s02", "empty"))
    return render_report(ReportData("cohort", "today", slides, classified=sections))


def test_segments_are_proportional_to_the_fractions() -> None:
    colours = class_colours(3)
    bar = str(fraction_bar([("a", 0.5, colours[0]), ("b", 0.3, colours[1]), ("c", 0.2, colours[2])], "s"))
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', bar)]
    starts = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', bar)]
    total = float(re.search(r'viewBox="0 0 ([\d.]+)', bar)[1])  # type: ignore[index]
    assert widths == pytest.approx([0.5 * total, 0.3 * total, 0.2 * total])
    assert starts == pytest.approx([0, 0.5 * total, 0.8 * total])
    assert "Classes of s: a 50 %, b 30 %, c 20 %" in bar
    assert [hex_of(colour) in bar for colour in colours] == [True] * 3


def test_classes_of_each_slide_with_legend_words_note_and_picture() -> None:
    html = page(section())
    assert html.count('class="swatch"') == 4  # three classes and what is unclear
    assert "stroma 50\u00a0%, &lt;b&gt;tumour&lt;/b&gt; 25\u00a0%, fat &amp; co 15\u00a0%, unclear 10\u00a0%" in html
    assert "<b>tumour</b>" not in html
    assert "Note: patches of 64 um." in html
    assert html.count("on the thumbnail of") == 1
    assert ">no patches</td>" in html
    assert 'href="#classes"' in html


def test_without_any_there_is_no_section() -> None:
    assert 'id="classes"' not in page()
    assert 'href="#classes"' not in page()
