"""One small demo cohort for all tests of the room, made once."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from wsi_pipeline.demo.demo_cohort import make_cohort

SEED, SIDES, ANNOTATED_SLIDES = 7, (1100, 1400), 2


@dataclass(frozen=True)
class MadeCohort:
    """Where the cohort is, what its manifest says, and what progress was reported."""

    folder: Path
    rows: tuple[dict[str, str], ...]
    reported: tuple[tuple[int, int], ...]

    @property
    def good(self) -> list[dict[str, str]]:
        return [row for row in self.rows if row["slide_id"][-2:].isdigit()]

    def slide(self, name: str) -> Path:
        return self.folder / "slides" / f"{name}.svs"


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> MadeCohort:
    folder = tmp_path_factory.mktemp("demo")
    reported: list[tuple[int, int]] = []
    manifest = make_cohort(
        folder,
        slides=4,
        annotated=ANNOTATED_SLIDES,
        seed=SEED,
        workers=1,
        sides=SIDES,
        progress=lambda done, total: reported.append((done, total)),
    )
    with manifest.open(newline="") as file:
        return MadeCohort(folder, tuple(csv.DictReader(file)), tuple(reported))
