"""Compute results ahead of their use, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R]:
    """Yield `function(item)` for each item in order, computed in `pool` while the caller uses earlier results.

    ahead   most results computed, or being computed, beyond the one in use; items are taken no earlier than that

    An exception of `function` is raised when its item's turn comes. When the generator ends early, calls not begun are
    cancelled; the pool waits for the others when it shuts down.
    """
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
