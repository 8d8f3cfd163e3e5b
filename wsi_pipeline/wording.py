"""Phrases shared by messages: counts with their noun, shortened lists, how slides were tested."""

from __future__ import annotations

from collections.abc import Iterable

NAMED = 5
"""Number of patients or slides that a message names; the others are counted."""


def grouped(number: int) -> str:
    """`2482` -> `2 482`."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 patient`, `2 482 patches`; `plural` where it is irregular. Every message that counts is worded here."""
    return f"{grouped(number)} {noun if number == 1 else plural or plural_of(noun)}"


def plural_of(noun: str) -> str:
    """`patch` -> `patches`, `study` -> `studies`, `slide` -> `slides`."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def agreed(number: int, verb: str) -> str:
    """A verb, given as for one thing, for `number` of them: `holds` or `hold`, `is` or `are`."""
    several = {"is": "are", "has": "have", "was": "were", "does": "do"}
    return verb if number == 1 else several.get(verb) or verb.removesuffix("s")


EMPTY_TODO = (
    "wsi-pipeline tile, called again, says why slides are empty: change its settings, or leave these slides out"
)


def listed(items: Iterable[object], most: int = NAMED, separator: str = ", ", noun: str = "") -> str:
    """`a, b, c and 4 more`; with another separator `a; b; and 4 more`; with a noun `a, b and 4 more slides`."""
    every = [str(item) for item in items]
    more = len(every) - most
    if more <= 0:
        return separator.join(every)
    joint = " " if separator == ", " else separator
    return separator.join(every[:most]) + f"{joint}and {grouped(more)} more" + (f" {noun}" if noun else "")


def first_line(error: Exception) -> str:
    """The first line of what another library's error says; its type if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def tested_words(patients: str) -> str:
    """How slides were tested, as far as patients are known; `patients` is `Cohort.patients_stated`."""
    if patients == "not known":
        return "each tested by a model that never saw the slide; patients are not known, so each slide counts as one"
    if patients == "each slide":
        return "each tested by a model that never saw the slide; one slide per patient, as stated"
    some = "; a slide without a patient counts as one" if patients == "some" else ""
    return f"each tested by a model that never saw its patient{some}"


NOT_KNOWN = (
    "Patients are not known: each slide counts as one. If a patient has several slides, training and test share "
    "patients, and the metrics are too optimistic."
)
"""Warning if the table does not say which slides belong to which patient."""
