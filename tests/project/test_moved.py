"""Old module names: each still imports what is there now, and says the new name."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import warnings

import pytest

from wsi_pipeline.moved import MODULES


@pytest.mark.parametrize("old", MODULES)
def test_every_place_exists_and_the_old_one_is_free(old: str) -> None:
    for place in MODULES[old]:
        assert importlib.util.find_spec(f"wsi_pipeline.{place}") is not None
    sys.modules.pop(f"wsi_pipeline.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"has moved: import wsi_pipeline.{MODULES[old][0]}"):
        importlib.import_module(f"wsi_pipeline.{old}")


def test_names_are_those_of_the_new_place() -> None:
    from wsi_pipeline.config.specs import LabelSpec
    from wsi_pipeline.store.tables.feature_table import read_feature_table, write_features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        features = importlib.import_module("wsi_pipeline.store.features")
        specs = importlib.import_module("wsi_pipeline.specs")
    assert features.read_features is read_feature_table
    assert features.write_features is write_features
    assert specs.LabelSpec is LabelSpec
    with pytest.raises(AttributeError, match=r"it is now wsi_pipeline\.config\.specs"):
        _ = specs.NothingOfThisName


def test_an_unknown_module_is_unknown_still() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"wsi_pipeline\.nonsense"):
        importlib.import_module("wsi_pipeline.nonsense")


def test_a_script_goes_on() -> None:
    script = (
        "from wsi_pipeline.store.features import read_features; from wsi_pipeline.labelled.open import open_labelled"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert "wsi_pipeline.store.features has moved: import wsi_pipeline.store.tables.feature_table" in done.stderr
