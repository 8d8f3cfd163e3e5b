"""The matrix of docs/exchange.md holds every script of benchmarks/exchange, every peer, every format."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.conftest import ROOT
from wsi_pipeline.config.registries import EXPORT_FORMATS

SCRIPTS = ROOT / "benchmarks" / "exchange"
PAGE = (ROOT / "docs/exchange.md").read_text(encoding="utf-8").partition("## Tested with the tools themselves")[2]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")][
    1:
]


def test_each_row_has_a_direction_a_version_and_a_command_that_exists() -> None:
    assert len(ROWS) >= 16
    for tool, version, direction, command, result in ROWS:
        assert direction in ("in", "out"), tool
        assert re.search(r"\d", version), tool
        assert result
        path = command.split("`")[1].split()[0]
        assert (SCRIPTS / path).is_file() or (ROOT / path).is_file(), command
        assert command.startswith("in the tests") == path.startswith("tests/")


def test_every_script_and_every_peer_is_in_the_matrix() -> None:
    commands = " ".join(row[3] for row in ROWS)
    for script in [path.name for path in SCRIPTS.glob("with_*.py")]:
        assert script in commands
    tree = ast.parse((SCRIPTS / "read_peers.py").read_text(encoding="utf-8"))
    (peers,) = [n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "PEERS"]
    assert isinstance(peers, ast.Dict)
    for peer in (ast.literal_eval(key) for key in peers.keys if key is not None):
        assert f"read_peers.py {peer}" in commands


def test_every_format_for_a_tool_is_in_the_matrix() -> None:
    out = " ".join(row[0].lower() for row in ROWS if row[2] == "out")
    for name in set(EXPORT_FORMATS.names()) - {"png", "csv"}:
        assert name in out
    assert Path(ROOT / "docs/export.md").read_text(encoding="utf-8").count("| TRIDENT |") == 0
