"""classify in the workflow: only where it is asked for, after the tuning it uses, anew when its files change."""

from __future__ import annotations

from pathlib import Path

import pytest
from cohort_plan import make_plan

from wsi_pipeline.errors import UsageError


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("slides.csv").write_text("slide_id,path\ns1,s1.svs\n")
    return "slides.csv"


def test_it_is_left_out_unless_named(slides: str) -> None:
    plan = make_plan({"slides": slides})
    assert plan.classify is None
    assert not plan.classify_waits_for_tune
    assert plan.classify_weights == ()
    named = make_plan({"slides": slides, "classify": None}).classify
    assert named is not None
    assert named.flags == ()


@pytest.mark.parametrize(
    ("tune", "model", "waits"),
    [
        (None, "pathotune", True),
        ({"method": "lora"}, "pathotune:lora", True),
        ({"method": "lora"}, "pathotune", False),
        ({"name": "mine"}, "pathotune:mine", True),
    ],
)
def test_it_waits_for_the_tuning_it_uses(slides: str, tune: object, model: str, waits: bool) -> None:
    assert make_plan({"slides": slides, "tune": tune, "classify": {"model": model}}).classify_waits_for_tune is waits
    assert not make_plan({"slides": slides, "classify": {"model": model}}).classify_waits_for_tune


def test_its_adapter_and_weights_are_watched_where_they_are_there(slides: str) -> None:
    Path("a.safetensors").touch()
    for adapter, watched in (("a.safetensors", ("a.safetensors",)), ("built-in", ()), ("none", ())):
        plan = make_plan({"slides": slides, "classify": {"adapter": adapter}, "embed": {"adapter": adapter}})
        assert tuple(Path(path).name for path in plan.classify_weights) == watched
        assert tuple(Path(path).name for path in plan.weights("colour")) == watched


def test_other_encoders_do_not_classify(slides: str) -> None:
    with pytest.raises(UsageError, match="model must be pathotune or pathotune:NAME"):
        make_plan({"slides": slides, "classify": {"model": "colour"}})
