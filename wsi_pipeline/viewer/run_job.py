"""The process of a job: `python -m wsi_pipeline.viewer.run_job FOLDER` runs its commands and records how they end."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.process_identity import this_process
from wsi_pipeline.viewer.jobs import JOB, STATE

_SOME_FAILED = 3
"""Exit code of a command that has done all it could."""


def run_job(folder: Path) -> int:
    """Run the commands of a job one after the other, until one fails."""
    commands = json.loads((folder / JOB).read_text(encoding="utf-8"))["commands"]
    owner, started = str(this_process()), time.time()

    def tell(state: str, step: int, code: int | None = None) -> None:
        """Record the state of the job."""
        facts = {
            "state": state,
            "step": step,
            "process": owner,
            "code": code,
            "started": started,
            "changed": time.time(),
        }
        write_text(folder / STATE, json.dumps(facts), durable=False)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    code = 0
    for step, words in enumerate(commands):
        tell("running", step)
        sys.stdout.write(f"\n$ {shlex.join(['wsi-pipeline', *words])}\n")
        sys.stdout.flush()
        try:
            code = subprocess.call([sys.executable, "-m", "wsi_pipeline", *words], stdin=subprocess.DEVNULL)
        except SystemExit:
            tell("stopped", step)
            raise
        if code not in (0, _SOME_FAILED):
            tell("failed", step, code)
            return code
    tell("done", len(commands), code)
    return 0


if __name__ == "__main__":
    sys.exit(run_job(Path(sys.argv[1])))
