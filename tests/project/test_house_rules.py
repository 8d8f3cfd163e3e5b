"""The check of the house rules finds what breaks them (`.ci/house_rules.py`; `make lint` runs it on the project)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("house_rules", ROOT / ".ci" / "house_rules.py")
assert _SPEC is not None
assert _SPEC.loader is not None
house_rules = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(house_rules)

LONG = "def f():\n    '''Words.'''\n" + "    x = 1\n" * 61


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"a.py": "x = 1\n" * 401}, "wsi_pipeline/a.py: 401 lines, at most 400"),
        ({"a.py": LONG}, "wsi_pipeline/a.py:1: f has 61 lines, at most 60"),
        ({"a.py": "def f(a, b, c, d, /, e, f, *, g, h, i): ..."}, "wsi_pipeline/a.py:1: f has 9 parameters, at most 8"),
        ({f"room/m{k}.py": "" for k in range(16)}, "wsi_pipeline/room: 16 modules, at most 15"),
        ({"p/a.py": "", "q/a.py": ""}, "module a is there 2 times: wsi_pipeline/p/a.py, wsi_pipeline/q/a.py"),
        (
            {"a.py": "class C: ...", "b.py": "class C: ..."},
            "class C is there 2 times: wsi_pipeline/a.py, wsi_pipeline/b.py",
        ),
        (
            {"a.py": "from wsi_pipeline import b", "b.py": "def f():\n    import wsi_pipeline.a\n"},
            "import circle: wsi_pipeline.a <-> wsi_pipeline.b",
        ),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, files: dict[str, str], fault: str) -> None:
    _write(tmp_path, files)
    assert house_rules.faults_of(tmp_path) == [fault]


def test_what_is_allowed(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "commands/tile.py": "",
            "stages/tile.py": LONG.replace("x = 1\n", "x = 1\n", 1).removesuffix("    x = 1\n"),
            "a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from wsi_pipeline.b import C\n",
            "b.py": "import wsi_pipeline.a\nclass _C: ...\ndef f(a, b, c, d, /, e, f, *, g, h): ...\n",
            "c.py": "class _C: ...\n" + "x = 1\n" * 399,
        },
    )
    assert house_rules.faults_of(tmp_path) == []


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / "wsi_pipeline" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
