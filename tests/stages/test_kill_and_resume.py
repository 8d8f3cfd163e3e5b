"""Killed at random instants and resumed, a run ends with the files of one that nobody disturbed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.stages.cohorts import write_cohort

OPTIONS = {
    "tile": ["--patch-px", "128", "--pixels", "raw"],
    "embed": ["--model", "colour"],
    "train-mil": ["--folds", "2", "--epochs", "3"],
}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, kills: int) -> None:
    kill = script("kill_and_resume")
    csv = write_cohort(tmp_path / "cohort", per_class=3)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    seconds = kill.undisturbed(kill.steps(csv, calm, OPTIONS))
    hits = kill.disturbed(kill.steps(csv, rough, OPTIONS), seconds, kills, seed=kills)
    assert hits >= kills // 2
    assert kill.differences(calm, rough) == []
    assert not list(rough.rglob("*.tmp"))


def test_the_comparison_notices_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    kill = script("kill_and_resume")
    for run in ("a", "b"):
        (tmp_path / run / "tile").mkdir(parents=True)
        (tmp_path / run / "tile" / "x.h5").write_text(run)
    (tmp_path / "a" / "tile" / "y.h5").write_text("only here")
    assert kill.differences(tmp_path / "a", tmp_path / "b") == ["tile/x.h5", "tile/y.h5"]
