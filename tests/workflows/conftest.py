"""The workflow's modules on the path, and a small cohort to run it on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.workflows.small_cohort import write_small_cohort
from tests.workflows.snakemake_calls import WORKFLOWS

sys.path.insert(0, str(WORKFLOWS))


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A folder with slides.csv, config.yaml and slides: four good, one corrupt, one not there."""
    return write_small_cohort(tmp_path)
