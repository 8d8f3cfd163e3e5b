"""Configurations: JSON there and back, unknown keys and values out of range refused with their name."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathotune.config import PathoTuneConfig, TaskText
from pathotune.errors import ConfigError

words = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12).filter(
    lambda name: name.strip()
)
names = st.lists(words, max_size=5, unique=True).map(tuple)
tasks = st.builds(TaskText, stain=words, organ=words, task=words, classes=names)
configs = st.builds(
    PathoTuneConfig,
    classes=names,
    tvp_tokens=st.integers(0, 1024),
    tvp_depth=st.sampled_from(["deep", "shallow"]),
    ttp=st.booleans(),
    ttp_tokens=st.integers(1, 512),
    text_encoder=words,
    tasks=st.lists(tasks, min_size=1, max_size=3).map(tuple),
    ivp_tokens=st.integers(0, 16),
    vrm_input=st.sampled_from(["pixels", "patches"]),
    vrm_width=st.integers(2, 64).map(lambda value: 4 * value),
    head_dropout=st.floats(0, 0.99),
)


@given(configs)
def test_json_there_and_back_is_the_same(config: PathoTuneConfig) -> None:
    assert PathoTuneConfig.from_json(config.to_json()) == config
    assert PathoTuneConfig.from_json(config.to_json()).to_json() == config.to_json()


def test_every_field_is_in_the_json() -> None:
    assert set(json.loads(PathoTuneConfig().to_json())) == {field.name for field in dataclasses.fields(PathoTuneConfig)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tvp_tokens", -1),
        ("tvp_tokens", 1025),
        ("tvp_tokens", True),
        ("tvp_tokens", 2.0),
        ("tvp_tokens", "10"),
        ("tvp_depth", "middle"),
        ("tvp_depth", ["deep"]),
        ("ttp", 1),
        ("ttp_tokens", 0),
        ("ttp_pooling", "max"),
        ("text_encoder", ""),
        ("text_encoder", 3),
        ("template", "{organ!r}"),
        ("template", "{organ.__class__}"),
        ("template", "{0}"),
        ("template", "{"),
        ("template", "x" * 10_001),
        ("tasks", []),
        ("tasks", "colon"),
        ("tasks", [{"stain": 3}]),
        ("classes", "benign"),
        ("classes", ["a", "a"]),
        ("classes", ["a", " "]),
        ("classes", [1, 2]),
        ("ivp_tokens", 257),
        ("vrm_input", "features"),
        ("vrm_width", 30),
        ("vrm_width", 4),
        ("feature", "mean"),
        ("head", "deep"),
        ("head_dropout", 1.0),
        ("head_dropout", float("nan")),
        ("prompt_dropout", -0.1),
    ],
)
def test_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        PathoTuneConfig.from_dict({field: value})


def test_unknown_keys_are_refused_and_known_ones_told() -> None:
    with pytest.raises(ConfigError, match=r"unknown key tvp_number[\s\S]*tvp_tokens"):
        PathoTuneConfig.from_dict({"tvp_number": 3})
    with pytest.raises(ConfigError, match=r"tasks: unknown key tissue"):
        PathoTuneConfig.from_dict({"tasks": [{"tissue": "colon"}]})


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        PathoTuneConfig.from_json(text)


def test_cls_pooling_gives_one_token() -> None:
    assert PathoTuneConfig(ttp_pooling="cls", ttp_tokens=1).text_tokens == 1
    with pytest.raises(ConfigError, match="ttp_tokens must be 1"):
        PathoTuneConfig(ttp_pooling="cls")


def test_errors_say_what_to_do_and_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("a is wrong", todo="Do b.")))
    assert (type(error), str(error)) == (ConfigError, "a is wrong\nDo b.")
