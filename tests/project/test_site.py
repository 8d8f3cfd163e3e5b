"""The site: docstrings become what they look like, and a broken link in any page is an error."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from docutils.nodes import Text, literal
from docutils.parsers.rst import roles

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("wsi_pipeline", "pathotune")


def _load():
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/site/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.to_rst


to_rst = _load()


def _parse(lines: list[str]):
    """The document that docutils reads; Sphinx's role for names becomes plain code. Any complaint is an error."""
    roles.register_local_role("py:obj", lambda name, raw, text, *rest, **more: ([literal(raw, text)], []))
    settings = {"halt_level": 2, "report_level": 2, "warning_stream": None}
    return publish_doctree("\n".join(lines), settings_overrides=settings)


DOCSTRING = """Read *all* rows_ of a |table|, `Store.read` first.

store, name   an open store, as `(path, mode) -> Store`
              gives it
rows*         which ones

- one item
  that goes on
- another

Raises StoreError; for example:

    with open_store(path) as store:
        store.read("x")

    print("after a blank line")

run/
  a.h5          a tree
  b.csv    of files
"""


def test_a_docstring_becomes_what_it_looks_like_in_an_editor() -> None:
    document = _parse(to_rst(DOCSTRING.split("\n")))
    assert [child.tagname for child in document] == [
        "paragraph",
        "definition_list",
        "bullet_list",
        "paragraph",
        "literal_block",
        "literal_block",
    ]
    first, table, items, _, example, tree = document
    assert first.astext() == "Read *all* rows_ of a |table|, Store.read first."
    assert [row[0].astext() for row in table] == ["store, name", "rows*"]
    assert table[0][1].astext() == "an open store, as (path, mode) -> Store gives it"
    assert [item.astext() for item in items] == ["one item\nthat goes on", "another"]
    assert example.astext().endswith('store.read("x")\n\nprint("after a blank line")')
    assert tree.astext() == "run/\n  a.h5          a tree\n  b.csv    of files"


def test_every_docstring_is_read_without_a_complaint_and_keeps_its_words() -> None:
    seen = 0
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and ("\n" in text or "`" in text or "*" in text or "_" in text):
                    seen += 1
                    document = _parse(to_rst(text.split("\n")))
                    words = "".join(leaf.astext() for leaf in document.findall(Text))
                    assert _letters(words) == _letters(text), (path, text)
    assert seen > 500


def _letters(text: str) -> str:
    """The text without white space, backticks, and hyphens, which also mark lists."""
    return re.sub(r"[\s`-]", "", text)


def test_broken_links_are_found(tmp_path: Path) -> None:
    """To a page, to a heading of a page, to a heading of the same page, to a picture and to a file."""
    shutil.copytree(ROOT / "docs/site", tmp_path / "docs/site", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "docs/other.md").write_text("# Other\n\n## A heading here\n")
    good = "[a](docs/other.md) [b](docs/other.md#a-heading-here) [c](#links) [d](docs/site/conf.py)\n"
    (tmp_path / "README.md").write_text(f"# Read me\n\n## Links\n\n{good}")
    assert _build(tmp_path) == (0, "")
    bad = "[a](docs/gone.md) [b](docs/other.md#gone-heading) [c](#gone-here) [d](docs/gone.py) ![e](gone.png)\n"
    bad += "\n<img src='lost.png'>\n"
    (tmp_path / "README.md").write_text(f"# Read me\n\n## Links\n\n{bad}")
    code, said = _build(tmp_path)
    assert code == 1
    for name in ("docs/gone.md", "gone-heading", "gone-here", "docs/gone.py", "gone.png", "lost.png"):
        assert name in said


def test_the_api_is_read_from_the_docstrings_without_an_import(tmp_path: Path) -> None:
    """On a few modules, because all of them take half a minute; one would raise if it were imported."""
    shutil.copytree(ROOT / "docs/site", tmp_path / "docs/site", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "README.md").write_text("# Read me\n")
    for name in ("wsi_pipeline/__init__.py", "wsi_pipeline/registry.py", "pathotune/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "wsi_pipeline/registry.py").open("a") as file:
        file.write("\n\nraise RuntimeError\n")
    assert _build(tmp_path, api=True) == (0, "")
    page = (tmp_path / "out/api/wsi_pipeline/registry/index.html").read_text(encoding="utf-8")
    assert "<h1>registry" in page
    assert 'id="wsi_pipeline.registry.Registry.register"' in page
    assert "raises UsageError if the name is taken" in page
    assert 'href="../../../README.html"' in page


def _build(folder: Path, api: bool = False) -> tuple[int, str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-c", "docs/site", ".", "out"]
    environment = {**os.environ, "DOCS": "all" if api else "pages"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr.strip()


@pytest.mark.slow
def test_the_whole_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-c", "docs/site", ".", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "api/pathotune/config/index.html").read_text(encoding="utf-8")
    assert "PathoTuneConfig" in page
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("api/wsi_pipeline/index.html")
