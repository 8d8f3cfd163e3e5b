"""Trying a request again: exponential waits, up to a total time, which is shorter while a server stays silent."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.servers.answer import TryAgainError
from wsi_pipeline.remote.settings import SECONDS

T = TypeVar("T")
FIRST_WAIT, MOST_WAIT = 0.1, 8.0
_JITTER = 0.5
LEAST_SECONDS = 1.0
_given_up: dict[tuple[str, str], float] = {}
"""Scheme and name of servers whose last request was given up in this process, and for how long it was tried.

A cohort on a server that is gone must not wait a minute for each slide, but one that is away for a minute or two should
lose few slides. So every slide after one that was given up is tried for half as long, until the server answers again.
"""


def retried(call: Callable[[], T], seconds: float, address: str) -> T:
    """The result of `call`, which is repeated while it raises TryAgainError: after 0.1 s, 0.2 s, 0.4 s ... up to 8 s.

    Waits vary by half, so that many readers do not come back at the same moment. Raises SlideError when the next try
    would be later than `seconds` after the first; if the last request to this server was given up in this process, half
    as many as that was tried for, but at least LEAST_SECONDS. `address` without secrets.
    """
    begun, tries, wait, server = time.monotonic(), 0, FIRST_WAIT, _server(address)
    if server in _given_up:
        seconds = min(seconds, max(LEAST_SECONDS, _given_up[server] / 2))
    while True:
        tries += 1
        try:
            found = call()
            _given_up.pop(server, None)
            return found
        except TryAgainError as error:
            pause = wait * random.uniform(1 - _JITTER, 1 + _JITTER)
            spent = time.monotonic() - begun
            if spent + pause > seconds:
                _given_up[server] = seconds
                raise SlideError(
                    f"{error}, {tries} times in {spent:.0f} s: {address}",
                    todo="Check the network and the server, then run the same command again: finished slides are kept. "
                    f"{SECONDS} says how long to try.",
                ) from None
        time.sleep(pause)
        wait = min(MOST_WAIT, 2 * wait)


def _server(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc
