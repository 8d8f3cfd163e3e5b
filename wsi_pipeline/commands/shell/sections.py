"""Repeatable options: one set of options for each value of --model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.errors import UsageError

LEADING = "model"
"""The option with one value per set."""


def split_sections(kinds: Sequence[type], given: Mapping[str, Any]) -> tuple[tuple[Any, ...], ...]:
    """Option objects of `kinds` for each value of --model, from the parsed command line.

    given   option -> value; for an option that may be repeated or has several texts, a list of values or None

    With several models, other repeatable options name theirs: `--weights MODEL=FILE`. Raises UsageError if they do
    not, or if a model is named twice.
    """
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    values = {field.name: given[field.name] for field in fields}
    values |= {field.name: tuple(values[field.name] or ()) for field in fields if field.metadata["several"]}
    repeated = {field.name: list(values[field.name] or []) for field in fields if field.metadata["repeat"]}
    models = repeated.pop(LEADING, [])
    if len(set(models)) < len(models):
        raise UsageError(f"model names {next(name for name in models if models.count(name) > 1)} twice")
    sections = []
    for model in models or [None]:
        own = {name: _of(model, name, items, models) for name, items in repeated.items()}
        if model is not None:
            own[LEADING] = model
        defaults = {field.name: field.default for field in fields if field.metadata["repeat"]}
        chosen = {**values, **defaults, **{name: value for name, value in own.items() if value is not None}}
        sections.append(tuple(_make(kind, chosen) for kind in kinds))
    return tuple(sections)


def refuse_twice(models: Iterable[str]) -> None:
    """Raise UsageError if an encoder is given twice: both would write the same files."""
    names = [slug(model) for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"embed: the encoder {twice} is given twice", todo="Give each encoder one section")


def _of(model: str | None, option: str, items: Sequence[str], models: Sequence[str]) -> str | None:
    """The value of an option for one of the models."""
    if len(models) < 2:
        if len(items) > 1:
            raise UsageError(f"{option} is given {len(items)} times for one model")
        return items[0] if items else None
    named = [item.partition("=") for item in items]
    strange = [head for head, _, value in named if head not in models or not value]
    if strange:
        raise UsageError(
            f"{option} does not name its model: {strange[0]}",
            todo=f"With several models, write --{option} MODEL=FILE; models are: {', '.join(models)}",
        )
    mine = [value for head, _, value in named if head == model]
    if len(mine) > 1:
        raise UsageError(f"{option} is given {len(mine)} times for {model}")
    return mine[0] if mine else None


def _make(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
