"""Every export of a small run: `python -m benchmarks.exchange.make_exports FOLDER`.

The run has 24 slides of two classes that differ in their features, and one slide without patches. The other scripts
of this folder open the exports with the code of the tools they are for, in an environment of those tools.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.exchange.small_run import small_run
from wsi_pipeline.cli import main
from wsi_pipeline.config.registries import EXPORT_FORMATS

SLIDES, SIGNAL = 24, 0.7


def make_exports(folder: Path) -> None:
    """Make the run and write it in every format."""
    run = small_run(folder / "wsi-run", slides=SLIDES, signal=SIGNAL)
    for to in EXPORT_FORMATS.names():
        assert main(["export", "--to", to, "--run", str(run), "--out", str(folder / to)]) == 0


if __name__ == "__main__":
    make_exports(Path(sys.argv[1]))
