"""The errors a user of this library may meet: each says what is wrong and, where there is one, what to do."""

from __future__ import annotations


class PathoTuneError(Exception):
    """Base of all errors raised on purpose.

    `what` is one sentence naming field, expectation and value; `todo` one sentence saying what the user can do.
    Pickles, so that it crosses worker processes.
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
    """A field of a configuration, or an argument, is out of its range or unknown."""


class BackboneError(PathoTuneError):
    """The network is not a plain vision transformer of timm, or its weights are missing or do not fit."""


class TextEncoderError(PathoTuneError):
    """The text encoder is missing, cannot be read, or does not take the text."""


class AdapterError(PathoTuneError):
    """An adapter file is missing, damaged, hostile, of another version, or made for another backbone."""
