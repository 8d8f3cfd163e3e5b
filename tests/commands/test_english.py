"""Help texts, messages and public docstrings stay free of the coined words this project has got rid of."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pathotune
import wsi_pipeline
from wsi_pipeline.wording import counted

PACKAGES = (wsi_pipeline, pathotune)

COINED = {
    r"\banew\b": "again, or a word for what happens: retrained, recomputed, resampled",
    r"\btold\b(?=.)|(?<=.)\btold\b": "noted, reported, distinguished",
    r"\bdealt?\b": "divided, assigned, shuffled",
    r"\bluck\b": "chance, random generator",
    r"(?<!there )\b(?:is|are) no (?!longer|more than|fewer|less|worse|better)": "is not a ...",
    r"\bflatters?\b": "is too optimistic",
    r"\bby name of\b": "of",
    r"\bof before\b|\bwhat it was before\b": "previous",
    r"\bone session says|\btells? of\b|\bspeaks? of\b": "describes, reports",
    r"\bwhat is never split\b|\bwhose mean predicts\b|\bthe way it has come\b": "see the glossary of the field",
    r"\bmore of the kind\b": "more like these",
    r"\btried out\b": "measured, tested",
    r"\b(?:commonest|likeliest)\b": "most common, most likely",
    r"\bseparated by commas\b": "comma-separated",
    r"\bnobody can tell\b|\bcannot tell\b": "unknown, cannot be assessed",
    r"\bout of line\b": "outlier",
    r"\ball the same\b(?! \w)": "anyway",
    r"\boutcome that is none\b": "invalid outcome",
    r"\bheld against\b": "compared with",
    r"\bRaises? \w+Error where\b|\b(?:None|empty) where\b|\bwhere there (?:is|are) none\b": "if",
    r"\bone (?:row|file|folder|picture|prediction|square|ring|PNG|CSV|\.\w+) an? \w": "one ... per ...",
    r"\b(?:features|neighbours|models|rows|patches|values) a (?:patch|slide|patient|fold|class)\b": "... per ...",
    r"\bthat could be opened\b": "ready to be opened",
    r"\b(?:times and events|values|files?|outcome) that (?:are|is) none\b": "invalid ...",
    r"\bso says\b|\bknows? (?:itself|what it is)\b|\bfor people\b": "according to, for messages",
    r"\bpassed over\b|\bsearched through\b": "skipped, searched recursively",
    r"\bnobody (?:states|stated|named)\b": "not stated",
    r"\bmade (?:again|anew)\b|\bmake (?:\w+ )?again\b": "recomputed, repeated, rewritten",
}
"""Pattern -> what to write instead."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in a module that is not a docstring; f-strings with {} for their values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(part) for part in node.values)
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and docstring of a module, its public functions and classes, and the public methods of those."""
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if text := ast.get_docstring(node):
            yield getattr(node, "lineno", 1), text
        if isinstance(node, ast.Module | ast.ClassDef):
            inner = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            nodes += [item for item in node.body if isinstance(item, inner) and not item.name.startswith("_")]


@functools.cache
def everything() -> list[tuple[str, str]]:
    """Place and text of all messages and public docstrings, read once."""
    found = []
    for package in PACKAGES:
        root = Path(package.__file__ or "").parent
        for path in sorted(root.rglob("*.py")):
            parts = itertools.chain(texts(path), docstrings(path))
            found += [(f"{path}:{line}", " ".join(text.split())) for line, text in parts]
    return found


@pytest.mark.parametrize("pattern", COINED)
def test_no_message_or_docstring_holds_a_coined_word(pattern: str) -> None:
    found = [f"{place}: {text[:150]}" for place, text in everything() if re.search(pattern, text, re.I)]
    assert not found, f"write: {COINED[pattern]}\n" + "\n".join(found)


def test_the_search_reads_messages_and_public_docstrings(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""told"""\nX = 1\n"""anew"""\nraise ValueError(f"{X} is no " "number")\nhelp = "dealt"\n'
        'class A:\n    """luck"""\n    def b(self):\n        """flatters"""\n'
        '    def _d(self):\n        """nor this"""\n'
    )
    assert sorted(text for _, text in texts(module)) == ["dealt", "{} is no number"]
    assert sorted(text for _, text in docstrings(module)) == ["flatters", "luck", "told"]


COUNTED = "slide|patient|patch|row|file|fold|image|column|option|encoder|model|group|note|test|event|bag|cell|crop|tile"
MORE_THAN_ONE = {
    "{len(places) or 'no'} columns",
    "{len(alike)} columns",
    "{len(found)} columns",
    "{len(found)} encoders",
    "{len(found)} trained models",
    "{len(group)} patients",
    "{len(mixed)} patients",
    "{len(compared)} models",
    "{len(stated)} encoders",
    "{len(wrong)} such rows",
}
"""Counts that are of several things wherever they are said."""


def counts(path: Path) -> Iterator[str]:
    """`{len(...)} slides` of every f-string: a number of things that is not worded by `counted`."""
    plural = re.compile(rf" (?:\w+ )?(?:{COUNTED})(?:e?s)\b")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for value, after in itertools.pairwise(node.values if isinstance(node, ast.JoinedStr) else ()):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            if ast.unparse(value.value).startswith("len(") and (found := plural.match(str(after.value))):
                yield f"{{{ast.unparse(value.value)}}}{found[0]}"


def test_numbers_of_things_are_worded_in_one_place() -> None:
    """`1 slides` and `1 more options` come from plurals that are written by hand: use wording.counted."""
    packages = [Path(package.__file__ or "").parent for package in PACKAGES]
    found = {f"{path.name}: {text}" for folder in packages for path in folder.rglob("*.py") for text in counts(path)}
    assert {item for item in found if item.partition(": ")[2] not in MORE_THAN_ONE} == set()


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "patch", "1 patch"), (2482, "patch", "2 482 patches"), (0, "study", "0 studies"), (2, "class", "2 classes")],
)
def test_plurals(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
