"""The smallest cohorts train and are reported; predictions of other runs are read as what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsi_pipeline.cohort.manifest import Cohort
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.report import write_report
from wsi_pipeline.stages.results.trainings import trainings
from wsi_pipeline.stages.train_mil import train

SPEC = MilSpec(hidden_dim=4, attention_dim=4, epochs=1, folds=2, allow_few=True, bootstrap=100, permutations=0)


def slides(n: int) -> SlideBags:
    rng = np.random.default_rng(0)
    ids = tuple(f"s{i}" for i in range(n))
    table = pd.DataFrame({"slide_id": ids, "patient_id": ids, "label": ["a", "b"] * (n // 2)})
    bags = Bags.from_arrays([rng.normal(size=(3, 4)).astype(np.float32) for _ in ids], ids)
    return SlideBags(table, bags, {"name": "colour"}, {}, dict.fromkeys(ids, "d"), {})


def test_two_slides_train_though_they_cannot_say_what_is_far(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    folder = train(run, "colour", slides(4), SPEC, device="cpu").folder
    assert novelty.load(folder) is not None
    train(run, "colour", slides(2), SPEC, device="cpu")
    assert novelty.load(folder) is None
    assert [training.metrics["n_slides"] for training in trainings(run)] == [2]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("slide_id,predicted,p_00,p_01\ns,01,0.25,0.75\n", '<td>01</td><td class="n">0.750</td>'),
        ("slide_id,predicted,spread\ns,12.34567,0.5\n", "<td>12.35</td>"),
    ],
)
def test_classes_that_are_numbers_are_no_measurements(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "predict" / "colour" / "mean" / "predictions.csv"
    path.parent.mkdir(parents=True)
    path.write_text(table)
    assert said in write_report(RunDir(tmp_path), Cohort((), "here")).read_text(encoding="utf-8")
