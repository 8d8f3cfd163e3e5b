"""What a server answers to a request for a range of a file, and the ways in which it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """Bytes of a range.

    size   of the whole file
    tag    what identifies its content: the ETag, else the time of its last change; empty if the server states neither
    """

    data: bytes
    size: int
    tag: str


class RangeServer(Protocol):
    """Reads ranges of one file. For several threads."""

    def get(self, start: int, stop: int, tag: str = "") -> Answer:
        """Bytes `start` to `stop` (exclusive; fewer at the end of the file).

        tag   if not empty, the file must still have it

        Raises SlideError for what will not change, `TryAgainError` for what may, `NoRangesError`, `ChangedError`.
        """

    def whole(self, write: Callable[[bytes], None]) -> str:
        """Pass the whole file to `write` piece by piece; returns its tag. Only of a server that sends no ranges."""


class TryAgainError(Exception):
    """The server did not answer, or answered that it cannot now; the message says which, without any secret."""


class ChangedError(Exception):
    """The file has another tag or size than before."""


class NoRangesError(Exception):
    """The server sends only whole files; `size` of this one, or -1 if it does not say."""

    def __init__(self, size: int, tag: str) -> None:
        super().__init__("the server does not send parts of files")
        self.size, self.tag = size, tag


def tag_of(headers: Mapping[str, str]) -> str:
    """The tag that the headers of an answer state."""
    etag = headers.get("ETag", "").strip()
    return etag or headers.get("Last-Modified", "").strip()


def size_of(headers: Mapping[str, str], start: int) -> int:
    """The size of the whole file by Content-Range. Raises TryAgainError if the range is not the one asked for."""
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise TryAgainError("the answer does not say which part of the file it holds")
    return int(found[3])


def checked(data: bytes, size: int, start: int, stop: int, tag: str, expected: str) -> Answer:
    """The answer if it is complete and of the expected tag."""
    if expected and tag != expected:
        raise ChangedError
    if len(data) != max(0, min(stop, size) - start):
        raise TryAgainError("the connection ended before the answer did")
    return Answer(data, size, tag)
