"""The workflow tunes where its configuration says so, before what needs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cohort_plan import make_plan

from wsi_pipeline.errors import UsageError


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    """Slides, class folders and weights that are there, one encoder of each kind."""
    (tmp_path / "slides.csv").write_text("slide_id,path,label\ns1,s1.svs,a\n")
    (tmp_path / "crops" / "gland" / "patient 0").mkdir(parents=True)
    (tmp_path / "vit.safetensors").touch()
    return {
        "slides": str(tmp_path / "slides.csv"),
        "labels": str(tmp_path / "crops"),
        "tune": {"weights": str(tmp_path / "vit.safetensors"), "name": "mine", "device": "cuda"},
        "embed": [{"model": model} for model in ("colour", "pathotune", "pathotune:mine", "pathotune:other")],
    }


def test_only_what_is_tuned_here_is_waited_for(config: dict[str, object], tmp_path: Path) -> None:
    plan = make_plan(config)
    assert {encoder for encoder in plan.embed if plan.waits_for_tune(encoder)} == {"pathotune-mine"}
    assert plan.tune_weights == (str(tmp_path / "vit.safetensors"),)
    assert plan.tune is not None
    assert plan.tune.gpus == 1
    default = make_plan({**config, "tune": None})
    assert {encoder for encoder in default.embed if default.waits_for_tune(encoder)} == {"pathotune"}
    assert default.tune_weights == ()


def test_without_the_section_nothing_is_tuned(config: dict[str, object]) -> None:
    plan = make_plan({key: value for key, value in config.items() if key not in ("tune", "labels")})
    assert plan.tune is None
    assert not any(plan.waits_for_tune(encoder) for encoder in plan.embed)
    assert plan.tune_weights == ()


def test_labels_without_the_section_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="`labels` needs a section `tune`"):
        make_plan({key: value for key, value in config.items() if key != "tune"})


def test_a_new_image_is_noticed(config: dict[str, object], tmp_path: Path) -> None:
    before = make_plan(config).labels_watched
    assert make_plan(config).labels_watched == before
    place = tmp_path / "crops" / "gland" / "patient 0"
    (place / "new.png").touch()
    os.utime(place, ns=(1, 1))  # some file systems keep times too coarse for a test
    assert make_plan(config).labels_watched != before
