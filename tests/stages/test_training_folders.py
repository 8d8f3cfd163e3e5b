"""Each question has a training folder of its own, and no result is replaced without being asked for or kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.stages.inputs.outcome_source import OutcomeSource
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.results.former import check_name
from wsi_pipeline.stages.results.trainings import read_training, trained_patients, training_name, trainings
from wsi_pipeline.stages.train_mil import train

SPEC = MilSpec(
    model="mean", hidden_dim=4, epochs=1, folds=2, allow_few=True, bootstrap=100, permutations=0, batch_bags=8
)


def slides(n: int = 12, *, turned: int = 0, patients: int | None = None) -> SlideBags:
    """Bags of n slides with label, time and event; `turned` of them have the other label."""
    rng = np.random.default_rng(0)
    ids = tuple(f"s{i}" for i in range(n))
    labels = [("a", "b")[(i + (i < turned)) % 2] for i in range(n)]
    table = pd.DataFrame(
        {
            "slide_id": ids,
            "patient_id": [f"p{i % (patients or n)}" for i in range(n)],
            "label": labels,
            "time": [1.0 + i % (patients or n) for i in range(n)],
            "event": 1,
        }
    )
    bags = Bags.from_arrays([rng.normal(size=(3, 4)).astype(np.float32) for _ in ids], ids)
    return SlideBags(table, bags, {"name": "colour"}, {}, dict.fromkeys(ids, "d"), {})


def of_column(bags: SlideBags, column: str) -> SlideBags:
    """The same bags, their labels read from another column than `label`."""
    return replace(bags, source=OutcomeSource(column))


def test_names_say_what_is_not_the_default() -> None:
    survival = replace(SPEC, task="survival")
    assert training_name(SPEC) == "mean"
    assert training_name(survival) == "mean.survival"
    assert training_name(replace(survival, survival_loss="cox", bag="patient")) == "mean.survival-cox.patient"
    assert training_name(replace(SPEC, survival_loss="cox")) == "mean", "of no account without survival"
    assert training_name(replace(SPEC, task="regression")) == "mean.regression"
    assert training_name(replace(SPEC, choose="abmil,mean", bag="patient")) == "chosen.patient"
    assert training_name(SPEC, "KRAS status/2024") == "mean.KRAS_status--2024"
    assert training_name(replace(SPEC, task="regression", bag="patient"), "tmb") == "mean.regression.patient.tmb"
    assert training_name(replace(survival, survival_loss="cox"), "pfs") == "mean.survival-cox.pfs"


def test_a_second_target_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run, bags = RunDir(tmp_path), slides()
    specs = [SPEC, *(replace(SPEC, task="survival", survival_loss=loss) for loss in ("discrete", "cox"))]
    made = [train(run, "colour", bags, spec).folder for spec in specs]
    assert [load_ensemble(folder).spec for folder in made] == specs
    assert len(trainings(run)) == 3
    assert all(train(run, "colour", bags, spec).fresh for spec in specs)


@pytest.mark.parametrize(
    ("spec", "bags", "said"),
    [
        (replace(SPEC, epochs=2), slides(), "epochs 1, not 2"),
        (replace(SPEC, seed=1, learning_rate=0.1), slides(), "seed 0, not 1, learning_rate 0.001, not 0.1"),
        (SPEC, slides(turned=1), "another label for 1 slide (s0: a, not b)"),
        (SPEC, slides(16, turned=3), "another label for 3 slides (s0: a, not b)"),
    ],
)
def test_other_settings_and_labels_are_refused(tmp_path: Path, spec: MilSpec, bags: SlideBags, said: str) -> None:
    run = RunDir(tmp_path)
    first = train(run, "colour", slides(), SPEC)
    before = (first.folder / "metrics.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        train(run, "colour", bags, spec)
    assert caught.value.what == f"{first.folder} holds a training with {said}"
    assert "--name NAME" in str(caught.value.todo)
    assert "--replace" in str(caught.value.todo)
    assert (first.folder / "metrics.json").read_bytes() == before
    named = train(run, "colour", bags, spec, name="other")
    assert named.folder == run.mil("colour", "other")
    assert named.former is None
    assert (first.folder / "metrics.json").read_bytes() == before


def test_what_is_replaced_when_asked_is_kept(tmp_path: Path) -> None:
    run, other = RunDir(tmp_path), replace(SPEC, epochs=2)
    first = train(run, "colour", slides(), SPEC)
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    second = train(run, "colour", slides(), other, replace=True)
    assert load_ensemble(second.folder).spec == other
    assert second.former is not None
    assert second.former.parent == run.root / "train-mil" / "colour" / "former"
    assert second.former.name == f"mean-{first.metrics['digest'][:8]}"
    assert {path.name: path.read_bytes() for path in second.former.iterdir()} == before
    assert load_ensemble(second.former).spec == SPEC
    assert [training.folder for training in trainings(run)] == [second.folder]
    third = train(run, "colour", slides(), SPEC, replace=True)
    fourth = train(run, "colour", slides(), other, replace=True)
    assert {f.former and f.former.name for f in (third, fourth)} == {
        f"mean-{second.metrics['digest'][:8]}", f"mean-{first.metrics['digest'][:8]}-2"
    }  # fmt: skip


def test_more_slides_of_the_same_labels_train_again_and_the_former_results_are_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first = train(run, "colour", slides(12), SPEC)
    second = train(run, "colour", slides(14), SPEC)
    assert (second.folder, second.metrics["n_slides"]) == (first.folder, 14)
    kept = read_training(second.former) if second.former else None
    assert kept is not None
    assert kept.metrics["n_slides"] == 12


def test_measured_labels_are_compared_as_numbers(tmp_path: Path) -> None:
    run, spec, bags = RunDir(tmp_path), replace(SPEC, task="regression"), slides()
    bags.table["label"] = [str(value) for value in np.linspace(1, 2, 12) / 3]
    train(run, "colour", bags, spec)
    more = slides(14)
    more.table["label"] = [f"{value:.17g}" for value in np.linspace(1, 2, 12) / 3] + ["0.5", "0.75"]
    assert train(run, "colour", more, spec).metrics["n_slides"] == 14
    more.table.loc[3, "label"] = "9"
    with pytest.raises(UsageError, match="another label for 1 slide"):
        train(run, "colour", more, spec)


def test_a_training_of_an_older_run_is_found_under_the_name_of_its_model(tmp_path: Path) -> None:
    run, spec = RunDir(tmp_path), replace(SPEC, task="survival")
    made = train(run, "colour", slides(), spec)
    made.folder.rename(run.mil("colour", "mean"))
    found = train(run, "colour", slides(), spec)
    assert found.fresh
    assert found.folder == run.mil("colour", "mean")


def test_two_columns_of_labels_stand_side_by_side_and_older_trainings_are_found(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    older = train(run, "colour", slides(), SPEC)
    same = train(run, "colour", of_column(slides(), "kras"), SPEC)
    assert (same.folder, same.fresh) == (older.folder, True)
    other = train(run, "colour", of_column(slides(turned=4), "msi"), SPEC)
    assert (other.folder, other.metrics["label_column"]) == (run.mil("colour", "mean.msi"), "msi")
    assert [training.folder.name for training in trainings(run)] == ["mean", "mean.msi"]
    assert train(run, "colour", of_column(slides(turned=4), "msi"), SPEC).fresh
    with pytest.raises(UsageError, match="another label for 4 slides"):
        train(run, "colour", of_column(slides(turned=8), "msi"), SPEC)


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "", "former", "a b"])
def test_names_that_cannot_name_a_folder_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name must be"):
        check_name(name)


def test_patients_who_only_tested_were_not_trained_on(tmp_path: Path) -> None:
    run, bags = RunDir(tmp_path), slides()
    assert trained_patients(train(run, "colour", bags, SPEC).folder) == {f"p{i}" for i in range(12)}
    bags.table["split"] = ["train"] * 8 + ["test"] * 4
    split = train(run, "colour", bags, SPEC, name="split").folder
    assert trained_patients(split) == {f"p{i}" for i in range(8)}
