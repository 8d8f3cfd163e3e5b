"""Prompts of a zero-shot classifier: names for each class and sentences to put them in, checked. No framework here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsi_pipeline.errors import UsageError

PLACE = "CLASSNAME"
"""Where a name goes in a template; `{}`, as CLIP's templates have it, means the same."""
_EXAMPLE = "classes: {tumour: [tumour, adenocarcinoma], normal: normal mucosa}, templates: ['an image of CLASSNAME.']"


@dataclass(frozen=True)
class Prompts:
    """Classes with their names, and templates; every name goes into every template."""

    classes: tuple[tuple[str, tuple[str, ...]], ...]
    templates: tuple[str, ...] = (PLACE,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple(label for label, _ in self.classes)

    def sentences(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """For each class its sentences: all names in all templates."""
        for label, names in self.classes:
            yield label, tuple(template.replace(PLACE, name) for name in names for template in self.templates)

    def facts(self) -> dict[str, Any]:
        """As plain values, for a digest and a store."""
        return {"classes": {label: list(names) for label, names in self.classes}, "templates": list(self.templates)}


def read_prompts(document: Any, where: str) -> Prompts:
    """The prompts in a YAML document. Raises UsageError, naming what is wrong, for anything else."""
    if not isinstance(document, Mapping) or not set(document) <= {"classes", "templates"}:
        raise _wrong(where, "it must have the key classes, and may have templates")
    classes = document.get("classes")
    if not isinstance(classes, Mapping) or len(classes) < 2:
        raise _wrong(where, "classes must name at least two classes")
    read = tuple((_text(label, where, "a class"), _texts(names, where, f"class {label}"))
                 for label, names in classes.items())  # fmt: skip
    written = _texts(document.get("templates", PLACE), where, "templates")
    templates = tuple(template.replace("{}", PLACE) for template in written)
    without = [template for template in templates if PLACE not in template]
    if without:
        raise _wrong(where, f"the template {without[0]!r} lacks {PLACE}, the place of a name")
    every = [name for _, names in read for name in names]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise _wrong(where, f"{twice[0]!r} stands for more than one class or is given twice")
    return Prompts(read, templates)


def _texts(value: Any, where: str, what: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise _wrong(where, f"{what} is empty")
    return tuple(_text(item, where, what) for item in values)


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(where, f"{what} must be text, got {value!r}")
    return value.strip()


def _wrong(where: str, what: str) -> UsageError:
    return UsageError(f"{where}: {what}", todo=f"For example: {_EXAMPLE}")
