"""The reason why an output is computed again names the setting that changed, switched on or off."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wsi_pipeline.config.patch_specs import TileSpec
from wsi_pipeline.config.specs import EmbedSpec
from wsi_pipeline.stages.engine.freshness import OFF, REVISIONS, stale

SPECS = {"tile": TileSpec(), "embed": EmbedSpec(model="colour")}
ELSEWHERE = {"quality", "stain_target"}
"""The first changes no patch; the second is told by the first of the two stain settings."""


def reason(stage: str, before: Any, now: Any) -> str:
    header: Any = SimpleNamespace(specs={stage: before.facts()}, extra={"revision": REVISIONS[stage]})
    return stale(Path("x.h5"), header, {stage: now.facts()}).reason


@pytest.mark.parametrize("stage", SPECS)
def test_every_setting_that_stores_leave_out_has_its_value_here(stage: str) -> None:
    left_out = {key: value for key, value in asdict(SPECS[stage]).items() if key not in SPECS[stage].facts()}
    assert left_out
    assert {key: OFF[key] for key in left_out.keys() - ELSEWHERE} == {
        key: left_out[key] for key in left_out.keys() - ELSEWHERE
    }


@pytest.mark.parametrize(
    ("stage", "field", "value"),
    [
        ("tile", "drop_artefacts", True),
        ("embed", "whole_patch", True),
        ("embed", "input_px", 448),
        ("embed", "stain_norm", "macenko"),
        ("tile", "patch_px", 512),
    ],
)
def test_it_is_named_when_switched_on_and_when_switched_off(stage: str, field: str, value: Any) -> None:
    plain = SPECS[stage]
    other = type(plain)(**{**asdict(plain), field: value})
    usual = getattr(plain, field)
    assert f"{field} {usual} -> {value}" in reason(stage, plain, other)
    assert f"{field} {value} -> {usual}" in reason(stage, other, plain)


def test_the_same_settings_leave_the_input() -> None:
    assert reason("tile", SPECS["tile"], SPECS["tile"]) == "its input has changed"
