"""SIGTERM and Ctrl-C as exceptions that are never lost.

A signal's exception is raised wherever the program happens to be. Python drops it (`sys.unraisablehook`) if that
is a finaliser, a weak reference's callback or the garbage collector, and the program would not end.
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

_MARK = "signal"
"""Attribute that marks the exception. The exception is not kept: its frames hold objects that release locks."""

_AGAIN_SECONDS = 0.05
"""How long after a lost signal it is sent again: by then the finaliser has most likely returned."""

Handler = Callable[[int, FrameType | None], None]


def raise_on_sigterm(error: Callable[[], BaseException]) -> None:
    """From now on SIGTERM raises `error()` in the main thread; called in another thread it changes nothing.

    Later signals are ignored, so that nothing interrupts what unwinds.
    """
    _raise_on(signal.SIGTERM, error, then=signal.SIG_IGN)


def raise_on_ctrl_c() -> None:
    """Ctrl-C raises KeyboardInterrupt in the main thread, every time, as it does by default.

    A process started to ignore it, in the background of a shell, continues to ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _raise_on(signal.SIGINT, KeyboardInterrupt, then=None)


def _raise_on(number: signal.Signals, error: Callable[[], BaseException], *, then: signal.Handlers | None) -> None:
    def hear(signum: int, frame: FrameType | None) -> None:
        """Signal handler: raise the error in the main thread."""
        if then is not None:
            signal.signal(number, then)
        raised = error()
        vars(raised)[_MARK] = number
        sys.unraisablehook = functools.partial(_tell_again, number, hear, sys.unraisablehook)
        try:
            raise raised
        finally:
            del raised  # its own traceback holds this frame

    if threading.current_thread() is threading.main_thread():  # only the main thread can handle signals
        signal.signal(number, hear)


def _tell_again(
    number: signal.Signals,
    hear: Handler,
    hook: Callable[[sys.UnraisableHookArgs], object],
    lost: sys.UnraisableHookArgs,
) -> None:
    if lost.exc_value is None or vars(lost.exc_value).get(_MARK) != number:
        hook(lost)
        return
    sys.unraisablehook = hook
    signal.signal(number, hear)
    _thread.start_new_thread(_send, (number,))  # a signal raised in here would be lost again


def _send(number: signal.Signals) -> None:
    time.sleep(_AGAIN_SECONDS)
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)  # unlike interrupt_main, it interrupts a blocking system call
    else:
        _thread.interrupt_main(number)
