"""The candidates of the inner validation: `MilSpec.choose` as a list of settings.

    abmil,gated-abmil,clam-sb                     three models
    learning_rate=1e-3,1e-4 dropout=0,0.5         four combinations of the model as given
    abmil,mean learning_rate=1e-3,1e-4            four: each model with each rate

Commas separate alternatives; spaces or semicolons separate settings, all of which are combined.
"""

from __future__ import annotations

import itertools
import re
import typing
from dataclasses import asdict, fields, replace

from wsi_pipeline.config.fields import from_mapping, value_type
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import UsageError

MOST_CANDIDATES = 200
_GROUPS = ("model", "training")
_FIXED = ("task", "survival_loss", "time_bins", "bag", "label_smoothing")
"""Cannot be chosen: they change what is predicted, or what the validation loss means."""


def candidates(spec: MilSpec) -> list[MilSpec]:
    """The settings to choose from, in the order of their names; `spec` alone if there is nothing to choose.

    Raises UsageError for unknown names and values, settings of the validation, and too many combinations.
    """
    words = [word for word in re.split(r"[\s;]+", spec.choose) if word]
    if not words:
        return [spec]
    axes = [_alternatives(word) for word in words]
    names = [name for name, _ in axes]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"choose must name {repeated} once, got {spec.choose!r}")
    combined = [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis for _, axis in axes))]
    if len(combined) > MOST_CANDIDATES:
        raise UsageError(f"choose must give at most {MOST_CANDIDATES} combinations, got {len(combined)}")
    given = asdict(replace(spec, choose=""))
    return [from_mapping(MilSpec, {**given, **chosen}, "choose") for chosen in combined]


def chosen_settings(candidate: MilSpec, spec: MilSpec) -> dict[str, object]:
    """The chosen value of each setting that `spec.choose` names."""
    names = [_alternatives(word)[0] for word in re.split(r"[\s;]+", spec.choose) if word]
    return {name: getattr(candidate, name) for name in names}


def named(settings: dict[str, object]) -> str:
    """`abmil, learning_rate 0.001`."""
    return ", ".join(str(value) if name == "model" else f"{name} {value}" for name, value in settings.items())


def _alternatives(word: str) -> tuple[str, list[object]]:
    """Name and values of one setting of the grid."""
    written, given = word.split("=", 1) if "=" in word else ("model", word)
    name = written.replace("-", "_")
    kinds = {field.name: field for field in fields(MilSpec)}
    open_ones = [key for key, field in kinds.items() if field.metadata["group"] in _GROUPS and key not in _FIXED]
    if name not in open_ones:
        raise UsageError(f"choose cannot choose {written}", todo=f"Settings it can choose: {', '.join(open_ones)}")
    texts = [text for text in given.split(",") if text]
    if not texts:
        raise UsageError(f"choose must give values for {written}, got {word!r}")
    values = [_parsed(name, text) for text in texts]
    if len(set(values)) < len(values):
        raise UsageError(f"choose must give each value of {written} once, got {given}")
    return name, values


def _parsed(name: str, text: str) -> object:
    kind = value_type(typing.get_type_hints(MilSpec)[name])
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"choose: {name} must be true or false, got {text}")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"choose: {name} must be of type {kind.__name__}, got {text}") from None
