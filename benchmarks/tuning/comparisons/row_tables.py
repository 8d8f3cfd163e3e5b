"""The comparisons that are tables of rows: parts of PathoTune, further sets, a larger backbone, stronger rivals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tuning.comparisons.rows import Rows, row_table
from benchmarks.tuning.job import Job
from benchmarks.tuning.plans import TEXTS, Plan

SET_TEXTS: dict[str, list[dict[str, Any]]] = {
    "crc": [TEXTS["crc"]],
    "ucsb": [TEXTS["ucsb"]],
    "wbc": [
        {"stain": "rapid", "organ": "human blood", "task": "white blood cell classification"},
        {"stain": "Romanowsky", "organ": "human blood", "task": "white blood cell classification"},
    ],
    "wbc-rapid": [{"stain": "rapid", "organ": "human blood", "task": "white blood cell classification"}],
    "wbc-romanowsky": [{"stain": "Romanowsky", "organ": "human blood", "task": "white blood cell classification"}],
    "retina": [{"stain": "un", "organ": "the human retina", "task": "grading of diabetic retinopathy"}],
    "breast": [{"stain": "un", "organ": "the human breast by ultrasound", "task": "tumour classification"}],
}
"""What fills the template for each set; two stains are two tasks."""
SETS = ("crc", "ucsb", "wbc", "retina", "breast")


def method(name: str, **more: Any) -> Callable[[Plan, str], list[Job]]:
    """A row: this method, with these fields of a job, on any set."""
    return lambda plan, dataset: plan.over_seeds(dataset, name, texts=SET_TEXTS[dataset], **more)


def _fields(**fields: Any) -> Callable[[Plan, str], list[Job]]:
    return method("pathotune", fields=fields)


def _lora(rank: int) -> Callable[[Plan, str], list[Job]]:
    """LoRA with updates scaled by 2, as at the default rank."""
    return method("lora", fields={"lora_rank": rank, "lora_alpha": 2 * rank})


PARTS: Rows = {
    "pathotune": method("pathotune"),
    "two free tokens for IVP": method("pathotune", variant="free"),
    "TVP alone": _fields(ttp=False, ivp_tokens=0),
    "TTP alone": _fields(tvp_tokens=0, ivp_tokens=0),
    "IVP alone": _fields(tvp_tokens=0, ttp=False),
    "no TTP": _fields(ttp=False),
}
METHODS: Rows = {name: method(name) for name in ("pathotune", "linear", "vpt-deep", "lora", "full")}
RIVALS: Rows = {
    "pathotune": method("pathotune"),
    "lora rank 4": _lora(4),
    "lora rank 8": method("lora"),
    "lora rank 16": _lora(16),
    "full": method("full"),
    "full, layer decay .75": method("full", learning_rate=1e-3, options={"layer_decay": 0.75}),
    "full, layer decay .65": method("full", learning_rate=1e-3, options={"layer_decay": 0.65}),
}
LARGER: Rows = {name: method(name, backbone="vit-s14") for name in ("pathotune", "linear", "lora", "full")}

PART_TABLE = row_table("Parts of PathoTune on five sets", SETS, PARTS, "pathotune")
SET_TABLE = row_table(
    "White blood cells under two stains; retina and breast of MedMNIST",
    ("wbc", "wbc-rapid", "wbc-romanowsky", "retina", "breast"), METHODS, "pathotune",
    "`wbc` trains and tests on both stains; `wbc-rapid` and `wbc-romanowsky` train on that stain and test on all "
    "images of the other.",
)  # fmt: skip
RIVAL_TABLE = row_table("Stronger rivals", ("crc", "ucsb"), RIVALS, "pathotune")
LARGER_TABLE = row_table("A ViT-S/14 of DINOv2's type", ("crc", "ucsb"), LARGER, "pathotune")
