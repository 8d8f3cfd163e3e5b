"""The log of a run, as text and as JSON lines: commands, the result of each slide, full tracebacks.

Anything that looks like an access token is removed (`redaction.redact`).
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wsi_pipeline.system.redaction import RedactingFormatter, redact
from wsi_pipeline.version import __version__

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
_OF_SLIDE = re.compile(r"(?P<slide>[^\n]{1,150}?): (?P<stage>[\w/.+-]+) (?P<action>made|fresh|failed)\b")
"""How the runner begins a line about a slide: `s01: embed/colour failed: ...`."""


@contextmanager
def log_to(
    path: Path | None, command: str, show: Callable[[str], None], *, json_path: Path | None = None
) -> Iterator[None]:
    """Append this package's log records to `path` during the body; None writes no file.

    show        called with messages of encoders (a download, its source and size). Other records do not reach the
                terminal: commands print what the user should see
    json_path   a second log with one JSON object per line: time, level, logger, message, and if they apply slide,
                stage, action, traceback; the last record of a command has the counts and the seconds

    The last line of a command says how many slides were processed, up to date and failed, and how long it took.
    """
    root = logging.getLogger("wsi_pipeline")
    root.setLevel(logging.INFO)
    root.propagate = False
    tally = _Tally()
    with ExitStack() as stack:
        for handler in (_handler(path), _json_handler(json_path), tally):
            stack.callback(handler.close)
            stack.callback(root.removeHandler, handler)
            root.addHandler(handler)
        encoders, handler = logging.getLogger("wsi_pipeline.encoders"), _ToConsole(show)
        encoders.addHandler(handler)
        stack.callback(encoders.removeHandler, handler)
        root.info("%s   (wsi-pipeline %s)", command, __version__)
        ended = "stopped"
        try:
            yield
            ended = "ended"
        finally:
            root.info("%s %s", ended, tally, extra={"summary": {"ended": ended, **tally.summary()}})


class _ToConsole(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the message on."""
        self._show(redact(record.getMessage()))


class _Tally(logging.Handler):
    """Counts the results of slides from log records: the last record of each slide and stage."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last: dict[tuple[str, str], str] = {}
        self._started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record about a slide."""
        found = facts_of(record)
        if "slide" in found and "action" in found:
            self._last[found["slide"], found["stage"]] = found["action"]

    def summary(self) -> dict[str, Any]:
        """Counts by stage, and seconds."""
        stages: dict[str, dict[str, int]] = {}
        for (stage, action), count in Counter((stage, action) for (_, stage), action in self._last.items()).items():
            stages.setdefault(stage, {})[action] = count
        return {"stages": stages, "seconds": round(time.monotonic() - self._started, 3)}

    def __str__(self) -> str:
        found = self.summary()
        words = {"made": "made", "fresh": "up to date", "failed": "failed"}
        parts = [
            f"{stage}: " + ", ".join(f"{counts[action]} {word}" for action, word in words.items() if action in counts)
            for stage, counts in found["stages"].items()
        ]
        return "; ".join([f"after {found['seconds']:.1f} s", *parts])


def facts_of(record: logging.LogRecord) -> dict[str, str]:
    """Slide, stage and action of a record: from `extra=`, else from the beginning of its message."""
    carried = {key: str(getattr(record, key)) for key in ("slide", "stage", "action") if hasattr(record, key)}
    if "slide" in carried:
        return carried
    found = _OF_SLIDE.match(record.getMessage())
    return {**found.groupdict(), **carried} if found else carried


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **{key: redact(value) for key, value in facts_of(record).items()},
        }
        if hasattr(record, "summary"):
            line["summary"] = record.summary
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _handler(path: Path | None) -> logging.Handler:
    return logging.NullHandler() if path is None else _file(path, RedactingFormatter(logging.Formatter(_FORMAT)))


def _json_handler(path: Path | None) -> logging.Handler:
    return logging.NullHandler() if path is None else _file(path, JsonFormatter())


def _file(path: Path, formatter: logging.Formatter) -> logging.Handler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(formatter)
    return handler
