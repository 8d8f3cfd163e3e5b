"""A process that is told to end does end, wherever the signal finds it."""

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


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to be told by")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", [_in_a_finaliser, _in_a_weak_callback, _in_the_collector, lambda: None])
def test_what_python_drops_is_said_again(where: Callable[[], None], sent: signal.Signals, code: int) -> None:
    context = multiprocessing.get_context("fork")
    ready, heard = context.Event(), context.SimpleQueue()
    process = context.Process(target=_work, args=(where, ready, heard))
    process.start()
    ready.wait()
    time.sleep(_LOST_SECONDS / 3)
    assert process.pid is not None
    os.kill(process.pid, sent)
    process.join(300)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == code
    assert heard.empty()


class _Tidy:
    """Tidies up when nobody holds it any more, as a generator does that its caller has no hand on yet."""

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


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to be told by")
def test_what_is_unwound_is_let_go() -> None:
    context = multiprocessing.get_context("fork")
    ready, heard = context.Event(), context.SimpleQueue()
    process = context.Process(target=_unwind, args=(ready, heard))
    process.start()
    ready.wait()
    process.terminate()
    process.join(300)
    assert process.exitcode == 143
    assert not heard.empty()


def _lose_another(ready: Any, heard: Any) -> None:
    def fail() -> None:
        raise ValueError("of its own")

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


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals to be told by")
def test_other_errors_go_where_they_went_and_a_second_signal_is_ignored() -> None:
    context = multiprocessing.get_context("fork")
    ready, heard = context.Event(), context.SimpleQueue()
    process = context.Process(target=_lose_another, args=(ready, heard))
    process.start()
    ready.wait()
    process.terminate()
    process.join(300)
    assert process.exitcode == 143
    assert not heard.empty()
    assert heard.get() == "ValueError('of its own')"


def test_a_process_that_was_started_deaf_to_ctrl_c_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        raise_on_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
