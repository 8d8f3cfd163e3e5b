"""Every example of the documentation runs, and every command line in it is one that the program takes.

Elsewhere: docs/format.md in tests/store/test_golden.py, docs/pathotune.md in tests/pathotune/test_docs.py,
CONTRIBUTING.md in tests/project/test_contributing.py.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from PIL import Image

from tests.api.pages import PAGES, PYTHON_PAGE, ROOT, blocks
from wsi_pipeline.commands.catalogue import COMMANDS
from wsi_pipeline.commands.shell.parser import build_parser
from wsi_pipeline.commands.shell.request import parse_chunk
from wsi_pipeline.commands.shell.sections import split_sections
from wsi_pipeline.config.specs import MilSpec

RUN_HERE = {"docs/python.md", "docs/versions.md", "docs/mil.md"}
RUN_ELSEWHERE = {"docs/format.md", "docs/pathotune.md", "CONTRIBUTING.md"}
NAMES = "|".join(command.name for command in COMMANDS)


def test_every_page_with_python_is_run_somewhere() -> None:
    found = {str(page.relative_to(ROOT)) for page in PAGES if blocks(page, "python")}
    assert found == RUN_HERE | RUN_ELSEWHERE


def test_the_notebook_is_made_from_the_page() -> None:
    maker = _maker()
    text = maker.NOTEBOOK.read_text(encoding="utf-8")
    assert text == maker.notebook(PYTHON_PAGE.read_text(encoding="utf-8")), f"run {maker.__file__}"
    nbformat.validate(nbformat.reads(text, as_version=4))
    code = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert code[1:] == [block.rstrip() for block in blocks(PYTHON_PAGE, "python")]


def test_the_notebook_runs_in_a_kernel_and_shows_pictures_and_tables(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(_maker().NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [*code[1:], new_code_cell("float(attention.sum())")]  # the first makes what the fixture has made
    place = {"metadata": {"path": str(demo)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    shown = [_shown(cell) for cell in notebook.cells]
    slide, tissue = shown[:2]
    for output in (slide, tissue):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(output["image/png"]))))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 5  # not blank
    assert slide["text/plain"].startswith("<Slide demo-01.svs: ")
    (run,) = (output for output in shown if output.get("text/plain", "").startswith("<Run "))
    assert all(f"demo-0{number}" in run["text/html"] for number in range(1, 7))
    assert sum("<table" in output.get("text/html", "") for output in shown) >= 5
    assert float(shown[-1]["text/plain"]) == pytest.approx(1, abs=1e-4)


def test_the_script_of_the_versions_page_runs(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks(ROOT / "docs" / "versions.md", "python")
    slides = pd.read_csv(demo / "demo" / "slides.csv").iloc[:1]
    slides.assign(path=[str(demo / "demo" / path) for path in slides["path"]]).to_csv(tmp_path / "slides.csv")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "versions.md", "exec"), {})
    assert list((tmp_path / "wsi-run" / "embed" / "colour").glob("*.h5"))


def test_the_example_of_the_tasks_page_runs() -> None:
    (block,) = blocks(ROOT / "docs" / "mil.md", "python")
    table = pd.DataFrame({"slide_id": list("abcd"), "patient_id": list("abcd"), "label": list("xyxy")})
    names: dict[str, Any] = {
        "table": table, "spec": MilSpec(), "outputs": np.array([[2.0, 0], [0, 1], [1, 0], [0, 3]]),
        "weights": np.ones((3, 4)),
    }  # fmt: skip
    exec(compile(block, "mil.md", "exec"), names)
    assert names["task"].classes == ("x", "y")
    assert list(names["predictions"]["predicted"]) == list("xyxy")


def test_command_lines_are_found() -> None:
    lines = {line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))}
    assert "wsi-pipeline tile slides.csv" in lines
    assert "wsi-pipeline train-mil --committee 5 --val-fraction 0 --epochs 15" in lines
    assert "wsi-pipeline tune annotated.csv --nonsense" in command_lines("Say `tune annotated.csv --nonsense` or so.")
    assert {"check", "tile", "embed", "tune", "classify", "train-mil", "predict"} <= {line.split()[1] for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_is_taken(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = []
    for line in command_lines(page.read_text(encoding="utf-8")):
        words = shlex.split(line)[1:]
        if len(words) == 1:  # prose that names a command
            continue
        try:
            args = build_parser().parse_args(words)
        except SystemExit:
            told = capsys.readouterr().err
            if not (words[-1].startswith("--") and "expected one argument" in told):  # prose that names an option
                refused.append((line, told.strip()))
            continue
        split_sections(args.command.options, vars(args))  # values out of range raise here
        parse_chunk(args.chunk)
    assert not refused


def command_lines(text: str) -> list[str]:
    """The commands in a page: lines of shell, and code within prose that starts with the program or a command."""
    text = text.replace("\\\n", " ")
    found = re.findall(r"^(?:\$ |    |\t)?\s*(wsi-pipeline [a-z].*)$", text, re.MULTILINE)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", prose):
        if re.match(rf"wsi-pipeline ({NAMES})\b", code):
            found.append(code)
        elif re.match(rf"({NAMES}) (\S+ )*--[a-z]", code):
            found.append(f"wsi-pipeline {code}")
    return [line for each in found if (line := _plain(each))]


def _plain(line: str) -> str:
    """Without remarks, redirections and ellipses; job numbers of Slurm are numbers."""
    line = re.split(r"\s+#|\s{3,}| \|| &&| <|; ", line.strip())[0]
    if line.count("'") % 2:  # the end of --wrap '...'
        line = line.removesuffix("'")
    line = line.replace("$SLURM_ARRAY_TASK_ID", "1").replace("$SLURM_ARRAY_TASK_COUNT", "2")
    words = [word for word in line.split() if word not in ("...", "…")]
    return " ".join(words) if len(words) > 1 and re.fullmatch(NAMES, words[1]) else ""


def _shown(cell: Any) -> dict[str, str]:
    """What a notebook shows below a cell, by type: the value of its last expression, {} for none."""
    return next((dict(output.data) for output in cell.outputs if output.output_type == "execute_result"), {})


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "docs" / "notebooks" / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
