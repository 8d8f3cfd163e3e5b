"""Output of commands: facts, notes, progress, tables. A progress bar on a terminal; occasional lines in a file.

Errors go to standard error, everything else to standard output.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from wsi_pipeline.system.redaction import redact
from wsi_pipeline.wording import grouped

LINE_EVERY_SECONDS = 15.0
MOST_ROWS = 40


class Console:
    """Writes to `out` (standard output by default); `quiet` suppresses everything but errors."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, quiet: bool = False) -> None:
        self.out, self.err, self.quiet = out or sys.stdout, err or sys.stderr, quiet

    def fact(self, name: str, text: str) -> None:
        """Print a fact after its short name: `cohort  5 slides, ...`."""
        self.say(f"{name:<8}{text}")

    def note(self, text: str) -> None:
        """Print something odd that does not stop the work."""
        self.say(f"note    {text}")

    def say(self, text: str = "") -> None:
        """Print one line."""
        if self.quiet:
            return
        try:
            self.out.write(_clean(text) + "\n")
            self.out.flush()
        except BrokenPipeError:  # `wsi-pipeline tile ... | head`: nobody reads the output any more, the work continues
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def error(self, text: str) -> None:
        """Print an error on standard error, also if quiet."""
        self.err.write(f"error: {_clean(text)}\n")
        self.err.flush()

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """Print plain columns; those in `right` are right-aligned."""
        if not rows:
            return
        widths = [max(len(str(row[i])) for row in (headers, *rows)) for i in range(len(headers))]
        for row in (headers, *rows):
            cells = [
                f"{cell:>{w}}" if i in right else f"{cell:<{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            self.say("  ".join(cells).rstrip())

    @contextmanager
    def progress(self, name: str, total: int, unit: str) -> Iterator[Progress]:
        """Progress of `total` units, with rate and time left. Use as `with console.progress(...) as step: step(1)`."""
        progress: Progress
        if self.quiet:
            progress = Progress(total)
        elif self.out.isatty():
            progress = BarProgress(name, total, unit, self.out)
        else:
            progress = LineProgress(name, total, unit, self)
        try:
            yield progress
        except BaseException:
            (progress.close if progress.done else progress.discard)()
            raise
        progress.close()


def _clean(text: str) -> str:
    """Text without the keys that the address of a slide may carry."""
    return redact(text) if "://" in text else text


class Progress:
    """Counts units done, without output."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.started = total, 0, time.monotonic()

    def __call__(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count

    def print_line(self, text: str) -> None:
        """Print a line; on a terminal, above the bar."""

    def close(self) -> None:
        """End the progress display."""

    def discard(self) -> None:
        """End before anything was done, leaving no line: an error message follows."""

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return self.done / max(1e-9, time.monotonic() - self.started)


class LineProgress(Progress):
    """For files and job logs: a plain line every fifteen seconds and one at the end."""

    def __init__(self, name: str, total: int, unit: str, console: Console) -> None:
        super().__init__(total)
        self.name, self.unit, self.console, self.last_line = name, unit, console, time.monotonic()

    def __call__(self, count: int = 1) -> None:
        super().__call__(count)
        if time.monotonic() - self.last_line >= LINE_EVERY_SECONDS:
            self.last_line = time.monotonic()
            left = (self.total - self.done) / max(self.rate, 1e-9)
            self.console.say(f"{self._head()}, {clock(left)} left")

    def print_line(self, text: str) -> None:
        self.console.say(text)

    def close(self) -> None:
        self.console.say(f"{self._head()}  {clock(time.monotonic() - self.started)}")

    def _head(self) -> str:
        return f"{self.name} {grouped(self.done)}/{grouped(self.total)} {self.unit}  {self.rate:.3g}/s"


class BarProgress(Progress):
    """For terminals: a bar with rate and time left."""

    def __init__(self, name: str, total: int, unit: str, out: TextIO) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[counts]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=RichConsole(file=out),
        )
        self._unit = unit
        self._task: Any = self._bar.add_task(name, total=total, counts="", speed="")
        self._show()
        self._bar.start()

    def __call__(self, count: int = 1) -> None:
        super().__call__(count)
        self._show()

    def print_line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._show()
        self._bar.stop()

    def discard(self) -> None:
        self._bar.live.transient = True
        self._bar.stop()

    def _show(self) -> None:
        counts = f"{grouped(self.done)}/{grouped(self.total)} {self._unit}"
        self._bar.update(self._task, completed=self.done, counts=counts, speed=f"{self.rate:.3g}/s")


def clock(seconds: float) -> str:
    """`83` -> `0:01:23`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
