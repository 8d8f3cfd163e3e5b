"""docs/architecture.md tells of the code as it is: its pictures, its rooms, its walks and its table."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
_PLACE = re.compile(r"`([a-z_0-9.]+):([A-Za-z_][A-Za-z_0-9.]*)`")
_WALK = re.compile(r"^## From ", re.MULTILINE)
_QUESTIONS = re.compile(r"^(\| [A-Z][^|]*\? \|.*)$", re.MULTILINE)


def _load():
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs/site/rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rooms = _load()
WALKS = {part.partition("\n")[0]: part.partition("\n## ")[0] for part in _WALK.split(PAGE)[1:]}


@pytest.mark.parametrize("name", rooms.DRAWN)
def test_pictures_show_the_imports(name: str) -> None:
    drawn = (ROOT / "docs/img" / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == rooms.draw(rooms.DRAWN[name]), "imports have changed: run python docs/site/rooms.py"


def test_rooms_form_no_circle() -> None:
    packages = [name for name, path in rooms.modules(ROOT).items() if path.name == "__init__.py"]
    for package in packages:
        arrows = rooms.rooms_of(package)
        circles = [room for room in arrows if room in rooms.below(arrows, room)]
        assert not circles, f"{package}: {circles}"


def test_the_table_has_every_room() -> None:
    table = PAGE.split("## The rooms")[1].split("### ")[0]
    named = set(re.findall(r"`([a-z_]+)/?`", "\n".join(re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE))))
    assert named == set(rooms.rooms_of(rooms.HOUSE))


def test_every_place_exists() -> None:
    places = _PLACE.findall(PAGE)
    assert len(places) > 60
    assert not [f"{module}:{name}" for module, name in places if _node(module, name) is None]


@pytest.mark.parametrize("title", WALKS)
def test_each_step_is_called_by_an_earlier_one(title: str) -> None:
    """Through private functions of its module, where they do nothing but pass on."""
    steps = _PLACE.findall(WALKS[title].split("\n\nTo read many")[0])
    assert len(steps) >= 10
    called: set[str] = set()
    for number, (module, name) in enumerate(steps):
        assert number == 0 or name.rpartition(".")[2] in called, f"no step before calls {module}:{name}"
        called |= _reached(module, name)


def test_a_walk_that_skips_a_step_would_be_seen() -> None:
    assert "sniff" in _reached("slides.open", "_open_auto")
    assert "sniff" not in _reached("slides.slide", "Slide")
    assert _node("slides.open", "open_it") is None


DECIDES = {
    "How is the resolution": "manifest",
    "Where is the size of a patch": "downsample",
    "Why was a slide computed again": "changed",
    "Which backend reads": "sniff",
    "Where does the default encoder": "pathotune",
    "How are folds made": "folds",
    "How is an interval": "patient",
    "What colours a heat map": '"',
    "What are the words": "option",
    "Where is the path": "cohort.csv",
    "Which column names": "case_submitter_id",
    "Which ink": "Ink(",
    "Which class does an annotated patch": "min_inside",
    "At which resolution": "0.10",
    "How large is a batch": "_BATCH",
    "When does training stop early": "patience",
    "Where is the threshold": "argmin",
    "When does a warning say": "UNLIKELY",
    "Which sentences are": "cautions",
    "When may another process": "300",
    "Which image of a TIFF": "choice",
    "What is the size of a chunk": "19",
    "How are patches augmented": "stain_jitter",
    "Where is a metric": "macro_f1",
    "Which slides does": "chunk",
    "How is a file of another tool": "patch_level",
    "Who may talk": "token",
    "How do old results": "unset",
    "What happens where the pixels": "does not decode",
    "Which licence": "licence",
    "How are rare classes": "bincount",
    "Which patches are proposed": "doubt",
    "Which patches are shown": "argsort",
    "When is the exit code": "EXIT_SOME_FAILED",
}
"""What the code that decides says, for each question of docs/architecture.md."""


def test_what_the_tables_name_is_where_it_is_decided() -> None:
    rows = [line.split(" | ") for line in _QUESTIONS.findall(PAGE)]
    assert len(rows) == len(DECIDES)
    for question, decided, _ in rows:
        (word,) = (word for start, word in DECIDES.items() if question.startswith(f"| {start}"))
        module, name = _PLACE.findall(decided)[0]
        path = ROOT / rooms.HOUSE / f"{module.replace('.', '/')}.py"
        assert word in (ast.get_source_segment(path.read_text(encoding="utf-8"), _node(module, name)) or ""), question


def test_files_named_in_the_tables_exist() -> None:
    named = re.findall(r"`((?:tests|benchmarks|wsi_pipeline)/[a-z_/0-9]+\.py)`", PAGE)
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).is_file()]


def _node(module: str, name: str) -> ast.AST | None:
    """The definition of a function, class, method or constant of a module."""
    path = ROOT / rooms.HOUSE / f"{module.replace('.', '/')}.py"
    found: ast.AST | None = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
    for part in name.split("."):
        found = next((node for node in getattr(found, "body", []) if part in _defined(node)), None)
    return found


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _reached(module: str, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """What a definition mentions, itself or through private functions of its module."""
    found = set(_names(_node(module, name)))
    for own in sorted(found):
        if own.startswith("_") and own not in seen and _node(module, own) is not None:
            found |= _reached(module, own, seen | {name, own})
    return found


def _names(node: ast.AST | None) -> Iterator[str]:
    """What a definition mentions: names, attributes, and "module:function" in strings."""
    for part in ast.walk(node) if node else ():
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value.rpartition(":")[2]
