"""The errors a user may meet: each says what is wrong, which slide, and what to do.

Everything raised on purpose derives from `WsiPipelineError`. Only the stage runner catches more
than that; the command line prints the message without a traceback (`--debug` shows it).
"""

from __future__ import annotations

from pathlib import Path


class WsiPipelineError(Exception):
    """Base of all errors raised on purpose.

    `what` is one sentence naming field, expectation and value; `slide` the slide_id it is about;
    `todo` one sentence saying what the user can do. Pickles, so that it crosses worker processes.
    """

    def __init__(self, what: str, *, slide: str | None = None, todo: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.slide = slide
        self.todo = todo

    def __str__(self) -> str:
        head = f"{self.slide}: {self.what}" if self.slide else self.what
        return f"{head}\n{self.todo}" if self.todo else head

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.slide, self.todo)


def _rebuild(kind: type[WsiPipelineError], what: str, slide: str | None, todo: str | None) -> WsiPipelineError:
    return kind(what, slide=slide, todo=todo)


class UsageError(WsiPipelineError):
    """The command, an option or a configuration file is wrong (exit code 2)."""


class ManifestError(UsageError):
    """The slides CSV cannot be used as it is; the message lists every fault with its row."""


class LabelError(UsageError):
    """Labelled patches cannot be used as they are: no known source, no class, a part without a class, a leak."""


class SlideError(WsiPipelineError):
    """One slide cannot be opened, read, or placed in micrometres."""


class MissingSlideError(SlideError):
    """There is no slide at an address."""


class StoreError(WsiPipelineError):
    """A store of this pipeline is missing, damaged, or of another format or version."""


class DamagedStoreError(StoreError):
    """A store is not what was written: truncated, or bytes have changed.

    path   of the store; `mark` tells this file from one that may have taken its place since (store.base.file_mark)
    """

    def __init__(
        self,
        what: str,
        *,
        slide: str | None = None,
        todo: str | None = None,
        path: Path | None = None,
        mark: tuple[int, ...] = (),
    ) -> None:
        super().__init__(what, slide=slide, todo=todo)
        self.path, self.mark = path, mark

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_damaged, (self.what, self.slide, self.todo, self.path, self.mark)


def _rebuild_damaged(
    what: str, slide: str | None, todo: str | None, path: Path | None, mark: tuple[int, ...]
) -> DamagedStoreError:
    return DamagedStoreError(what, slide=slide, todo=todo, path=path, mark=mark)


class ExchangeError(WsiPipelineError):
    """A file of another tool cannot be used as it is: another layout, rows that do not fit, or values that do not.

    `todo` is required: nobody can guess what to do about a file that they did not write.
    """

    def __init__(self, what: str, *, todo: str, slide: str | None = None) -> None:
        super().__init__(what, slide=slide, todo=todo)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_exchange, (self.what, self.slide, self.todo)


def _rebuild_exchange(what: str, slide: str | None, todo: str) -> ExchangeError:
    return ExchangeError(what, slide=slide, todo=todo)


class EncoderError(WsiPipelineError):
    """An encoder is unknown, its weights are missing, or it does not fit the patches."""


class MilError(WsiPipelineError):
    """Slide-level training or prediction cannot be done honestly on these slides."""


class MetricError(MilError):
    """Predictions cannot be measured: there are none, a class is unknown or missing, a probability is not finite."""


class SplitError(MilError):
    """Slides cannot be divided into training, validation and test parts without a leak or a missing class."""
