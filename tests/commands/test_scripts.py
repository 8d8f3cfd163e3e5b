"""Scripts without a `__main__` guard, and sessions without a file (notebooks): every command runs once, and works.

Commands that start no process cannot run a script again; those that do all start them in the same way.
"""

from __future__ import annotations

import ast
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.stages.cohorts import write_cohort
from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.processes import process_context

RUNS = """
with open({tally!r}, "a") as tally:
    tally.write("run\\n")
from wsi_pipeline.cli import main
for words in {commands!r}:
    print("CODE", main(words), words[0])
"""


def _script(text: str, folder: Path, *, file: bool) -> subprocess.CompletedProcess[str]:
    """Run a script from a file of its own, or from standard input, where `__main__` has no file."""
    path = folder / "script.py"
    path.write_text(text)
    words = [sys.executable, str(path)] if file else [sys.executable, "-"]
    given = None if file else text
    return subprocess.run(words, input=given, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("file", [True, False], ids=["script", "session"])
def test_commands_run_from_a_script_without_a_guard(tmp_path: Path, file: bool) -> None:
    cohort, run = str(write_cohort(tmp_path / "cohort", broken=False)), ["--run", str(tmp_path / "run")]
    commands = [
        ["check", cohort, *run],
        ["tile", cohort, "--patch-px", "128", "--pixels", "jpeg", "--workers", "2", *run],
        ["embed", "--model", "colour", "--device", "cpu,cpu", *run],
    ]
    tally = tmp_path / "tally"
    text = f"import sys; sys.path.insert(0, {str(ROOT)!r})" + RUNS.format(tally=str(tally), commands=commands)
    done = _script(text, tmp_path, file=file)
    for words in commands:
        assert f"CODE 0 {words[0]}\n" in done.stdout, done.stdout + done.stderr
    assert tally.read_text() == "run\n", "the script was run again by a worker"
    assert "Traceback" not in done.stderr
    assert "4 slides can be tiled" in done.stdout
    assert len(list((tmp_path / "run" / "embed" / "colour").glob("*.h5"))) == 4


def test_processes_are_started_in_no_other_way() -> None:
    """Only system/processes.py asks multiprocessing for a context; whoever starts a process has it from there."""
    found = set()
    for path in (path for package in ("wsi_pipeline", "pathotune") for path in (ROOT / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"multiprocessing|concurrent\.futures|_context|fork", text):
            continue
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            name, given = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            if name.rpartition(".")[2] in STARTERS:
                found.add((path.relative_to(ROOT).as_posix(), name, given.get("mp_context")))
    assert {place for place, *_ in found} >= {"wsi_pipeline/system/isolate.py", "wsi_pipeline/demo/demo_cohort.py"}
    for place, name, context in found:
        assert (name, context) in {("context.Process", None), ("ProcessPoolExecutor", "spawn_context()")}, place


STARTERS = {"Process", "Pool", "ProcessPoolExecutor", "get_context", "SpawnContext", "ForkServerContext", "fork"}
OWN = """
import sys
sys.path.insert(0, {root!r})
from concurrent.futures import ProcessPoolExecutor
from wsi_pipeline.system.processes import process_context, spawn_context

class Mine:
    pass

def square(number):
    return number * number

print("AGAIN" if __name__ != "__main__" else "FIRST")
with ProcessPoolExecutor(1, mp_context=spawn_context()) as pool:
    print("FOUND", pool.submit(pow, 3, 2).result())
child = process_context(["json"]).Process(target=print, args=("CHILD",))
child.start()
child.join()
print("MINE", sys.modules["__main__"].Mine is Mine)
"""


def test_the_script_is_what_it_was_once_a_process_is_started(tmp_path: Path) -> None:
    done = _script(OWN.format(root=str(ROOT)), tmp_path, file=True)
    assert sorted(done.stdout.split()) == sorted(["FIRST", "FOUND", "9", "CHILD", "MINE", "True"]), done.stderr


def _start_another(answers: object) -> None:
    try:
        process_context([]).Process(target=print).start()
    except UsageError as error:
        answers.put((str(error), error.todo))  # type: ignore[attr-defined]


def test_a_daemonic_worker_is_told_what_to_use_instead() -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    worker = context.Process(target=_start_another, args=(answers,), daemon=True)
    worker.start()
    worker.join(300)
    told, todo = answers.get()
    assert "a daemonic multiprocessing worker cannot start processes" in told
    assert "ProcessPoolExecutor" in todo
