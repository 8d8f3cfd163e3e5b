"""The pages: no line of prose over 120 columns, and every file, module and name they mention is in the repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wsi_pipeline", "pathotune")
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/adr", "manifests", "workflows", "benchmarks", "findings", "pathotune/builtin")
    for path in (ROOT / folder).glob("*.md")
)
WIDTH = 120
_FENCE = re.compile(r"\s*(```|~~~)")
_FREE = re.compile(r"\s*(\||<|!\[|    )")
"""Tables, HTML, pictures and code may be wider."""
_LINK = re.compile(r"\]\([^)]*\)")
_FILE = re.compile(r"\b(?:[a-z_]+/)+[a-z_0-9]+\.py\b")
_ELSEWHERE = re.compile(r"^\|[^|]*\| (?:github\.com|pypi\.org)/.*$", re.MULTILINE)
"""Rows that give the place of a source in another repository."""
_MADE = re.compile(r"^```python\n# (\S+\.py)$", re.MULTILINE)
"""Files that the reader is asked to write (CONTRIBUTING.md)."""
_DOTTED = re.compile(r"\b(?:wsi_pipeline|pathotune)(?:\.[A-Za-z_][A-Za-z_0-9]*)+\b(?!\.md\b)(?<!\.md)")
_OLD_DECISIONS = re.compile(r"docs/adr/00(0[1-9]|1[0-2])-")
"""Decisions are replaced, not edited: they name the files of their time."""


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_prose_fits_the_width(page: Path) -> None:
    wide, fenced = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and not _FREE.match(line) and len(_LINK.sub("]", line)) > WIDTH:
            wide.append(number)
    assert not wide, f"{_id(page)}: wrap lines {wide} at {WIDTH} columns"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_files_and_names_exist(page: Path) -> None:
    if _OLD_DECISIONS.match(_id(page)):
        pytest.skip("names the files of its time")
    text = _ELSEWHERE.sub("", page.read_text(encoding="utf-8"))
    made = set(_MADE.findall(text))
    modules = {name.removesuffix(".py").replace("/", ".") for name in made}
    missing = [name for name in sorted({*_FILE.findall(text)} - made) if not _file_exists(name, page)]
    missing += [name for name in sorted({*_DOTTED.findall(text)} - modules) if not name_exists(name)]
    assert not missing, f"{_id(page)} names what is not in the repository: {missing}"


def _file_exists(name: str, page: Path) -> bool:
    return any((folder / name).is_file() for folder in (ROOT, page.parent, *(ROOT / package for package in PACKAGES)))


def name_exists(dotted: str) -> bool:
    """Whether `package.module.Class.attribute` is written in the source; nothing is imported."""
    path, parts = ROOT, dotted.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if parts and (path / f"{parts[0]}.py").is_file():
        return _defines(ast.parse((path / f"{parts[0]}.py").read_text(encoding="utf-8")).body, parts[1:])
    init = path / "__init__.py"
    return not parts or (init.is_file() and _in_init(init.read_text(encoding="utf-8"), parts))


def _in_init(source: str, parts: list[str]) -> bool:
    """A package may give names lazily: then it lists them as strings."""
    words = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return parts[0] in words or _defines(ast.parse(source).body, parts)


def _defines(body: list[ast.stmt], names: list[str]) -> bool:
    if not names:
        return True
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == names[0]:
            return len(names) == 1 or _defines(node.body, names[1:])
        if len(names) == 1 and names[0] in _bound(node):
            return True
    return False


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize(
    ("dotted", "there"),
    [
        ("wsi_pipeline.slides.open.open_slide", True),
        ("wsi_pipeline.slides.slide.Slide.read_region", True),
        ("wsi_pipeline.slides", True),
        ("wsi_pipeline.slides.slide.Slide.fly", False),
        ("wsi_pipeline.slides.opened", False),
        ("pathotune.Adaptation", False),
    ],
)
def test_names_are_looked_up_in_the_source(dotted: str, there: bool) -> None:
    assert name_exists(dotted) == there
