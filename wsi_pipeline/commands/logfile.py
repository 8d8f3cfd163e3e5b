"""One readable log per run: what was called, what became of each slide, tracebacks in full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import wsi_pipeline

_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def log_to(path: Path | None, command: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Append this package's log records to `path` during the body; None keeps no file.

    tell   called with what encoders have to say (a download, its source and size). Nothing else reaches the
           terminal this way: what the user should see is said by the command itself.
    """
    root = logging.getLogger("wsi_pipeline")
    root.setLevel(logging.INFO)
    root.propagate = False
    handler = _handler(path)
    root.addHandler(handler)
    teller = _Teller(tell)
    encoders = logging.getLogger("wsi_pipeline.encoders")
    encoders.addHandler(teller)
    root.info("%s   (wsi-pipeline %s)", command, wsi_pipeline.__version__)
    try:
        yield
    finally:
        encoders.removeHandler(teller)
        root.removeHandler(handler)
        handler.close()


class _Teller(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the message on."""
        self._tell(record.getMessage())


def _handler(path: Path | None) -> logging.Handler:
    if path is None:
        return logging.NullHandler()
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    return handler
