"""Patches of several slides in order: the next slide is opened and read while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat, takewhile

from wsi_pipeline.reading.patch_reader import Batch, PatchReader, PatchSource
from wsi_pipeline.system.prefetch import prefetch

AHEAD = 2
"""Batches kept ready beyond the one in use, whichever slide they belong to."""

SlideBatch = tuple[int, int, Batch]
SlideFailure = tuple[int, BaseException]


def read_ahead(
    openers: Iterable[Callable[[], PatchSource]],
    batch: int,
    threads: int,
    start: Callable[[int], int] = lambda number: 0,
) -> Iterator[SlideBatch | SlideFailure]:
    """Iterate over the batches of several slides, in order, reading ahead across their borders.

    openers   functions that open one slide (or store) each; called in a thread when its turn comes; the source they
              return is closed after its last batch
    batch     patches per batch; a slide's last batch may be shorter, and a batch never holds two slides
    threads   reader threads
    start     number of the slide -> row to begin with; called when its turn comes

    Yields (number of the slide, first row, uint8 (B, P, P, 3)), every row once and in order; or (number, error) if a
    slide cannot be opened or read, and continues with the next slide. A slide without rows yields nothing.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="slides") as outer:
        steps = _Steps(enumerate(openers), batch, threads, start)
        try:
            with closing(prefetch(outer, lambda _: steps.next(), repeat(None), AHEAD)) as found:
                yield from takewhile(lambda step: step is not None, found)
        finally:
            outer.submit(steps.close).result()


class _Steps:
    """The batches of all slides one by one; an error replaces the rest of its slide. For one thread."""

    def __init__(
        self,
        openers: Iterator[tuple[int, Callable[[], PatchSource]]],
        batch: int,
        threads: int,
        start: Callable[[int], int],
    ) -> None:
        self._openers, self._batch, self._threads, self._start = openers, batch, threads, start
        # A future keeps what its call raises, so the error of one slide needs no handler of its own.
        self._inner = ThreadPoolExecutor(1, thread_name_prefix="slide")
        self._slide: tuple[int, Generator[tuple[int, Batch]]] | None = None

    def next(self) -> SlideBatch | SlideFailure | None:
        """The next batch or error, or None after the last slide."""
        while True:
            if self._slide is None:
                number, opener = next(self._openers, (-1, None))
                if opener is None:
                    return None
                self._slide = number, self._read(number, opener)
            number, batches = self._slide
            step: Future[tuple[int, Batch] | None] = self._inner.submit(next, batches, None)
            error = step.exception()
            found = None if error else step.result()
            if found is not None:
                return (number, *found)
            self._slide = None
            if error is not None:
                return number, error

    def close(self) -> None:
        """Close the slide being read."""
        if self._slide is not None:
            self._inner.submit(self._slide[1].close).result()
        self._inner.shutdown()

    def _read(self, number: int, opener: Callable[[], PatchSource]) -> Generator[tuple[int, Batch]]:
        source = opener()
        try:
            yield from PatchReader(source, self._batch, self._threads, self._start(number))
        finally:
            source.close()
