"""Reading ahead of a reader whose order is known: several requests at a time, a bounded number of bytes unread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from wsi_pipeline.remote.coalesce import JoinedRange, Range, runs_in_order

WINDOW_BYTES = 32 << 20
"""Most bytes requested that the reader has not come to yet."""


class FetchAhead:
    """Requests the runs of a known order before they are needed.

    request   begins one run and returns at once
    """

    def __init__(
        self, ranges: Iterable[Range], request: Callable[[JoinedRange], None], window: int = WINDOW_BYTES
    ) -> None:
        self._runs, self._request, self._window = runs_in_order(ranges), request, window
        self._number = {item[0]: number for number, run in enumerate(self._runs) for item in run.ranges}
        self._lock, self._next, self._stopped = threading.Lock(), 0, False
        self._unread: dict[int, int] = {}

    def begin(self) -> None:
        """Request the first runs."""
        self._requests(None)

    def reached(self, start: int) -> None:
        """The reader needs the range at `start`: runs before it no longer count as unread, later ones are requested.

        A reader that jumps forward takes the reading ahead with it.
        """
        number = self._number.get(start)
        if number is not None:
            self._requests(number)

    def stop(self) -> None:
        """Request nothing more."""
        with self._lock:
            self._stopped = True

    def _requests(self, reached: int | None) -> None:
        begun = []
        with self._lock:
            if self._stopped:
                return
            if reached is not None:
                for number in [number for number in self._unread if number <= reached]:
                    del self._unread[number]
                self._next = max(self._next, reached)
            while self._next < len(self._runs) and sum(self._unread.values()) < self._window:
                run = self._runs[self._next]
                self._unread[self._next] = run.stop - run.start
                begun.append(run)
                self._next += 1
        for run in begun:
            self._request(run)
