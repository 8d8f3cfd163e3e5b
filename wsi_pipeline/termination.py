"""SIGTERM as an exception that is raised once and never lost.

A signal's exception is raised wherever the signal finds the program. Python drops it (`sys.unraisablehook`) where that
is a finaliser or a callback of the garbage collector, and the process that was told to end would go on.
"""

from __future__ import annotations

import _thread
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

_MARK = "told by SIGTERM"
"""By this the exception is known again. It is not kept: its frames hold what gives back its locks once let go."""

_AGAIN_SECONDS = 0.05
"""How long after a loss the process is told again: by then the finaliser has most likely returned."""


def raise_on_sigterm(error: Callable[[], BaseException]) -> None:
    """From now on SIGTERM raises `error()` in the main thread, which is the one to call this.

    Later signals are ignored, so that nothing interrupts what unwinds.
    """

    def hear(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raised = error()
        vars(raised)[_MARK] = True
        sys.unraisablehook = functools.partial(_tell_again, hear, sys.unraisablehook)
        try:
            raise raised
        finally:
            del raised  # this frame is one of its own

    signal.signal(signal.SIGTERM, hear)


def _tell_again(
    hear: Callable[[int, FrameType | None], None],
    hook: Callable[[sys.UnraisableHookArgs], object],
    lost: sys.UnraisableHookArgs,
) -> None:
    if lost.exc_value is None or _MARK not in vars(lost.exc_value):
        hook(lost)
        return
    sys.unraisablehook = hook
    signal.signal(signal.SIGTERM, hear)
    _thread.start_new_thread(_send, ())  # what is raised in here, by a signal of our own, would be lost again


def _send() -> None:
    time.sleep(_AGAIN_SECONDS)
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)
