"""Training, validation and test parts of labelled patches that keep groups whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.labelled_patches import SPLITS, Rows
from wsi_pipeline.splits.stratify import hold_out_groups
from wsi_pipeline.wording import counted

_WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class PatchSplit:
    """Row numbers (int64, ascending) of the three parts; `validation` and `test` may be empty if requested."""

    train: Rows
    validation: Rows
    test: Rows
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, Rows]:
        """The parts by the names of a given split."""
        return {"train": self.train, "val": self.validation, "test": self.test}


def split_patches(
    labels: Rows,
    groups: Sequence[str],
    given: Sequence[str] | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str] | None = None,
) -> PatchSplit:
    """Divide N patches into training, validation and test; a group is in one part only.

    labels          int64 (N,)
    groups          N names
    given           N of train, val, test, or None. Parts it does not name are split off its training rows
    val_fraction    fraction of these patches used to choose the best epoch (0: none)
    test_fraction   fraction of these patches used to test the result (0: none)
    classes         names of the labels, for messages

    The parts hold every class; the sizes are as near to the fractions as whole groups allow. Raises LabelError
    naming the class that has fewer groups than parts, or the group that `given` divides.
    """
    labels = np.asarray(labels, np.int64)
    names = [str(name) for name in classes] if classes is not None else [str(k) for k in range(labels.max() + 1)]
    codes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    parts = np.zeros(len(labels), np.int64)
    if given is not None:
        parts = np.array([SPLITS.index(word) for word in given], np.int64)
        _refuse_divided(parts, codes, groups)
    wanted = {
        SPLITS.index(part): fraction
        for part, fraction in (("test", test_fraction), ("val", val_fraction))
        if fraction > 0 and not (parts == SPLITS.index(part)).any()
    }
    if wanted:
        _refuse_few(labels, codes, parts, names, wanted)
    _deal(labels, codes, parts, wanted, seed)
    notes = _check(labels, parts, names)
    train, validation, test = (np.flatnonzero(parts == k).astype(np.int64) for k in range(len(SPLITS)))
    return PatchSplit(train, validation, test, tuple(notes))


def _deal(labels: Rows, codes: Rows, parts: Rows, wanted: dict[int, float], seed: int) -> None:
    """Move groups from training to the requested parts, one part after the other (test first), in place."""
    total = np.count_nonzero(parts == 0)
    for done, (part, fraction) in enumerate(wanted.items()):
        rows = np.flatnonzero(parts == 0)
        # Each class must keep a group for training and for every part that is still to come.
        reserve = len(wanted) - done
        chosen = hold_out_groups(labels[rows], codes[rows], fraction * total / len(rows), reserve, (seed, part))
        if chosen is None:
            raise LabelError(
                "the groups cannot be divided so that every part holds every class",
                todo="Add groups, leave out rare classes with --drop-classes, or give a column `split`",
            )
        parts[rows[chosen]] = part


def _refuse_divided(parts: Rows, codes: Rows, groups: Sequence[str]) -> None:
    low, high = np.full(codes.max() + 1, len(SPLITS)), np.full(codes.max() + 1, -1)
    np.minimum.at(low, codes, parts)
    np.maximum.at(high, codes, parts)
    divided = np.flatnonzero(low != high)
    if len(divided):
        first = np.flatnonzero(codes == divided[0])
        sides = " and ".join(SPLITS[k] for k in np.unique(parts[first]))
        raise LabelError(
            f"the given split divides {counted(len(divided), 'group')}: {groups[int(first[0])]} is in {sides}",
            todo="Give all patches of a group the same split, or remove the column split",
        )


def _refuse_few(labels: Rows, codes: Rows, parts: Rows, names: Sequence[str], wanted: dict[int, float]) -> None:
    """Raise if a class has too few groups among the training rows to be in training and each requested part."""
    rows = parts == 0
    pairs = np.unique(np.stack([labels[rows], codes[rows]]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(names))
    need = len(wanted) + 1
    few = [k for k in np.unique(labels) if counts[k] < need]
    if few:
        words = " and ".join(_WORDS[SPLITS[part]] for part in (0, *sorted(wanted)))
        listed = ", ".join(f"{names[k]} has {counts[k]}" for k in few)
        without = " or test without them with --test-fraction 0," if SPLITS.index("test") in wanted else ""
        raise LabelError(
            f"every class needs at least {need} groups to be in {words}; {listed}",
            todo=f"Add groups of it, leave it out with --drop-classes,{without} or give a column split",
        )


def _check(labels: Rows, parts: Rows, names: Sequence[str]) -> list[str]:
    """Notes on classes that a part lacks; raises LabelError if training lacks one or is empty."""
    notes: list[str] = []
    for part, word in enumerate(SPLITS):
        found = labels[parts == part]
        missing = [names[k] for k in np.setdiff1d(labels, found)]
        if missing and part == 0:
            raise LabelError(
                f"no patch of class {', '.join(missing)} to train on",
                todo="Change the column split, or leave the class out with --drop-classes",
            )
        if missing and len(found):
            notes.append(f"no patch of class {', '.join(missing)} in the {_WORDS[word]} part")
    return notes
