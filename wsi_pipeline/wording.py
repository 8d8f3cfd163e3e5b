"""Small words of messages: lists that stop after a few names, counts with their noun."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5
"""How many patients or slides a message names before it says how many more."""


def listed(names: Sequence[object], most: int = NAMED) -> str:
    """`a, b, c and 4 more`."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def tested_words(patients: str) -> str:
    """How slides were tested, claiming no more than is known; `patients` is `Cohort.patients_stated`."""
    if patients == "not known":
        return "each tested by a model that never saw the slide; patients are not known, so each slide counts as one"
    if patients == "each slide":
        return "each tested by a model that never saw the slide, each being a patient of its own, as stated"
    some = "; a slide whose patient is not stated counts as one" if patients == "some" else ""
    return f"each tested by a model that never saw its patient{some}"


NOT_KNOWN = (
    "Patients are not known: each slide counts as one. If a patient has several slides, models have seen patients they "
    "were tested on, and the metrics flatter."
)
"""What there is to be wary of where nobody says whose slides they are."""


def counted(number: int, noun: str) -> str:
    """`1 patient`, `2 patients`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
