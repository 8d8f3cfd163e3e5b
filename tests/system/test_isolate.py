"""A process per job: crashes, limits of time and memory, and processes that do not want to end."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

from wsi_pipeline.system.isolate import Crash, Limits, run_isolated


def job(what: str) -> str:
    """Come to an end in one way or another."""
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(7)
    elif what == "hang":
        time.sleep(600)
    elif what == "thread":
        threading.Thread(target=time.sleep, args=(600,)).start()
        return str(os.getpid())
    elif what == "greedy":
        try:
            return str(len(bytearray(8 << 30)))
        except MemoryError:
            return "refused"
    return what


def _outcomes(names: list[str], limits: Limits) -> dict[str, object]:
    return {
        given[0]: out for given, out in run_isolated(job, ((n,) for n in names), 2, preload=[__name__], limits=limits)
    }


def test_each_end_costs_one_job_only() -> None:
    found = _outcomes(["fine", "segfault", "exit", "greedy", "also fine"], Limits(seconds=300, memory=4 << 30))
    assert found["fine"] == "fine"
    assert found["also fine"] == "also fine"
    assert found["greedy"] == "refused"
    assert isinstance(found["segfault"], Crash)
    assert found["segfault"].reason == "the worker process was terminated by SIGSEGV"
    assert isinstance(found["exit"], Crash)
    assert "exit code 7" in found["exit"].reason


def test_a_job_that_takes_too_long_is_ended() -> None:
    found = _outcomes(["hang"], Limits(seconds=2.0))["hang"]
    assert isinstance(found, Crash)
    assert found.exit_code == -signal.SIGKILL
    assert found.reason == "exceeded 2 s and was stopped"


def test_a_result_counts_even_where_its_process_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.system.isolate._GRACE_SECONDS", 0.5)
    pid = _outcomes(["thread"], Limits())["thread"]
    assert isinstance(pid, str)
    assert not psutil.pid_exists(int(pid)), "it was not ended"
