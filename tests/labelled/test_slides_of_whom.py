"""Annotated slides whose patients nobody names: asked for before any slide is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.open_labelled import open_labelled

ASKED = "the patients of these slides are not known"


def table(folder: Path, column: str) -> Path:
    rows = [f"Q{n // 2},P{n // 2:02d}_{n % 2}.svs,o{n}.geojson" for n in range(8)]
    path = folder / "slides.csv"
    path.write_text("\n".join([f"{column},path,annotation", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("column", "spec", "options", "asked"),
    [
        ("scanner", LabelSpec(), TableOptions(), True),
        ("pid", LabelSpec(), TableOptions(), False),
        ("scanner", LabelSpec(), TableOptions(each_slide_a_patient=True), False),
        ("scanner", LabelSpec(), TableOptions(patient_column="scanner"), False),
        ("scanner", LabelSpec(group_column="slide_id"), TableOptions(), False),
        ("scanner", LabelSpec(group_pattern="(P[0-9]+)"), TableOptions(), False),
    ],
)
def test_asked_before_any_slide_is_opened(
    tmp_path: Path, column: str, spec: LabelSpec, options: TableOptions, asked: bool
) -> None:
    """None of the slides is there: whoever is not asked hears of that."""
    with pytest.raises(LabelError) as caught:
        open_labelled(table(tmp_path, column), spec, options=options)
    assert (ASKED in str(caught.value)) == asked


def test_class_folders_have_no_columns(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(LabelError, match="class folders have no columns"):
        open_labelled(tmp_path, options=TableOptions(patient_column="pid"))
