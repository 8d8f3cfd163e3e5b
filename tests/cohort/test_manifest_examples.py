"""What manifests/ shows is what the reader understands: the examples, the schema, every key of cohort.yaml."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.cohort.manifest import MAX_ID_LENGTH, SPLITS, Cohort, SlideRecord, id_problem, read_cohort
from wsi_pipeline.cohort.table_words import UNKNOWN
from wsi_pipeline.cohort.tables.cells import HAPPENED, NOT_SEEN
from wsi_pipeline.cohort.tables.columns import ALIASES
from wsi_pipeline.commands.catalogue import COMMANDS
from wsi_pipeline.commands.run import STEPS, TOP_KEYS, read_plan
from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.config.units import MAX_MPP, MIN_MPP
from wsi_pipeline.files.path_choices import split_choice

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
EXAMPLES = MANIFESTS / "examples"
OPTIONS = {command.name: command.options for command in COMMANDS if command.name in STEPS}


def schema() -> dict[str, Any]:
    return dict(json.loads((MANIFESTS / "slides.schema.json").read_text(encoding="utf-8")))


def read_example(name: str, folder: Path) -> Cohort:
    """An example, copied to `folder`, with an empty file for each slide it names there."""
    path = Path(shutil.copy(EXAMPLES / name, folder))
    for record in read_cohort([path]).records:
        if record.path.is_relative_to(folder):
            record.path.parent.mkdir(parents=True, exist_ok=True)
            split_choice(record.path)[0].touch()
    return read_cohort([path])


def notes(cohort: Cohort) -> list[str]:
    return [str(note) for note in cohort.notes]


def test_minimal(tmp_path: Path) -> None:
    cohort = read_example("minimal.csv", tmp_path)
    assert [record.slide_id for record in cohort.records] == ["a1", "a2", "b1", "b2"]
    assert cohort.label_counts() == {"normal": 2, "tumour": 2}
    assert cohort.patients == 4
    assert notes(cohort) == []


def test_full_uses_every_column(tmp_path: Path) -> None:
    cohort = read_example("full.csv", tmp_path)
    for field in dataclasses.fields(SlideRecord):
        assert any(getattr(record, field.name) is not None for record in cohort.records), field.name
    assert cohort.patients == 7
    by_id = {record.slide_id: record for record in cohort.records}
    assert by_id["a1"].patient_id == by_id["a1-recut"].patient_id == "P01"
    assert by_id["a1"].annotation == tmp_path / "outlines" / "a1.geojson"
    assert by_id["b2"].mpp == 0.2425
    assert by_id["c1"].path == Path("/archive/2019/c1.mrxs")
    assert [(by_id[name].time, by_id[name].event) for name in ("a1", "b2", "c3")] == [(41.5, 1), (55, 0), (None, None)]
    assert notes(cohort) == [
        "row 7: file not found: /archive/2019/c1.mrxs",
        "row 9: empty label: c3 is tiled and embedded, but not used for training",
    ]


def test_trident_list(tmp_path: Path) -> None:
    first, second = read_example("trident.csv", tmp_path).records
    assert (first.slide_id, first.mpp) == ("TCGA-AA-0001-01Z-00-DX1", 0.2525)
    assert second.path == tmp_path / "batch2" / "TCGA-AA-0002-01Z-00-DX1.svs"


def test_clam_table(tmp_path: Path) -> None:
    cohort = read_example("clam.csv", tmp_path)
    assert [record.slide_id for record in cohort.records] == ["slide_1", "slide_2", "slide_3"]
    assert [record.patient_id for record in cohort.records] == ["patient_0", "patient_0", "patient_1"]
    assert cohort.label_counts() == {"tumor_tissue": 2, "normal_tissue": 1}


def test_stamp_table(tmp_path: Path) -> None:
    cohort = read_example("stamp.csv", tmp_path)
    assert cohort.patients == 2
    assert cohort.label_counts() == {"MSIH": 2, "nonMSIH": 1}
    assert cohort.records[1].path == tmp_path / "TCGA-AA-0001-01Z-00-DX2.svs"


def test_semicolons_byte_order_mark_and_decimal_commas(tmp_path: Path) -> None:
    cohort = read_example("semicolon.csv", tmp_path)
    assert [record.mpp for record in cohort.records] == [0.2525, 0.5]
    assert cohort.records[0].label == "Grünwald-positiv"
    assert len(notes(cohort)) == 2
    assert "byte-order mark" in notes(cohort)[0]
    assert "semicolon" in notes(cohort)[1]


def test_survival(tmp_path: Path) -> None:
    cohort = read_example("survival.csv", tmp_path)
    assert [record.time for record in cohort.records] == [412, 412, 1830, 96, 730.5]
    assert [record.event for record in cohort.records] == [1, 1, 0, 1, 0]
    assert cohort.event_counts() == (4, 2)
    assert notes(cohort) == []


def test_regression(tmp_path: Path) -> None:
    cohort = read_example("regression.csv", tmp_path)
    assert [record.label for record in cohort.records] == ["0.35", "0.02", "0.81", "0.5"]
    assert notes(cohort) == []


def test_readme_names_the_words_for_events() -> None:
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    words = re.search(r"\| 1 \| 0 \|\n\|---\|---\|\n(.*)\n", text)
    assert words
    seen, unseen = words[1].strip("| ").split(" | ")
    assert seen == ", ".join(f"`{word}`" for word in HAPPENED)
    assert unseen == ", ".join(f"`{word}`" for word in NOT_SEEN)
    assert all(f"`{word}`" in text for word in UNKNOWN)


def test_every_example_csv_has_a_test_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.csv"):
        assert f'"{path.name}"' in source


def test_schema_names_the_columns_and_their_aliases() -> None:
    columns = schema()["properties"]
    assert list(columns) == [field.name for field in dataclasses.fields(SlideRecord)]
    assert {name: tuple(column["x-aliases"]) for name, column in columns.items()} == ALIASES


def test_schema_has_the_limits_of_the_reader() -> None:
    columns = schema()["properties"]
    assert (columns["mpp"]["minimum"], columns["mpp"]["maximum"]) == (MIN_MPP, MAX_MPP)
    assert columns["split"]["enum"] == [*SPLITS, None]
    assert columns["slide_id"]["maxLength"] == MAX_ID_LENGTH


@given(st.text(alphabet=string.printable + "\x7f", min_size=1, max_size=160))
def test_schema_pattern_agrees_with_the_reader(slide_id: str) -> None:
    column = schema()["properties"]["slide_id"]
    fits = re.fullmatch(column["pattern"], slide_id) is not None and len(slide_id) <= column["maxLength"]
    assert fits == (id_problem(slide_id) is None)


@pytest.mark.parametrize("name", [path.name for path in sorted(EXAMPLES.glob("*.csv"))])
def test_examples_fit_the_schema(tmp_path: Path, name: str) -> None:
    """The few keywords our schema uses, checked by hand: type, enum, limits, pattern."""
    checks = {"string": str, "number": float, "null": type(None)}
    for record in read_example(name, tmp_path).records:
        for key, column in schema()["properties"].items():
            value = getattr(record, key)
            value = str(value) if isinstance(value, Path) else value
            kinds = column.get("type", [])
            if kinds:
                kinds = [kinds] if isinstance(kinds, str) else kinds
                assert isinstance(value, tuple(checks[kind] for kind in kinds)), (name, key)
            if "enum" in column:
                assert value in column["enum"]
            if "pattern" in column:
                assert re.search(column["pattern"], value)


def sections(plan: dict[str, Any], step: str) -> list[dict[str, Any]]:
    value = plan[step]
    return value if isinstance(value, list) else [value]


def test_cohort_yaml_is_read_and_every_value_fits() -> None:
    plan = read_plan(EXAMPLES / "cohort.yaml")
    assert set(plan) == set(TOP_KEYS)
    assert (EXAMPLES / plan["slides"]).is_file()
    for step in STEPS:
        for section in sections(plan, step):
            known: set[str] = set()
            for kind in OPTIONS[step]:
                names = {field.name for field in dataclasses.fields(kind)}
                from_mapping(kind, {key: value for key, value in section.items() if key in names}, step)
                known |= names
            assert set(section) <= known


@pytest.mark.parametrize("step", STEPS)
def test_cohort_yaml_shows_every_option_with_its_default(step: str) -> None:
    shown = sections(read_plan(EXAMPLES / "cohort.yaml"), step)[0]
    defaults = {field.name: field.default for kind in OPTIONS[step] for field in dataclasses.fields(kind)}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    assert shown == defaults


def test_readme_names_every_column_alias_and_example() -> None:
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    for name, aliases in ALIASES.items():
        assert f"`{name}`" in text
        for alias in aliases:
            assert f"`{alias}`" in text, alias
    for path in EXAMPLES.iterdir():
        assert f"examples/{path.name}" in text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n", '"sep=;"\r\n', "SEP=;;;;\r\n"])
def test_tables_that_excel_writes(tmp_path: Path, first: str, encoding: str) -> None:
    text = (
        'path;patient_id;label;mpp;comment\r\ns1.svs;P1;Gr\u00fcn;0,25;"two\r\nlines; quoted"\r\ns2.svs;P2;rot;0,5;\r\n'
    )
    (tmp_path / "slides.csv").write_bytes((first + text).encode(encoding))
    records = read_cohort([tmp_path / "slides.csv"]).records
    assert [(r.slide_id, r.patient_id, r.label, r.mpp) for r in records] == [
        ("s1", "P1", "Gr\u00fcn", 0.25),
        ("s2", "P2", "rot", 0.5),
    ]
