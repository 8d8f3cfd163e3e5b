"""From the rows of any source to `LabelledPatches`: choose, count and number classes, and digest everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wsi_pipeline.cohort.formulas import is_formula
from wsi_pipeline.cohort.table_words import alike, in_order
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches, PatchPixels, Rows

_VERSION = 1
"""Raised by one whenever the same files give different patches."""


@dataclass
class LabelRows:
    """Rows as stated by a source, before classes are chosen; `notes` are sentences for users."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    splits: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, label: str, group: str) -> None:
        """One more row."""
        self.names.append(name)
        self.labels.append(label)
        self.groups.append(group)


def assemble(
    rows: LabelRows,
    pixels: PatchPixels,
    source: str,
    spec: LabelSpec,
    *,
    todo: str | None = None,
    least_classes: int = 2,
) -> LabelledPatches:
    """The labelled patches of `rows` (row i is row i of `pixels`), without those that `spec` excludes.

    todo            advice if there are too few classes
    least_classes   1 for labels that are joined to others

    Raises LabelError if a named class does not exist or too few remain, and for names that predictions.csv cannot hold
    unchanged.
    """
    _refuse_odd_names(rows, source)
    kept = _chosen(rows.labels, spec)
    classes = in_order({rows.labels[row] for row in kept})
    if len(classes) < least_classes:
        found = f"only the class {classes[0]}" if classes else "no patch"
        seen = f" ({'; '.join(rows.notes[:3])})" if rows.notes else ""
        raise LabelError(f"{source}: {found} to learn from; at least 2 classes are needed{seen}", todo=todo)
    number = {name: k for k, name in enumerate(classes)}
    labels = np.array([number[rows.labels[row]] for row in kept], np.int64)
    if spec.max_per_class:
        chosen = _sample(labels, spec.max_per_class, spec.sample_seed)
        kept, labels = kept[chosen], labels[chosen]
    return LabelledPatches(
        names=tuple(rows.names[row] for row in kept),
        labels=labels,
        classes=classes,
        groups=tuple(rows.groups[row] for row in kept),
        splits=None if rows.splits is None else tuple(rows.splits[row] for row in kept),
        patch_px=pixels.patch_px,
        mpp=pixels.mpp,
        source=source,
        digest=_digest(rows, kept, pixels),
        notes=(*rows.notes, *_alike_notes(classes, labels)),
        pixels=pixels,
        index=kept,
    )


def _alike_notes(classes: Sequence[str], labels: Rows) -> list[str]:
    """A note for each group of classes that differ only in spelling."""
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    return [
        f"classes {', '.join(f'{name!r} ({counts[name]:,})' for name in group)} differ only in spelling and count as "
        f"{len(group)}: use one spelling if they mean the same"
        for group in alike(classes)
    ]


def _refuse_odd_names(rows: LabelRows, source: str) -> None:
    """Raise, before anything is trained, for names that could not be written or read back afterwards."""
    for kind, names in (("class", rows.labels), ("group", rows.groups), ("patch", rows.names)):
        for name in dict.fromkeys(names):
            if problem := _problem(name):
                raise LabelError(f"{source}: the {kind} {name[:80]!r} {problem[0]}", todo=problem[1])


def _problem(name: str) -> tuple[str, str] | None:
    """What is wrong with a name and what to do about it, or None."""
    if any("\ud800" <= char <= "\udfff" for char in name):  # Python's surrogate escapes for bytes that are not text
        return "is not UTF-8", "Rename its files or folders; from Windows archives, unpack them with their code page"
    if "\n" in name or "\r" in name:
        return "holds a line break", "Look for an unclosed quotation mark, or rename it"
    if is_formula(name):
        return (
            "would be run as a formula by a spreadsheet program",
            "Rename it so that it does not begin with = + - or @",
        )
    return None


def named_classes(text: str | None) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"); empty for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _chosen(labels: Sequence[str], spec: LabelSpec) -> Rows:
    found = set(labels)
    keep, drop = named_classes(spec.classes), named_classes(spec.drop_classes)
    unknown = [name for name in (*keep, *drop) if name not in found]
    if unknown:
        raise LabelError(
            f"no patches of class {', '.join(map(repr, unknown))}",
            todo=f"Classes here: {', '.join(in_order(found)) or 'none'}",
        )
    wanted = (set(keep) or found) - set(drop)
    return np.array([row for row, label in enumerate(labels) if label in wanted], np.int64)


def _sample(labels: Rows, most: int, seed: int) -> Rows:
    """Ascending positions of at most `most` rows of each class."""
    rng = np.random.default_rng(seed)
    picked = [rng.permutation(np.flatnonzero(labels == label))[:most] for label in np.unique(labels)]
    return np.sort(np.concatenate(picked)).astype(np.int64)


def _digest(rows: LabelRows, kept: Rows, pixels: PatchPixels) -> str:
    def at(values: Sequence[str]) -> list[str]:
        return [values[row] for row in kept]

    return digest_of(
        what="labelled patches",
        version=_VERSION,
        names=at(rows.names),
        labels=at(rows.labels),
        groups=at(rows.groups),
        splits=None if rows.splits is None else at(rows.splits),
        pixels=pixels.identity(kept),
        patch_px=pixels.patch_px,
    )
