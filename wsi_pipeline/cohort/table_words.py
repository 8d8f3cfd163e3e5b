"""Words in clinical tables: missing values, sides of a split, equivalent spellings, order of names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "none", "null"})
"""An empty cell, as programs write it."""

UNKNOWN = (
    "unknown", "unk", "not reported", "not available", "not applicable", "not known", "not evaluated", "not assessed",
    "not determined", "not done", "not performed", "not tested", "not specified", "unspecified", "not collected",
    "not allowed to collect", "not recorded", "no data", "missing", "unavailable", "not stated", "not provided",
    "not given", "n.a.", "n/d", "n.d.", "tbd", "(blank)", "?", ".", "<na>", "--", "'--",
    "#n/a", "#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!",
)  # fmt: skip
"""Missing values as people, portals and spreadsheets write them: in any case, also in brackets (`[Not Available]`) or
with underscores."""

_ONLY_IN_BRACKETS = frozenset({"discrepancy", "completed", "pending"})

SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words for the sides of a split, in any case; `training set` is read as `training`."""

_PORTAL_WORDS = MISSING_WORDS | set(UNKNOWN)
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_ONE_NUMBER = re.compile(r"(\D*?)([+-]?\d+(?:[.,]\d+)?)(\D*)")
_ONE_ROMAN = re.compile(r"((?:.*[^a-z])?)([ivx]+)((?:[^a-z].*)?)")
_DIGITS = re.compile(r"(\d+)")
_UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff]")


def is_missing(text: str) -> bool:
    """Whether a cell marks a missing value. A single dash does not: it may mean negative."""
    word = " ".join(text.casefold().replace("_", " ").split())
    inner = word.strip("[](){}\"'").strip()
    bracketed = word.startswith("[") and inner in _ONLY_IN_BRACKETS
    return word in _PORTAL_WORDS or inner in _PORTAL_WORDS or bracketed


def split_word(text: str) -> str | None:
    """Return train, val or test if the word means one of them, else None."""
    word = " ".join(text.casefold().replace("_", " ").replace("-", " ").split())
    return SPLIT_WORDS.get(word.removesuffix(" set"))


def label_key(text: str) -> str:
    """A key, equal for labels that differ only in case, spaces, underscores or number format (`1`, `1.0`, `01`)."""
    plain = " ".join(_visible(text).casefold().replace("_", " ").split())
    return _plain_number(plain) if _NUMBER.fullmatch(plain) else plain


def patient_key(text: str) -> str:
    """A key, equal for ids that differ only in case, separators, leading zeros, or a spreadsheet's `.0`."""
    plain = _visible(text).casefold().strip()
    if re.fullmatch(r"\d+[.,]0+", plain):
        plain = re.split("[.,]", plain)[0]
    plain = re.sub(r"[\s_\-.]+", " ", plain).strip()
    plain = re.sub(r"(?<=[^\W\d]) (?=\d)", "", plain)
    return re.sub(r"\d+", lambda found: found[0].lstrip("0") or "0", plain)


def alike(names: Iterable[str], key: Callable[[str], str] = label_key) -> list[tuple[str, ...]]:
    """Names that differ only in spelling, in groups of two or more, each in order of appearance."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(key(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names, with numbers in them by value: 2 before 10, 2.5 before 10, `grade 2` before `grade 10`."""
    found = set(names)
    if found and all(_NUMBER.fullmatch(name.strip()) for name in found):
        return tuple(sorted(found, key=lambda name: (float(name.strip().replace(",", ".")), name)))
    return tuple(sorted(found, key=lambda name: (_natural(name), name)))


def grades_in_order(names: Iterable[str]) -> tuple[str, ...] | None:
    """Sort names that differ in one number only: `G1`, `G2`; `1+`, `2+`; `stage II`, `Stage III`. None for other names.

    The number may be arabic or roman, in any case; it is at the same place in all names. `G1`, `GX` have no order.
    """
    found = sorted(set(names))
    for pattern, value in ((_ONE_NUMBER, lambda text: float(text.replace(",", "."))), (_ONE_ROMAN, _roman)):
        parts = [pattern.fullmatch(_visible(name).strip().casefold()) for name in found]
        matches = [part for part in parts if part is not None]
        around = {" ".join(f"{part[1]}#{part[3]}".replace("_", " ").split()) for part in matches}
        numbers = [value(part[2]) for part in matches]
        if found and len(matches) == len(found) and len(around) == 1 and len(set(numbers)) == len(found):
            return tuple(name for _, name in sorted(zip(numbers, found, strict=True)))
    return None


def _roman(text: str) -> float:
    """Value of a roman numeral from 1 to 39; NaN for other letters."""
    tens = len(text) - len(text.lstrip("x"))
    rest = text[tens:]
    known = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
    return float(10 * tens + known.index(rest)) if tens < 4 and rest in known else float("nan")


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key of a name; numbers are ordered by length and then digits, as some are too long to convert."""
    parts = [part for part in _DIGITS.split(name) if part]
    plain = [part.lstrip("0") if part.isdecimal() else part for part in parts]
    return [
        (0, len(part), part) if given.isdecimal() else (1, 0, part) for given, part in zip(parts, plain, strict=True)
    ]


def _plain_number(text: str) -> str:
    """`+01.50` -> `1.5`, `-0` -> `0`; works on the text, because ids of twenty digits do not fit into a float."""
    sign = "-" if text.startswith("-") else ""
    whole, _, decimals = text.lstrip("+-").replace(",", ".").partition(".")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    number = f"{whole}.{decimals}" if decimals else whole
    return number if number == "0" else sign + number


def _visible(text: str) -> str:
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
