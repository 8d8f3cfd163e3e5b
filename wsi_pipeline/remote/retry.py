"""Trying a request again: exponential waits, up to a total time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.servers.answer import TryAgainError
from wsi_pipeline.remote.settings import SECONDS

T = TypeVar("T")
FIRST_WAIT, MOST_WAIT = 0.1, 8.0
_JITTER = 0.5


def retried(call: Callable[[], T], seconds: float, address: str) -> T:
    """The result of `call`, which is repeated while it raises TryAgainError: after 0.1 s, 0.2 s, 0.4 s ... up to 8 s.

    Waits vary by half, so that many readers do not come back at the same moment. Raises SlideError when the next try
    would be later than `seconds` after the first. `address` without secrets.
    """
    begun, tries, wait = time.monotonic(), 0, FIRST_WAIT
    while True:
        tries += 1
        try:
            return call()
        except TryAgainError as error:
            pause = wait * random.uniform(1 - _JITTER, 1 + _JITTER)
            spent = time.monotonic() - begun
            if spent + pause > seconds:
                raise SlideError(
                    f"{error}, {tries} times in {spent:.0f} s: {address}",
                    todo="Check the network and the server, then run the same command again: finished slides are kept. "
                    f"{SECONDS} says how long to try.",
                ) from None
        time.sleep(pause)
        wait = min(MOST_WAIT, 2 * wait)
