"""The Slurm profile on a real Slurm of one node: jobs run there, bad slides are named, the rest is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflows.slurm_node import SlurmNode, why_not
from tests.workflows.small_cohort import CORRUPT, MISSING
from tests.workflows.snakemake_calls import snakemake

pytestmark = pytest.mark.slow
pytest.importorskip("snakemake_executor_plugin_slurm", reason="not installed: pip install 'wsi-pipeline[workflow]'")

# This cluster keeps no accounts, and a test need not wait as long for a job as a cluster's users do.
HERE = (
    "--slurm-no-account",
    "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=2",
    "--seconds-between-status-checks=3",
    "--latency-wait=10",
)

KINDS = ("tissue", "embed_slides", "embed", "train_mil", "predict", "heatmap", "report")


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmNode]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with SlurmNode(tmp_path_factory.mktemp("slurm") / "node") as node:
        yield node


def test_a_cohort_with_bad_slides_on_slurm(cohort: Path, node: SlurmNode) -> None:
    done = snakemake(cohort, "slurm", *HERE, path=node.bin, timeout=3600)
    assert done.returncode == 0, done.stdout
    jobs = {_kind(job["Comment"]): job for job in node.jobs()}
    assert set(jobs) == set(KINDS)
    assert {job["JobState"] for job in node.jobs()} == {"COMPLETED"}
    assert len(node.jobs()) == 2 * 2 + 5, "two chunks: segment with tile, embed; then the cohort as a whole"
    assert (jobs["embed"]["CPUs/Task"], jobs["embed"]["TimeLimit"]) == ("8", "04:00:00")
    assert (jobs["tissue"]["CPUs/Task"], jobs["tissue"]["MinMemoryNode"]) == ("4", "8000M")
    told = done.stdout.split("failed in", 1)[1]
    assert CORRUPT in told
    assert MISSING in told
    run = cohort / "run"
    assert len(list((run / "heatmap" / "colour" / "gated-abmil").glob("*.png"))) == 4
    assert (run / "report" / "report.html").is_file()


def _kind(comment: str) -> str:
    """The rule of a job, or its group, from what the executor notes: `rule_embed_wildcards_...`."""
    return next(name for name in KINDS if name in comment)
