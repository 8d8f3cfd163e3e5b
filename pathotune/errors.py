"""Errors of this library: each says what is wrong and, where possible, what to do."""

from __future__ import annotations


class PathoTuneError(Exception):
    """Base of all errors raised on purpose.

    `what` is one sentence with the field, what is expected, and the value; `todo` is one sentence that says what to do.
    Errors can be pickled, so they pass between worker processes.
    """

    def __init__(self, what: str, *, todo: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo

    def __str__(self) -> str:
        return f"{self.what}\n{self.todo}" if self.todo else self.what

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.todo)


def _rebuild(kind: type[PathoTuneError], what: str, todo: str | None) -> PathoTuneError:
    return kind(what, todo=todo)


class ConfigError(PathoTuneError):
    """A configuration field or an argument is unknown or out of range."""


class BackboneError(PathoTuneError):
    """The network is not a plain vision transformer of timm, or its weights are missing or do not fit."""


class TextEncoderError(PathoTuneError):
    """The text encoder is missing or cannot be read, or the text is too long for it."""


class AdapterError(PathoTuneError):
    """An adapter file is missing, damaged, malicious, of another version, or made for another backbone."""
