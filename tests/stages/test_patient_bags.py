"""From feature stores to bags of slides and patients: row for row, each with its outcome, contradictions refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.feature_files import GEOMETRY
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import build_model
from wsi_pipeline.mil.tasks import make_task
from wsi_pipeline.mil.trained.checkpoint import load_ensemble, save_ensemble
from wsi_pipeline.stages.inputs.slide_bags import BagPart, SlideBags, gather
from wsi_pipeline.stages.predict import predict_slides
from wsi_pipeline.store.schema import FEATURE_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features

ENCODER = {"name": "colour", "fingerprint": "f"}
SPECS = {"tile": {"patch_px": 64, "mpp": 0.5, "overlap_px": 0}}


def write_store(run: RunDir, slide_id: str, features: np.ndarray, **changes: Any) -> None:
    slide = SlideIdentity(
        slide_id, slide_id, 640, 640, "v", "openslide", 20.0, 0.5, 0.5, "slide", f"file of {slide_id}"
    )
    header = Header(FEATURE_FORMAT, f"digest of {slide_id}", "p", slide, SPECS, {"encoder": ENCODER | changes})
    coords = np.stack([np.arange(len(features)) * 64, np.zeros(len(features))], axis=1).astype(np.int64)
    path = run.feature_store("colour", slide_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, header, GEOMETRY, coords, features)


def rows_of(slide: int, n: int) -> np.ndarray:
    return (100 * slide + np.arange(2 * n).reshape(n, 2)).astype(np.float32)


def cohort(run: RunDir, lengths: dict[str, int], **columns: dict[str, Any]) -> list[SlideRecord]:
    """Slides named by patient and number, as `p1-2`, with features that tell the slide and row."""
    records = []
    for i, (name, length) in enumerate(lengths.items()):
        write_store(run, name, rows_of(i, length))
        given = {column: values.get(name) for column, values in columns.items()}
        records.append(SlideRecord(name, Path(name), name.split("-")[0], **given))
    return records


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def test_slides_come_with_their_rows_and_outcomes(run: RunDir) -> None:
    records = cohort(
        run, {"p1-1": 2, "p2-1": 0, "p1-2": 3}, time={"p1-1": 4.5, "p1-2": 4.5}, event={"p1-1": 1, "p1-2": 1},
        site={"p2-1": "X"},
    )  # fmt: skip
    missing = SlideRecord("p3-1", Path("x"), "p3", time=1.0)
    slides = gather(run, [*records, missing], "colour")
    assert slides.table["slide_id"].tolist() == list(slides.bags.slide_ids) == ["p1-1", "p1-2"]
    assert slides.table["time"].tolist() == [4.5, 4.5]
    assert slides.left_out == {"p2-1": "empty", "p3-1": "not embedded with colour"}
    assert slides.digests == {"p1-1": "digest of p1-1", "p1-2": "digest of p1-2"}
    np.testing.assert_array_equal(slides.bags.bag(0), rows_of(0, 2))
    np.testing.assert_array_equal(slides.bags.bag(1), rows_of(2, 3))


def test_a_patient_is_all_its_slides_in_order(run: RunDir) -> None:
    lengths = {"p1-1": 2, "p2-1": 1, "p1-2": 3, "p3-1": 2, "p2-2": 4}
    slides = gather(run, cohort(run, lengths, label={"p1-1": "a", "p2-2": "b"}), "colour")
    patients = slides.by_patient()
    assert patients.table["slide_id"].tolist() == list(patients.bags.slide_ids) == ["p1", "p2", "p3"]
    assert patients.table["label"].tolist() == ["a", "b", None]
    np.testing.assert_array_equal(patients.bags.bag(0), np.concatenate([rows_of(0, 2), rows_of(2, 3)]))
    np.testing.assert_array_equal(patients.bags.bag(1), np.concatenate([rows_of(1, 1), rows_of(4, 4)]))
    assert patients.parts[1] == (BagPart("p2-1", 0, 1), BagPart("p2-2", 1, 5))
    known = patients.labelled()
    assert known.left_out == {"p3": "no label"}
    assert (len(known.parts), len(known.bags), list(known.digests)) == (2, 2, ["p1", "p2"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=10), st.randoms())
def test_every_row_is_in_the_part_of_its_slide(slides: list[tuple[int, int]], random: Any) -> None:
    arrays = [rows_of(i, n) for i, (_, n) in enumerate(slides)]
    ids = [f"s{i}" for i in range(len(slides))]
    table = pd.DataFrame({"slide_id": ids, "patient_id": [f"p{p}" for p, _ in slides]}, dtype=object)
    together = SlideBags(table, Bags.from_arrays(arrays, ids), {}, {}, dict.fromkeys(ids, "d"), {}).by_patient()
    assert len(together.bags.features) == sum(n for _, n in slides)
    seen = []
    for index, parts in enumerate(together.parts):
        bag = together.bags.bag(index)
        for part in parts:
            seen.append(part.slide_id)
            np.testing.assert_array_equal(bag[part.start : part.stop], arrays[int(part.slide_id[1:])])
    assert sorted(seen) == sorted(ids)


def test_contiguous_patients_share_the_memory_of_their_slides(run: RunDir) -> None:
    slides = gather(run, cohort(run, {"p1-1": 2, "p1-2": 3, "p2-1": 1}), "colour")
    assert slides.by_patient().bags.features is slides.bags.features


@pytest.mark.parametrize("column", ["label", "time", "event", "split"])
def test_slides_that_contradict_each_other_are_refused(run: RunDir, column: str) -> None:
    values = {"label": "ab", "time": [1.0, 2.0], "event": [0, 1], "split": ["train", "test"]}[column]
    given = dict(zip(["p1-1", "p1-2"], values, strict=True))
    slides = gather(run, cohort(run, {"p1-1": 2, "p1-2": 3}, **{column: given}), "colour")
    with pytest.raises(MilError, match=rf"slides of patient p1 differ in {column}: {values[0]} \(p1-1\), .* \(p1-2\)"):
        slides.for_training(MilSpec(bag="patient"))
    assert slides.by_patient(refuse=False).table[column].tolist() == [None]


def test_sites_and_files_of_a_patient(run: RunDir) -> None:
    records = cohort(run, {"p1-1": 1, "p1-2": 1, "p2-1": 1, "p3-1": 1}, site={"p1-1": "Y", "p1-2": "X", "p2-1": "Y"})
    slides = gather(run, records, "colour")
    slides.table["content"] = ["one", "two", "two", "three"]
    found = slides.by_patient().table
    assert found["site"].tolist() == ["X + Y", "Y", None]
    assert found["content"][0] == found["content"][1] != found["content"][2]


def test_a_digest_of_a_patient_knows_its_slides(run: RunDir) -> None:
    records = cohort(run, {"p1-1": 2, "p1-2": 3})
    whole = gather(run, records, "colour").by_patient().digests
    assert gather(run, records[:1], "colour").by_patient().digests != whole
    assert gather(run, records, "colour").by_patient().digests == whole


def test_survival_needs_both_columns(run: RunDir) -> None:
    records = cohort(run, {"p1-1": 1, "p2-1": 1, "p3-1": 1}, time={"p1-1": 1.0, "p2-1": 2.0}, event={"p1-1": 1})
    slides = gather(run, records, "colour")
    survival = slides.for_training(MilSpec(task="survival"))
    assert survival.table["slide_id"].tolist() == ["p1-1"]
    assert survival.left_out == {"p2-1": "no event", "p3-1": "no time"}
    with pytest.raises(MilError, match="no slide with features has `label`"):
        slides.for_training(MilSpec())


def test_other_weights_and_no_features_are_refused(run: RunDir) -> None:
    records = cohort(run, {"p1-1": 1, "p2-1": 1})
    write_store(run, "p2-1", rows_of(0, 1), fingerprint="g")
    with pytest.raises(MilError, match="p1-1 and p2-1 were embedded with other weights"):
        gather(run, records, "colour")
    with pytest.raises(MilError, match="no slide has features of uni"):
        gather(run, records, "uni")
    run.feature_store("colour", "p1-1").write_bytes(b"torn")
    with pytest.raises(StoreError):
        gather(run, records, "colour")


@pytest.mark.parametrize("bag", ["slide", "patient"])
@pytest.mark.parametrize("task", ["classification", "ordinal", "regression", "survival"])
def test_predictions_have_the_columns_of_their_task(run: RunDir, task: str, bag: str) -> None:
    lengths = {"p1-1": 2, "p2-1": 1, "p1-2": 3, "p3-1": 2, "p4-1": 4}
    label = {"classification": "abab", "ordinal": "1213", "regression": ["0.1", "0.2", "0.1", "0.5"]}.get(
        task, [None] * 4
    )
    names = ["p1-1", "p2-1", "p1-2", "p3-1"]
    labels, time, event = (dict(zip(names, values, strict=True)) for values in (label, [1.5, 2, 1.5, 3], [1, 1, 1, 0]))
    followed = {"time": time, "event": event} if task == "survival" else {}
    records = cohort(run, lengths, label=labels, **followed)
    spec = MilSpec(task=task, bag=bag, hidden_dim=4, attention_dim=2, time_bins=2)
    learned = make_task(gather(run, records, "colour").for_training(spec).table, spec)
    models = [build_model(spec, 2, learned.n_outputs) for _ in range(2)]
    save_ensemble(run.root / "m", models, spec=spec, task=learned, encoder=ENCODER, provenance={"specs": SPECS})
    path = predict_slides(run, records, load_ensemble(run.root / "m"), "cpu").path
    table = pd.read_csv(path)
    outcome = ["time", "event"] if task == "survival" else ["label"]
    told = {
        "classification": ["predicted", "p_a", "p_b"],
        "ordinal": ["predicted", "p_1", "p_2", "p_3"],
        "regression": ["predicted"],
        "survival": ["risk", "p_survived_1.5", "p_survived_2"],
    }[task]
    ids = ["patient_id"] if bag == "patient" else ["slide_id", "patient_id"]
    assert table.columns.tolist() == [*ids, *outcome, *told, "spread"]
    assert table["patient_id"].tolist() == (
        ["p1", "p2", "p3", "p4"] if bag == "patient" else ["p1", "p2", "p1", "p3", "p4"]
    )
    assert table[outcome[0]].isna().tolist() == [False] * (len(table) - 1) + [True]
    assert np.isfinite(table[[*told[-1:], "spread"]]).all(axis=None)
