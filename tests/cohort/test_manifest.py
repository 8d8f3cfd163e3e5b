"""The manifest: every fault at once, the peers' columns, odd encodings, folders and globs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dicom_files import write_dicom_slide
from tests.slide_files import tissue_like
from wsi_pipeline.cohort.formulas import is_formula
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord, id_problem, read_cohort, to_csv
from wsi_pipeline.cohort.table_words import is_missing
from wsi_pipeline.errors import ManifestError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.svs", "b.svs", "c.ome.tiff"):
        (tmp_path / name).write_bytes(b"slide")
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "slides.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table_of_slide_names_says_where_it_looks_for_them(folder: Path) -> None:
    found = read_cohort([write(folder, "slide,label\na,x\nb,y\n")])
    assert [record.path.name for record in found.records] == ["a.svs", "b.svs"]
    assert not any("file not found" in str(note) for note in found.notes)
    lost = read_cohort([write(folder, "slide,label\na,x\nelsewhere,y\n")])
    note = next(str(note) for note in lost.notes if "file not found" in str(note))
    assert "no column `path`" in note
    assert note.endswith(str(folder / "elsewhere"))
    with pytest.raises(ManifestError, match="row 3: the name of the slide is empty"):
        read_cohort([write(folder, "slide,label\na,x\n,y\n")])


def test_plain(folder: Path) -> None:
    path = write(folder, "slide_id,path,patient_id,label,mpp,site\ns1,a.svs,p1,tumour,0.25,X\ns2,b.svs,p2,normal,,\n")
    cohort = read_cohort([path])
    first, second = cohort.records
    assert first == SlideRecord("s1", folder / "a.svs", "p1", "tumour", 0.25, "X")
    assert second.mpp is None
    assert second.site is None
    assert cohort.label_counts() == {"normal": 1, "tumour": 1}
    assert cohort.notes == ()


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("wsi", "a.svs"),
        ("filename", "a.svs"),
        ("FILENAME,PATIENT", "a.svs,p9"),
        ("slide_id", "a.svs"),
        ("Slide Path,Case-ID", "a.svs,p9"),
        ("slide,file,case_id", "a,a.svs,p9"),
    ],
)
def test_the_peers_columns_are_understood(folder: Path, header: str, row: str) -> None:
    (record,) = read_cohort([write(folder, f"{header}\n{row}\n")]).records
    assert record.slide_id == "a"
    assert record.path == folder / "a.svs"
    assert record.patient_id == ("p9" if "p9" in row else "a")


def test_every_fault_is_told_at_once_with_its_row(folder: Path) -> None:
    text = (
        "slide_id,path,patient_id,label,mpp,split\n"
        "s1,a.svs,p1,tumour,0.25,train\n"
        "s1,b.svs,p2,normal,,train\n"  # row 3: duplicate id
        "x/y,b.svs,p3,normal,,train\n"  # row 4: separator
        "s4,b.svs,p1,normal,,train\n"  # row 5: patient with two labels
        "s5,b.svs,p5,normal,300,train\n"  # row 6: implausible mpp
        "s6,b.svs,p6,normal,fine,train\n"  # row 7: no number
        "s7,,p7,normal,,train\n"  # row 8: no path
        "s8,b.svs,p8,normal,,holdout\n"  # row 9: split
        "s9,gone.svs,p9,,,train\n"  # row 10: missing file and empty label
    )
    with pytest.raises(ManifestError) as caught:
        read_cohort([write(folder, text)])
    told = str(caught.value)
    for row, word in [
        (3, "twice"), (4, "separator"), (5, "two labels"), (6, "0.05"), (7, "number"), (8, "path is empty"),
        (9, "split"), (10, "file not found"), (10, "empty label"),
    ]:  # fmt: skip
        assert any(f"row {row}:" in line and word in line for line in told.splitlines()), (row, word, told)


def test_a_missing_file_and_an_empty_label_do_not_stop_a_cohort(folder: Path) -> None:
    cohort = read_cohort([write(folder, "slide_id,path,label\ns1,a.svs,x\ns2,gone.svs,y\ns3,b.svs,\ns4,b.svs,NA\n")])
    assert len(cohort) == 4
    assert [note.row for note in cohort.notes] == [3, 4, 5]
    assert [record.label for record in cohort.records] == ["x", "y", None, None]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_marks_semicolons_and_encodings_of_office_programs(folder: Path, encoding: str) -> None:
    (cohort) = read_cohort([write(folder, "slide_id;path;site;mpp\ns1;a.svs;Zürich;0,25\n", encoding)])
    assert cohort.records[0].site == "Zürich"
    assert cohort.records[0].mpp == 0.25
    told = " ".join(str(note) for note in cohort.notes)
    assert "semicolon" in told
    assert "byte-order mark" in told or encoding == "cp1252"


def test_mixed_labels_only_where_asked_for(folder: Path) -> None:
    path = write(folder, "slide_id,path,patient_id,label\ns1,a.svs,p1,x\ns2,b.svs,p1,y\n")
    with pytest.raises(ManifestError, match="two labels"):
        read_cohort([path])
    assert len(read_cohort([path], mixed_labels=True)) == 2


def test_two_columns_of_one_meaning_are_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"'wsi', 'filename' all mean path"):
        read_cohort([write(folder, "wsi,filename\na.svs,b.svs\n")])


@pytest.mark.parametrize("text", ["", "slide_id,path\n", "colour,size\n1,2\n"])
def test_nothing_usable_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ManifestError):
        read_cohort([write(folder, text)])


def test_folder_glob_and_files(folder: Path) -> None:
    (folder / "notes.txt").write_text("no slide")
    assert [record.slide_id for record in read_cohort([folder]).records] == ["a", "b", "c"]
    assert [record.slide_id for record in read_cohort([str(folder / "*.svs")]).records] == ["a", "b"]
    assert [record.slide_id for record in read_cohort([folder / "b.svs", folder / "a.svs"]).records] == ["a", "b"]
    with pytest.raises(UsageError, match="no slides at"):
        read_cohort([str(folder / "*.ndpi")])


def test_hidden_files_and_heatmaps_of_a_run_are_no_slides(folder: Path) -> None:
    run = folder / "wsi-run"
    for name in ("._a.svs", ".snapshot/nightly/a.svs", "wsi-run/heatmap/colour/mean/a.tif", "heatmap/d.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (run / "cohort.csv").write_text("path\n")
    assert [record.slide_id for record in read_cohort([folder]).records] == ["a", "b", "c", "d"]
    assert [record.slide_id for record in read_cohort([str(folder / "**" / "*.tif")]).records] == ["d"]
    assert [record.slide_id for record in read_cohort([run / "heatmap/colour/mean/a.tif"]).records] == ["a"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["slides.csv", "a.svs"], "cannot be combined with other sources"),
        (["slides.csv", "slides.csv"], "cannot be combined with other sources"),
        (["slides.xlsx"], r"slides\.xlsx is not an \.xlsx file"),
        (["slides.xlsx", "a.svs"], "cannot be combined with other sources"),
        (["a.svs", "slides.ods"], "slides.ods is a spreadsheet"),
    ],
)
def test_tables_are_not_taken_for_slides(folder: Path, names: list[str], told: str) -> None:
    for name in ("slides.csv", "slides.xlsx", "slides.ods"):
        (folder / name).write_text("path\na.svs\n")
    with pytest.raises(UsageError, match=told):
        read_cohort([folder / name for name in names])


def test_folders_whose_names_are_not_utf8_are_refused(folder: Path) -> None:
    odd = folder / os.fsdecode(b"pr\xe4p")
    odd.mkdir()
    (odd / "d.svs").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"pr\\udce4p.*UTF-8"):
        read_cohort([odd])


@pytest.mark.parametrize("text", ["path,label\ra.svs,x\rb.svs,y\r", "path,label\r\na.svs,x\r\nb.svs,y\r\n"])
def test_line_ends_of_other_systems(folder: Path, text: str) -> None:
    assert [record.label for record in read_cohort([write(folder, text)]).records] == ["x", "y"]


def test_a_quotation_mark_that_is_not_closed_swallows_no_slide(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"row 2: label 'x\\nb.svs,y' holds a line break"):
        read_cohort([write(folder, 'path,label\na.svs,"x\nb.svs,y\n')])


@pytest.mark.parametrize("path", [".", "/", "./"])
def test_a_path_without_a_name_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(ManifestError, match="does not name a slide"):
        read_cohort([write(folder, f"path,label\n{path},x\n")])


def test_home_is_known_in_every_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (record,) = read_cohort([write(folder, "path,annotation\n~/a.svs,~/a.geojson\n")]).records
    assert (record.path, record.annotation) == (folder / "a.svs", folder / "a.geojson")


def test_a_name_without_suffix_finds_its_slide(folder: Path) -> None:
    cohort = read_cohort([write(folder, "slide_id,case_id\na,p1\nb,p2\nnone,p3\n")])
    assert [record.path.name for record in cohort.records] == ["a.svs", "b.svs", "none"]
    (folder / "a.tif").write_bytes(b"x")  # two it could be: not for us to choose
    cohort = read_cohort([write(folder, "slide_id,case_id\na,p1\nb,p2\n")])
    assert [record.path.name for record in cohort.records] == ["a", "b.svs"]


def test_a_dicom_folder_is_one_slide(folder: Path) -> None:
    write_dicom_slide(folder / "dcm", tissue_like(256, 256), "1.2.3", ["level0.dcm", "level1.dcm"])
    found = [record.slide_id for record in read_cohort([folder]).records if record.path.suffix == ".dcm"]
    assert found == ["dcm"]


def test_same_name_in_two_folders_gives_ids_from_the_folders(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "a.svs").write_bytes(b"x")
    assert {"more-a", f"{folder.name}-a"} <= {record.slide_id for record in read_cohort([folder]).records}


plain = st.text(st.characters(categories=("L", "N"), include_characters=" _-.,;\"'"), min_size=1, max_size=20)


@given(st.lists(st.tuples(plain, plain, plain), min_size=1, max_size=8))
def test_written_and_read_back_equal(rows: list[tuple[str, str, str]]) -> None:
    records = tuple(
        SlideRecord(f"s{i}", Path("/nowhere") / f"{i}.svs", f"p{i}", label.strip() or None, 0.25, site.strip() or None)
        for i, (label, site, _) in enumerate(rows)
        if not (label.strip() and is_missing(label))
        and not (site.strip() and is_missing(site))
        and not is_formula(label.strip())
        and not is_formula(site.strip())
    )
    if not records:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.csv"
        path.write_text(to_csv(Cohort(records, "x")), encoding="utf-8")
        assert read_cohort([path], mixed_labels=True).records == records


@pytest.mark.parametrize("bad", ["a/b", "a\\b", "..", ".hidden", "a\nb", " a", "a ", "x" * 200, "a\x00b"])
def test_ids_that_cannot_name_a_file(bad: str) -> None:
    assert id_problem(bad)


@pytest.mark.parametrize("good", ["TCGA-CR-7395-01A", "slide 7", "Zürich_3", "a.b.c"])
def test_ids_that_can(good: str) -> None:
    assert id_problem(good) is None


def test_only_names_what_is_unknown(folder: Path) -> None:
    cohort = read_cohort([folder])
    assert [record.slide_id for record in cohort.only(["b"])] == ["b"]
    with pytest.raises(UsageError, match="not in the cohort: z"):
        cohort.only(["b", "z"])


times = st.floats(1e-6, 1e9).map(lambda value: round(value, 6)).filter(lambda value: value > 0)


@given(st.lists(st.tuples(st.none() | times, st.sampled_from([None, 0, 1])), min_size=1, max_size=8))
def test_outcomes_written_and_read_back_equal(rows: list[tuple[float | None, int | None]]) -> None:
    records = tuple(
        SlideRecord(f"s{i}", Path("/nowhere") / f"{i}.svs", f"p{i}", time=time, event=event)
        for i, (time, event) in enumerate(rows)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.csv"
        path.write_text(to_csv(Cohort(records, "x")), encoding="utf-8")
        back = read_cohort([path])
    assert back.records == records
    known = [event for time, event in rows if time is not None and event is not None]
    assert back.event_counts() == (len(known), sum(known))


@pytest.mark.parametrize("word", ["1", "1.0", "yes", "Dead", "DECEASED", "1:DECEASED", "true", " event "])
def test_words_for_an_event(folder: Path, word: str) -> None:
    (record,) = read_cohort([write(folder, f"path,time,event\na.svs,3,{word}\n")]).records
    assert (record.time, record.event) == (3.0, 1)


@pytest.mark.parametrize("word", ["0", "0.0", "No", "alive", "Living", "0:LIVING", "FALSE", "censored"])
def test_words_for_none(folder: Path, word: str) -> None:
    (record,) = read_cohort([write(folder, f"wsi,OS_MONTHS,Vital-Status\na.svs,3.5,{word}\n")]).records
    assert (record.time, record.event) == (3.5, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s1,a.svs,long,1", "row 2: time of s1 must be a number, got 'long'"),
        ("s1,a.svs,inf,1", "row 2: time of s1 must be a number, got 'inf'"),
        ('s1,a.svs,"1,234",1', "got '1,234', which may be 1234 or a decimal comma"),
        ("s1,a.svs,3,2", "row 2: event of s1 must be 1 or 0 (or yes, y, true, dead"),
        ("s1,a.svs,3,maybe", "got 'maybe'"),
    ],
)
def test_outcomes_that_are_none(folder: Path, row: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read_cohort([write(folder, f"slide_id,path,time,event\n{row}\n")])
    assert message in str(caught.value)


def test_decimal_commas_and_unknown_outcomes(folder: Path) -> None:
    text = "path;time;event\na.svs;12,5;ja\n"
    with pytest.raises(ManifestError, match="event of a must be 1 or 0"):
        read_cohort([write(folder, text)])
    records = read_cohort([write(folder, text.replace("ja", "Not Reported") + "b.svs;0,345;1\n")]).records
    assert [(record.time, record.event) for record in records] == [(12.5, None), (0.345, 1)]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_patient_has_one_outcome(folder: Path, mixed: bool) -> None:
    path = write(folder, "path,patient,time,event\na.svs,p1,3,1\nb.svs,p1,4,1\nc.ome.tiff,p1,3,0\n")
    with pytest.raises(ManifestError) as caught:
        read_cohort([path], mixed_labels=mixed)
    assert "row 3: patient 'p1' has two times: 3.0 (row 2), 4.0" in str(caught.value)
    assert "row 4: patient 'p1' has two events: 1 (row 2), 0" in str(caught.value)


def test_half_an_outcome_is_said(folder: Path) -> None:
    cohort = read_cohort([write(folder, "path,time,event\na.svs,3,\nb.svs,,1\nc.ome.tiff,,\n")])
    assert [str(note) for note in cohort.notes] == [
        "row 2: empty event: a is not used for survival",
        "row 3: empty time: b is not used for survival",
    ]
    assert cohort.event_counts() == (0, 0)
    (note,) = read_cohort([write(folder, "path,time\na.svs,3\n")]).notes
    assert str(note) == "row 1: column time without a column event: no survival model can be trained"
