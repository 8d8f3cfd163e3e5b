"""How much work a call is, counted rather than timed: the same on a busy machine as on an idle one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls(function: Callable[..., Any], *arguments: Any) -> int:
    """How many functions `function(*arguments)` calls in this thread, directly or not, of Python and of C.

    Work inside one call of a compiled library does not show.
    """
    count = 0

    def note(_frame: FrameType, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count
