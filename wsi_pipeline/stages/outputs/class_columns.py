"""Which columns of a table of predictions hold which class's probability, whichever program wrote the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsi_pipeline.cohort.tables.columns import normalise
from wsi_pipeline.errors import MilError
from wsi_pipeline.wording import listed

_PREFIXES = ("p_", "prob_", "probability_", "proba_", "probabilities_", "score_", "")
"""Before the name of a class, the most usual first; any other that all classes share is taken as well."""
_ALONE = (
    "p", "prob", "proba", "probability", "score", "y_score", "y_prob", "y_proba", "pred_prob", "pred_score",
    "prob_positive", "p_positive", "positive_probability",
)  # fmt: skip
"""One column, of the positive class of two."""


@dataclass(frozen=True)
class ClassColumns:
    """Class -> index of its column; one of two classes may be missing. `assumed`: no column names the class."""

    places: Mapping[str, int]
    assumed: bool = False


def class_columns(header: Sequence[str], classes: Sequence[str], source: str) -> ClassColumns:
    """Find the columns of all classes by one common prefix or ending: `p_CLASS`, `TARGET_CLASS`, `CLASS_prob`.

    Raises MilError, listing the columns, if no set of columns fits or several do.
    """
    for write in (str, normalise):
        names = [write(name) for name in header]
        wanted = [write(name) for name in classes]
        if len(set(wanted)) == len(wanted) and all(wanted):
            found = _by_common_part(names, wanted, source)
            if found:
                return ClassColumns(dict(zip(classes, found, strict=True)))
    names = [normalise(name) for name in header]
    if len(classes) == 2:
        for name in reversed(classes):
            hits = [k for k, head in enumerate(names) if head in {f"{p}{normalise(name)}" for p in _PREFIXES[:-1]}]
            if len(hits) == 1:
                return ClassColumns({name: hits[0]})
        alone = [k for k, head in enumerate(names) if head in _ALONE]
        if len(alone) == 1:
            return ClassColumns({classes[1]: alone[0]}, assumed=True)
    numbered = [f"p_{k}" for k in range(len(classes))]
    if set(numbered) <= set(names):
        what = f"{source} counts its classes by number ({', '.join(numbered)})"
        raise MilError(what, todo=f"Rename these columns by class: {', '.join(f'p_{name}' for name in classes)}")
    raise MilError(
        f"{source} has no probability of each class ({', '.join(classes)}); its columns: {listed(header, 20)}",
        todo=f"Name the columns {', '.join(f'p_{name}' for name in classes)}",
    )


def numbered_classes(
    header: Sequence[str], classes: Sequence[str], codes: Sequence[str], labels: Sequence[str]
) -> dict[int, str] | None:
    """The class of each column `p_0`, `p_1`, ..., which CLAM's evaluation writes beside its own label `Y`.

    codes    the column `Y` in the rows that both have, `labels`: our labels of the same rows

    None if there are no such columns, a number has several labels, or a class has no number.
    """
    names = {normalise(name) for name in header}
    wanted = [f"p_{k}" for k in range(len(classes))]
    if not set(wanted) <= names or {normalise(name) for name in classes} & set(map(str, range(len(classes)))):
        return None
    found: dict[int, str] = {}
    for code, label in zip(codes, labels, strict=True):
        number = code.removesuffix(".0")
        if not number.isdigit() or found.setdefault(int(number), label) != label:
            return None
    whole = sorted(found) == list(range(len(classes))) and set(found.values()) == set(classes)
    return found if whole else None


def _by_common_part(names: Sequence[str], wanted: Sequence[str], source: str) -> list[int] | None:
    """Indices of the columns that consist of a class and a common prefix or ending."""
    found: dict[str, list[int]] = {}
    for name in dict.fromkeys(names):
        if name.endswith(wanted[0]):
            part = name.removesuffix(wanted[0])
            if all(f"{part}{other}" in names for other in wanted) and (not part or not part[-1].isalnum()):
                found[part] = [names.index(f"{part}{other}") for other in wanted]
        if name.startswith(wanted[0]) and name != wanted[0]:
            part = name.removeprefix(wanted[0])
            if all(f"{other}{part}" in names for other in wanted) and not part[0].isalnum():
                found[f"*{part}"] = [names.index(f"{other}{part}") for other in wanted]
    for usual in _PREFIXES:
        if usual in found:
            return found[usual]
    if len(found) > 1:
        raise MilError(
            f"{source} has several columns for each class: {', '.join(f'{part}{wanted[0]}' for part in found)}",
            todo=f"Keep one set, and name it {', '.join(f'p_{name}' for name in wanted)}",
        )
    return next(iter(found.values()), None)
