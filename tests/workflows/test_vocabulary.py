"""One vocabulary: stage module = command = workflow rule = output folder."""

from __future__ import annotations

import re
from pathlib import Path

import wsi_pipeline.stages
from wsi_pipeline.cohort import run_dir
from wsi_pipeline.commands.catalogue import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
STAGES = {"segment", "tile", "tune", "embed", "classify", "train_mil", "predict", "heatmap", "report"}
POOLED = {"embed_slides"}
"""Steps whose output is in the folder of another stage: slide embeddings are features, so they are in embed/."""
BOOKKEEPING = {"robustness", "status", "locks", "logs", "export", "annotations", "view", "stain"}


def test_every_stage_has_a_module() -> None:
    modules = {path.stem for path in Path(wsi_pipeline.stages.__path__[0]).glob("*.py")}
    assert modules >= STAGES | POOLED


def test_commands_that_are_stages() -> None:
    assert {command.name.replace("-", "_") for command in COMMANDS if command.stage} == STAGES


def test_rules() -> None:
    rules = {path.stem: path.read_text() for path in (ROOT / "workflows" / "rules").glob("*.smk")}
    assert set(rules) == STAGES | POOLED
    for name, text in rules.items():
        assert re.findall(r"^rule (\w+):", text, re.MULTILINE) == [name]
    included = re.findall(r'^include: "rules/(\w+)\.smk"', (ROOT / "workflows" / "Snakefile").read_text(), re.MULTILINE)
    assert sorted(included) == sorted(STAGES | POOLED)


def test_each_rule_calls_its_own_command_and_no_other() -> None:
    for name in STAGES | POOLED:
        shell = (ROOT / "workflows" / "rules" / f"{name}.smk").read_text().split("shell:")[1]
        assert re.findall(r"\{CLI\} ([\w-]+)", shell) == [name.replace("_", "-")]


def test_output_folders() -> None:
    layout = (run_dir.__doc__ or "").split("wsi-run/\n")[1]
    folders = set(re.findall(r"(?:^|  )([\w-]+)/", "\n".join(line[2:] for line in layout.split("\n")), re.MULTILINE))
    assert {name.replace("-", "_") for name in folders - BOOKKEEPING} == STAGES
