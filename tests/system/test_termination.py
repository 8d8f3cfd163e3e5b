"""A process that gets a signal to end does end, whatever it was doing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wsi_pipeline.system.termination import raise_on_ctrl_c, raise_on_sigterm

_LOST_SECONDS = 0.3

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class _Slow:
    """Takes its time to go."""

    def __del__(self) -> None:
        _wait()


class _Watched:
    """Of which somebody waits to hear that it has gone."""


def _wait(*_: object) -> None:
    end = time.monotonic() + _LOST_SECONDS
    while time.monotonic() < end:
        pass


def _in_a_finaliser() -> None:
    _Slow()


def _in_a_weak_callback() -> None:
    watched = _Watched()
    callback = weakref.ref(watched, _wait)
    del watched
    assert callback() is None


def _in_the_collector() -> None:
    gc.callbacks.append(_wait)
    gc.collect(0)
    gc.callbacks.clear()


def _work(where: Callable[[], None], ready: Any, heard: Any) -> None:
    sys.unraisablehook = lambda lost: heard.put(repr(lost.exc_value))
    raise_on_sigterm(lambda: SystemExit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where nobody presses keys
    raise_on_ctrl_c()
    try:
        ready.set()
        where()
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        sys.exit(130)


def _ended(
    work: Callable[..., None], *given: Any, sent: signal.Signals = signal.SIGTERM, after: float = 0
) -> tuple[int | None, list[str]]:
    """Start `work(*given, ready, heard)` in a process and send it a signal; returns its exit code and what it said."""
    context = multiprocessing.get_context("fork")
    ready, heard = context.Event(), context.SimpleQueue()
    process = context.Process(target=work, args=(*given, ready, heard))
    process.start()
    ready.wait()
    time.sleep(after)
    assert process.pid is not None
    os.kill(process.pid, sent)
    process.join(300)
    if process.exitcode is None:
        process.kill()
    said = []
    while not heard.empty():
        said.append(heard.get())
    return process.exitcode, said


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", [_in_a_finaliser, _in_a_weak_callback, _in_the_collector, lambda: None])
def test_a_signal_that_python_drops_is_sent_again(where: Callable[[], None], sent: signal.Signals, code: int) -> None:
    assert _ended(_work, where, sent=sent, after=_LOST_SECONDS / 3) == (code, [])


class _Tidy:
    """Reports when it is released, like a generator that its caller does not hold yet."""

    def __init__(self, heard: Any) -> None:
        self.heard = heard

    def __del__(self) -> None:
        self.heard.put("tidied up")


def _unwind(ready: Any, heard: Any) -> None:
    raise_on_sigterm(lambda: SystemExit(143))
    tidy = _Tidy(heard)
    while tidy:
        ready.set()
        time.sleep(0.01)


def test_the_frames_that_a_signal_unwinds_are_released() -> None:
    assert _ended(_unwind) == (143, ["tidied up"])


def _lose_another(ready: Any, heard: Any) -> None:
    def fail() -> None:
        raise ValueError("another")

    sys.unraisablehook = lambda lost: heard.put(repr(lost.exc_value))
    raise_on_sigterm(lambda: SystemExit(143))
    try:
        ready.set()
        while True:
            time.sleep(0.01)
    finally:
        signal.raise_signal(signal.SIGTERM)  # a second one does not interrupt what unwinds
        watched = _Watched()
        _callback = weakref.ref(watched, lambda _: fail())
        del watched


def test_other_errors_reach_the_old_hook_and_a_second_signal_is_ignored() -> None:
    assert _ended(_lose_another) == (143, ["ValueError('another')"])
