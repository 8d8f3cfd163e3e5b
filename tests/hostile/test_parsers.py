"""Manifests, plans and annotations that our guards refuse: each is read or refused by a named error.

`corpus/` holds one file for each guard, the mildest that it still has to refuse: nothing there harms a program that has
no such guard. Hypothesis makes the rest up.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.work import calls
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.formulas import is_formula, safe_cell
from wsi_pipeline.cohort.manifest import read_cohort, to_csv
from wsi_pipeline.commands.run import read_plan
from wsi_pipeline.commands.shell.safeyaml import MAX_VALUES, _check_size, read_yaml
from wsi_pipeline.config.fields import validate
from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.errors import LabelError, ManifestError, UsageError, WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.labelled.open_labelled import open_labelled
from wsi_pipeline.labelled.sources.annotation_files import read_annotation
from wsi_pipeline.labelled.sources.regions import class_areas

CORPUS = Path(__file__).parent / "corpus"
LONGEST_MESSAGE = 20_000


def _corpus(name: str) -> Any:
    return pytest.mark.parametrize("path", sorted((CORPUS / name).iterdir()), ids=lambda path: path.name)


def _told(error: WsiPipelineError) -> None:
    """An error is short, and says nothing of Python."""
    assert 0 < len(str(error)) < LONGEST_MESSAGE
    assert "Traceback" not in str(error)


@_corpus("manifests")
def test_hostile_manifests_are_refused(path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read_cohort([path])
    _told(caught.value)


_CELL = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["=1+1", "@x", "-2+3", "+", "../x", "~", "~x/y", "/abs/x", '"', "a\nb", "\0", "nan", "1e999"]),
)
_HEADER = st.sampled_from(
    ["slide_id", "path", "patient_id", "label", "mpp", "split", "time", "event", "annotation", "x"]
)


@settings(max_examples=150, deadline=None)
@given(header=st.lists(_HEADER, min_size=1, max_size=6), rows=st.lists(st.lists(_CELL, max_size=7), max_size=6))
def test_any_table_is_a_cohort_or_a_manifest_error(header: list[str], rows: list[list[str]]) -> None:
    text = "\n".join(",".join(row) for row in [header, *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slides.csv"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            cohort = read_cohort([path])
        except UsageError as error:
            _told(error)
            return
        for record in cohort.records:
            for value in (record.slide_id, record.patient_id, record.label, record.site):
                assert value is None or not is_formula(value)
            assert "/" not in record.slide_id
        path.write_text(to_csv(cohort), encoding="utf-8")
        assert [r.slide_id for r in read_cohort([path], mixed_labels=True).records] == [
            r.slide_id for r in cohort.records
        ]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_cohort_or_a_usage_error(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slides.csv"
        path.write_bytes(raw)
        try:
            read_cohort([path])
        except UsageError as error:
            _told(error)


def _read_long(rows: int, folder: Path) -> None:
    path = folder / "slides.csv"
    lines = (f"s{k},slides/s{k}.svs,p{k // 2},{'ab'[k // 2 % 2]}" for k in range(rows))
    path.write_text("slide_id,path,patient_id,label\n" + "\n".join(lines))
    cohort = read_cohort([path])
    assert (len(cohort), cohort.patients) == (rows, rows // 2)
    assert len(to_csv(cohort).splitlines()) == rows + 1


def test_long_manifests_are_work_in_proportion(tmp_path: Path) -> None:
    assert calls(_read_long, 4000, tmp_path) < 4.5 * calls(_read_long, 1000, tmp_path)


@pytest.mark.parametrize("rows", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_long_manifests_are_read_and_written(rows: int, tmp_path: Path) -> None:
    _read_long(rows, tmp_path)


def test_a_long_manifest_of_faults_is_told_in_a_screen_or_two(tmp_path: Path) -> None:
    path = tmp_path / "slides.csv"
    path.write_text("slide_id,path\n" + "\n".join(f"a/{k},x.svs" for k in range(5000)))
    with pytest.raises(ManifestError, match=r"5 000 faults[\s\S]*and 9 800 more"):
        read_cohort([path])


@pytest.mark.parametrize("text", ["=1+1", "+1-2", "-2+3", "@SUM(A1)", "\t=1", "=", "-x"])
def test_formulas_are_known(text: str) -> None:
    assert is_formula(text)
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "-1", "+0.5", "-1e-3", "+", "++", "+++", "-", "tumour", "a=b", "3+", "1-2"])
def test_numbers_grades_and_words_are_no_formulas(text: str) -> None:
    assert not is_formula(text)
    assert safe_cell(text) == text


@pytest.mark.parametrize("row", ["a.png,=1+1,g,", "a.png,x,@g,", "=a.png,x,g,"])
def test_labels_that_are_formulas_are_refused(row: str, tmp_path: Path) -> None:
    for name in ("a.png", "=a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label,group\n{row.rstrip(',')}\nb.png,y,h\n")
    with pytest.raises(LabelError, match="would be run as a formula"):
        open_labelled(table)


@_corpus("plans")
def test_hostile_plans_are_refused_before_any_work(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / path.name
    plan.write_bytes(path.read_bytes())
    assert main(["run", str(plan)]) == 2
    assert 0 < len(capsys.readouterr().err) < LONGEST_MESSAGE
    assert sorted(tmp_path.iterdir()) == [plan]


def test_deep_and_long_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("slides: " + "[" * 1000 + "]" * 1000)
    with pytest.raises(UsageError, match="not valid YAML: nested too deep"):
        read_yaml(path)
    path.write_text("slides: [" + "a," * (MAX_VALUES + 1) + "]")
    with pytest.raises(UsageError, match="more than 20000 values"):
        read_yaml(path)
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MB"):
        read_yaml(path)


def test_a_list_that_holds_itself_is_too_large() -> None:
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(UsageError, match="more than 20000 values"):
        _check_size(itself, Path("a.yaml"))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:- \n[]{}&*!?|>'\"#,%@`~0.1", max_size=60))
def test_any_text_is_a_plan_or_a_usage_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(text)
        try:
            read_plan(path)
        except UsageError as error:
            _told(error)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_options_are_finite(value: float) -> None:
    with pytest.raises(UsageError, match=r"min_tissue_um2 must be"):
        validate(SegmentSpec(min_tissue_um2=value))


def _read(path: Path) -> None:
    """Read an annotation and make areas of it, within a slide."""
    try:
        annotation = read_annotation(path)
    except LabelError as error:
        _told(error)
        return
    slide = Size(1000, 1000)
    for area in class_areas(annotation.regions, slide).values():
        assert area.is_valid
        assert area.area <= slide.pixels


@_corpus("annotations")
def test_hostile_annotations_are_read_or_refused(path: Path) -> None:
    _read(path)


@pytest.mark.parametrize("name", ["entity.xml", "outside.xml", "no_numbers.xml", "words.geojson", "collection.geojson"])
def test_what_is_no_annotation_is_refused(name: str) -> None:
    with pytest.raises(LabelError):
        read_annotation(CORPUS / "annotations" / name)


def test_an_outline_that_crosses_itself_all_over_is_read(tmp_path: Path) -> None:
    ring = [[(k * 7919) % 1000, (k * 104729) % 997] for k in range(1500)]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
               "properties": {"classification": {"name": "a"}}}  # fmt: skip
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(feature))
    _read(path)


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(
        ["type", "geometry", "coordinates", "properties", "classification", "name", "features", "geometries"]), inner,
        max_size=4)),
    max_leaves=12,
)  # fmt: skip
_RINGS = st.lists(st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=3), max_size=6))
_GEOMETRY = st.fixed_dictionaries(
    {"type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "LineString", "GeometryCollection", "x"]),
     "coordinates": st.one_of(_JSON, _RINGS)}
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(geometry=st.one_of(_GEOMETRY, _JSON), properties=_JSON)
def test_any_json_is_an_annotation_or_a_label_error(geometry: Any, properties: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.geojson"
        path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))
        _read(path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.one_of(st.floats(), st.text("0123456789.,-eExX", max_size=6))] * 3), max_size=6))
def test_any_asap_outline_is_an_annotation_or_a_label_error(corners: list[tuple[Any, Any, Any]]) -> None:
    points = "".join(f'<Coordinate Order="{o}" X="{x}" Y="{y}"/>' for o, x, y in corners)
    text = (
        '<ASAP_Annotations><Annotations><Annotation Type="Polygon" PartOfGroup="a"><Coordinates>'
        f"{points}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        path.write_text(text)
        _read(path)
