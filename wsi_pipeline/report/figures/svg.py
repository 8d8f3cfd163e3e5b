"""Minimal SVG drawing: elements, scales with round ticks, paths. Colours come from CSS classes of the page.

So a figure follows the reader's light or dark theme, prints as vector graphics, and takes a few kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Value = str | float | int | None


def el(tag: str, *inside: Markup | str, **attributes: Value) -> Markup:
    """One element. `class_` becomes `class`, other underscores become dashes; text and values are escaped."""
    pairs = "".join(
        f' {_name(key)}="{escape(_plain(value))}"' for key, value in attributes.items() if value is not None
    )
    body = "".join(escape(part) for part in inside)
    return Markup(f"<{tag}{pairs}>{body}</{tag}>" if body else f"<{tag}{pairs}/>")


def figure(width: float, height: float, description: str, parts: Iterable[Markup], css: str = "") -> Markup:
    """The whole drawing; `description` is read by screen readers."""
    return el(
        "svg",
        *parts,
        class_=f"figure {css}".strip(),
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        aria_label=description,
        style=f"max-width:{_plain(width)}px",
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", css: str = "label") -> Markup:
    """Text with its baseline at (x, y); `anchor` is start, middle or end."""
    return el("text", words, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=css)


def upright(x: float, y: float, words: str) -> Markup:
    """An axis name that reads upwards, centred on (x, y)."""
    turned = f"translate({_plain(x)} {_plain(y)}) rotate(-90)"
    return el("text", words, transform=turned, text_anchor="middle", class_="label")


def clip(words: str, length: int) -> str:
    """At most `length` characters; the last is an ellipsis if text was cut."""
    return words if len(words) <= length else words[: length - 1] + "…"


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def path(points: Iterable[tuple[float, float]], css: str, *, closed: bool = False, hint: str = "") -> Markup:
    """A polyline through `points`, rounded to tenths of a pixel without repeats; `hint` is shown on hover."""
    rounded = [f"{_plain(x)} {_plain(y)}" for x, y in points]
    kept = [point for i, point in enumerate(rounded) if i == 0 or point != rounded[i - 1]]
    shape = "M" + "L".join(kept) + ("Z" if closed else "")
    return el("path", *([el("title", hint)] if hint else []), d=shape, class_=css)


@dataclass(frozen=True)
class Scale:
    """Maps values `low`..`high` to positions `start`..`end` (pixels), logarithmically if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Position of a value; values outside the range are off the axis."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the range: multiples of 1, 2 or 5 times a power of ten (on a log scale: `log_ticks`)."""
        if self.log:
            return log_ticks(self.low, self.high)
        step = nice_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def nice_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in the range, also 2 and 5 times these if the range spans less than two decades."""
    factors: Sequence[int] = (1,) if high / low >= 100 else (1, 2, 5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]


def _name(key: str) -> str:
    return key if key == "viewBox" else key.rstrip("_").replace("_", "-")


def _plain(value: Value) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
