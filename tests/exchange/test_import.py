"""Importing into a run: what matches, what is refused, what is known of a slide afterwards, and rows by coordinates."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.exchange import foreign_files as files
from tests.exchange.importing import imported, slide
from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.errors import MilError
from wsi_pipeline.exchange.readers.slide_names import match_names
from wsi_pipeline.stages.inputs.slide_bags import gather
from wsi_pipeline.store.tables.feature_table import FeatureTable, read_feature_table

IDS = ("s1", "s2", "s3")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def features(folder: str = "features_uni_v1", ids: tuple[str, ...] = IDS, dim: int = 8) -> Path:
    for number, name in enumerate(ids):
        files.trident(
            Path(folder, f"{name}.h5"), files.features_of(10 + number, dim, number), files.coords_of(10 + number)
        )
    return Path(folder)


def labels(ids: tuple[str, ...] = IDS) -> Path:
    return files.labels_csv(Path("labels.csv"), [(f"p{k}", name, "ab"[k % 2]) for k, name in enumerate(ids)])


def store(name: str, encoder: str = "uni_v1") -> FeatureTable:
    return read_feature_table(Path("wsi-run/embed", encoder, f"{name}.h5"))


def test_rows_and_what_is_said_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    said = imported("features", str(features()), "--labels", str(labels()), capsys=capsys)
    assert "3 slides from TRIDENT in features_uni_v1: encoder uni_v1, 8 features per patch" in said
    assert "3 of 3 slides in labels.csv have a file" in said
    assert "next: wsi-pipeline train-mil" in said
    table = store("s2")
    assert np.array_equal(table.features, files.features_of(11, 8, 1))
    assert table.features.dtype == np.float32
    assert np.array_equal(table.coords, files.coords_of(11))
    facts, extra = table.header.slide, table.header.extra
    assert (facts.width, facts.height, facts.mpp, facts.mpp_source, facts.quick_digest) == (
        1200,
        900,
        0,
        "not known",
        "",
    )
    assert (table.geometry.patch_px, table.geometry.patch_level0, table.geometry.mpp) == (64, 128, 0)
    assert extra["encoder"] == {"name": "uni_v1", "dim": 8, "fingerprint": ""}
    told = {key: extra["imported"][key] for key in ("tool", "file", "coords", "encoder_stated_by")}
    assert told == {"tool": "TRIDENT", "file": "s2.h5", "coords": "level0", "encoder_stated_by": "file"}
    with h5py.File("wsi-run/embed/uni_v1/s2.h5") as file:
        assert {"mpp", "patch_size"} <= set(file["coords"].attrs)
        assert "overlap_px" not in file["coords"].attrs


def test_again_is_up_to_date_and_a_changed_file_is_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    folder, table = features(), labels()
    words = ("features", str(folder), "--labels", str(table))
    imported(*words)
    assert "3 up to date" in imported(*words, capsys=capsys)
    files.trident(folder / "s1.h5", files.features_of(7, 8, 9), files.coords_of(7))
    said = imported(*words, capsys=capsys)
    assert "2 up to date" in said
    assert "1 slide recomputed, embed/uni_v1: its file has changed" in said
    assert len(store("s1").coords) == 7


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["s1.svs", "S2"], ["s1", "s2.h5"], {"s1.svs": "s1", "S2": "s2.h5"}),
        (["TCGA-1-DX1"], ["TCGA-1-DX1.5F2A-77"], {"TCGA-1-DX1": "TCGA-1-DX1.5F2A-77"}),
        (["TCGA-1-DX1"], ["TCGA-1-DX1.a", "TCGA-1-DX1.b"], {}),
        (["a.ome.tiff"], ["a"], {"a.ome.tiff": "a"}),
        (["s1", "s1.svs"], ["s1"], {"s1": "s1"}),
        (["x.svs", "x.ndpi"], ["x"], {}),
    ],
)  # fmt: skip
def test_ids_match_with_or_without_suffixes_where_there_is_no_choice(
    ids: list[str], names: list[str], expected: dict[str, str]
) -> None:
    found = match_names(ids, names)
    assert found.names == expected
    assert set(found.without) == set(ids) - set(expected)
    assert set(found.left) == set(names) - set(expected.values())


def test_the_message_says_what_matched_and_what_did_not(capsys: pytest.CaptureFixture[str]) -> None:
    folder = features(ids=("s1", "s2", "x9"))
    said = imported("features", str(folder), "--labels", str(labels(("s1.svs", "s2.svs", "s3.svs"))), capsys=capsys)
    assert "2 of 3 slides in labels.csv have a file; no file for s3; no row for x9" in said
    assert "file not found" not in said


def test_a_faulty_file_of_features_is_no_missing_slide(capsys: pytest.CaptureFixture[str]) -> None:
    folder = features()
    np.save(folder / "s2.npy", np.zeros((4, 8), "int64"))
    (folder / "s2.h5").unlink()
    said = imported("features", str(folder), "--labels", str(labels()), code=3, capsys=capsys)
    assert "s2     FAILED s2.npy is int64" in said
    assert "file not found" not in said


def one(rows: Any, coords: Any, **attrs: Any) -> None:
    files.trident(Path("features_uni_v1/s2.h5"), rows, coords, **attrs)


X, XY = files.features_of(10), files.coords_of(10)
NAN, INFINITE = X.copy(), X.copy()
NAN[3, 1], INFINITE[4, 2] = np.nan, np.inf
AFAR = XY.copy()
AFAR[7] = (5000, 0)


@pytest.mark.parametrize(
    ("rows", "coords", "why"),
    [
        (files.features_of(10, 6), XY, "s2.h5 has 6 features per patch, 2 of 3 files here have 8"),
        (X, files.coords_of(7), "s2.h5 has 10 rows of features, but 7 coordinates"),
        (X, AFAR, "1 of 10 patches of s2.h5 lie off the slide of 1200 x 900 pixels, the first is row 7 at (5000, 0)"),
        (NAN, XY, "1 of 10 rows of s2.h5 hold NaN, the first is row 3"),
        (INFINITE, XY, "1 of 10 rows of s2.h5 hold infinity, the first is row 4"),
        (INFINITE.astype(np.float16), XY, "the first is row 4: the largest float16 is 65504"),
        (X.astype(np.float64) * 1e40, XY, "the largest float32 is 3.4e38"),
    ],
)
def test_a_bad_slide_is_named_and_the_others_go_on(
    rows: Any, coords: Any, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = features()
    one(rows, coords)
    said = imported("features", str(folder), "--labels", str(labels()), code=3, capsys=capsys)
    assert "s2 FAILED" in " ".join(said.split())
    assert why in " ".join(said.split())
    assert "2 slides in wsi-run/embed/uni_v1/" in said
    status = json.loads(Path("wsi-run/status/s2.json").read_text())
    assert why in status["reason"]
    assert status["todo"]
    assert f"s2: {status['todo']}" in said
    assert "s2" in gather_run().left_out


def gather_run() -> Any:
    from wsi_pipeline.cohort.run_dir import RunDir

    run = RunDir(Path("wsi-run"))
    return gather(run, read_cohort([run.cohort_csv], mixed_labels=True).records, "uni_v1")


def test_every_kind_of_failed_slide_gets_what_to_do_and_the_counts_agree(capsys: pytest.CaptureFixture[str]) -> None:
    folder = features(ids=("s1", "s2", "s3", "s4"))
    (folder / "s5.h5").write_bytes((folder / "s1.h5").read_bytes()[:900])
    np.save(folder / "s6.npy", X.astype("int64"))
    one(NAN, XY)
    np.save(folder / "s4.npy", X)
    (folder / "s4.h5").unlink()
    (folder / "again").mkdir()
    (folder / "again/s3.h5").write_bytes((folder / "s3.h5").read_bytes())
    table = labels(("s1", "s2", "s3", "s4", "s5", "s6", "s7"))
    said = " ".join(imported("features", str(folder), "--labels", str(table), code=3, capsys=capsys).split())
    assert "files 6 slides from TRIDENT (2), .npy files (1) in features_uni_v1, 3 of them not usable: encoder" in said
    assert "matched 6 of 7 slides in labels.csv have a file, 3 of them not usable; no file for s7" in said
    assert "4 of 6 failed" in said
    failed = [json.loads(path.read_text()) for path in sorted(Path("wsi-run/status").glob("*.json"))]
    todos = {item["slide_id"]: item["todo"] for item in failed if item["state"] == "failed"}
    assert set(todos) == {"s2", "s3", "s5", "s6"}
    assert all(todo and todo in said for todo in todos.values())


def test_one_sentence_for_all_slides_that_need_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    folder = features(ids=tuple(f"s{k}" for k in range(9)))
    for k in range(7):
        files.trident(folder / f"s{k}.h5", NAN, XY)
    said = imported("features", str(folder), code=3, capsys=capsys)
    assert "s0, s1, s2, s3, s4 and 2 more: Recompute the features of this slide." in said


def no_ids() -> tuple[str, ...]:
    features()
    return ("features", "features_uni_v1", "--labels", str(labels(("a1", "a2"))))


def no_id() -> tuple[str, ...]:
    features()
    return ("features", "features_uni_v1", "--labels", str(labels(("a1",))))


def two_encoders() -> tuple[str, ...]:
    features("job/features_uni_v1", ("s1", "s2"))
    for name in ("s1", "s3"):
        files.trident(Path(f"job/features_conch_v15/{name}.h5"), X, XY, encoder="conch_v15")
    return ("features", "job", "--labels", str(labels()))


def no_encoder() -> tuple[str, ...]:
    files.clam(Path("feats"), "s1", X, XY)
    return ("features", "feats", "--labels", str(labels()))


def other_encoder() -> tuple[str, ...]:
    return ("features", str(features()), "--labels", str(labels()), "--encoder", "gigapath")


def two_widths() -> tuple[str, ...]:
    features(ids=("s1",))
    files.trident(Path("features_uni_v1/s2.h5"), X[:, :5], XY)
    return ("features", "features_uni_v1", "--labels", str(labels()))


def nothing() -> tuple[str, ...]:
    Path("empty").mkdir()
    return ("features", "empty", "--labels", str(labels()))


def no_word() -> tuple[str, ...]:
    return (str(features()),)


def slide_vectors() -> tuple[str, ...]:
    """Slide embeddings in a folder whose name does not say which patch features they pool."""
    Path("slide_features_ours").mkdir()
    with h5py.File("slide_features_ours/s1.h5", "w") as file:
        file["features"] = np.zeros(768, np.float32)
    return ("features", "slide_features_ours", "--labels", str(labels()))


def only_bad() -> tuple[str, ...]:
    files.trident(Path("features_uni_v1/s1.h5"), NAN, XY)
    return ("features", "features_uni_v1", "--labels", str(labels()))


@pytest.mark.parametrize(
    ("make", "why", "todo"),
    [
        (no_ids, "none of the 2 slides of labels.csv has a file in features_uni_v1: the table has a1, a2, the files "
         "are s1, s2, s3", "with or without suffixes"),
        (no_id, "the only slide of labels.csv has no file in features_uni_v1: the table has a1", "suffixes"),
        (two_encoders, "job holds features of 2 encoders: conch_v15 (2 files: s1.h5, s3.h5), uni_v1 (2 files: s1.h5, "
         "s2.h5)", "--encoder conch_v15"),
        (no_encoder, "feats does not say which encoder made the features", "--encoder NAME"),
        (other_encoder, "no features of gigapath in features_uni_v1: its files say uni_v1", "Leave --encoder out"),
        (two_widths, "features_uni_v1 holds features of different widths: 8 (s1.h5), 5 (s2.h5)", "one encoder only"),
        (nothing, "no features in empty", "TRIDENT, CLAM, STAMP"),
        (no_word, "import takes features or patches and files or folders", "import features"),
        (slide_vectors, "no features in slide_features_ours: features of s1.h5 is one vector of 768 values",
         "wsi-pipeline embed-slides"),
        (only_bad, "no slide was imported: s1: 1 of 10 rows of s1.h5 hold NaN", "Recompute"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused_in_a_sentence(
    make: Any, why: str, todo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = imported(*make(), code=2, capsys=capsys)
    assert why in said
    assert todo in said
    assert "Traceback" not in said


def test_one_of_several_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    two_encoders()
    imported("features", "job", "--labels", "labels.csv", "--encoder", "conch_v15")
    assert sorted(path.name for path in Path("wsi-run/embed/conch_v15").iterdir()) == ["s1.h5", "s3.h5"]
    assert not Path("wsi-run/embed/uni_v1").exists()


def test_clam_h5_is_taken_where_pt_is_there_too_and_the_user_names_the_encoder() -> None:
    for name in IDS:
        files.clam(Path("feats"), name, X, XY)
    imported("features", "feats", "--labels", str(labels()), "--encoder", "resnet50_trunc")
    table = store("s1", "resnet50_trunc")
    assert np.array_equal(table.coords, XY)
    assert (table.header.extra["imported"]["tool"], table.geometry.patch_level0) == ("CLAM layout", 0)
    assert table.geometry.stride_level0 == 128


def test_rows_without_coordinates_take_those_of_a_file_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    for name in IDS:
        files.clam(Path("feats"), name, X, XY)
        files.clam_coords(Path("patches", f"{name}.h5"), XY)
    words = ("features", "feats/pt_files", "patches", "--labels", str(labels()), "--encoder", "r")
    imported(*words)
    table = store("s1", "r")
    assert np.array_equal(table.coords, XY)
    assert (table.geometry.patch_px, table.geometry.patch_level0) == (128, 128)
    files.clam_coords(Path("patches/s2.h5"), files.coords_of(9))
    said = " ".join(imported(*words, code=3, capsys=capsys).split())
    assert "s2.pt has 10 rows of features, but 9 coordinates" in said


def test_coordinates_of_both_files_must_be_the_same_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    folder, table = features(), labels()
    for number, name in enumerate(IDS):
        files.trident_coords(
            Path("patches", f"{name}_patches.h5"), files.coords_of(10 + number)[:: 1 if number else -1]
        )
    said = imported("features", str(folder), "patches", "--labels", str(table), code=3, capsys=capsys)
    assert "the coordinates of s1.h5 and s1_patches.h5 differ, first in row 0: not the same patches" in said
    assert "2 slides in" in said


def test_stamp_counts_pixels_where_the_slide_is_there_and_micrometres_where_not() -> None:
    for name in IDS:
        files.stamp(Path("feats", f"{name}.h5"), X, XY * 0.5)
    slide("s1")
    files.labels_csv(Path("slides/labels.csv"), [(f"p{k}", name, "ab"[k % 2]) for k, name in enumerate(IDS)])
    imported("features", "feats", "--labels", "slides/labels.csv")
    here, gone = store("s1", "mahmood-uni"), store("s2", "mahmood-uni")
    assert np.array_equal(here.coords, XY)
    assert (here.geometry.patch_level0, here.geometry.mpp) == (128, 1.0)
    assert here.header.slide.mpp_source == "slide"
    assert np.array_equal(gone.coords, np.rint(XY * 0.5))
    assert (gone.header.extra["imported"]["coords"], gone.geometry.patch_level0) == ("micrometres", 64)
    assert gone.geometry.mpp == 1.0


def test_a_slide_of_another_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folder = features()
    for name in IDS:
        slide(name, width=1000 if name == "s3" else files.WIDTH)
    said = imported("features", str(folder), "--labels", str(labels()), "--slides", "slides", code=3, capsys=capsys)
    assert "s3.h5 belongs to a slide of 1200 x 900 pixels, this slide has 1000 x 900" in said
    assert store("s1").header.slide.mpp == 0.5


def test_rows_are_compared_by_coordinates_not_only_by_digests() -> None:
    """A patch store of 8 rows beside features of 10 that name its digest as their parent's."""
    from tests.stages import feature_runs
    from wsi_pipeline.cohort.run_dir import RunDir
    from wsi_pipeline.store.schema import PATCH_FORMAT, Header
    from wsi_pipeline.store.tables.patch_table import write_patches
    from wsi_pipeline.tiling.grid import PatchGrid

    run = RunDir(Path("wsi-run"))
    records = feature_runs.cohort(run, "p", 2, label=["a", "b"])
    known = read_feature_table(run.feature_store("colour", "p0-0"))
    header = Header(PATCH_FORMAT, "p", "s", known.header.slide, known.header.specs, {"patches": 5})
    path = run.patch_store("p0-0")
    path.parent.mkdir()
    write_patches(path, header, known.geometry, PatchGrid(known.coords, np.ones(6, np.float32)))
    assert len(gather(run, records, "colour").bags) == 2
    write_patches(path, header, known.geometry, PatchGrid(known.coords[:5], np.ones(5, np.float32)))
    with pytest.raises(MilError, match="p0-0: features of colour do not match the slide's patches: the coordinates"):
        gather(run, records, "colour")
    write_patches(path, header, known.geometry, PatchGrid(known.coords[::-1].copy(), np.ones(6, np.float32)))
    with pytest.raises(MilError, match="the coordinates differ"):
        gather(run, records, "colour")


def test_the_cohort_names_the_features_where_a_slide_is_not_there() -> None:
    imported("features", str(features()), "--labels", str(labels()))
    with Path("wsi-run/cohort.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["s1.h5", "s2.h5", "s3.h5"]
    assert [row["patient_id"] for row in rows] == ["p0", "p1", "p2"]
