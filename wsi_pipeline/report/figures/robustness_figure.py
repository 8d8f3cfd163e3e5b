"""How far features move under each kind of change, one panel per kind, one line per row of the table.

An encoder has one colour and dash. With normalised stain its line is thin, and each target has another mark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.figures.axes import HUES
from wsi_pipeline.report.figures.svg import Scale, el, figure, line, path, text, upright

_WIDTH, _HEIGHT, _COLUMNS = 168.0, 130.0, 4
_LEFT, _TOP, _GAP_X, _GAP_Y = 52.0, 24.0, 42.0, 56.0
_LOW, _HIGH = 0.001, 10.0
_COLOURS = ("#0072b2", "#c24f00", "#00805d", "#a8487d", "#6a51a3", "#8a6d00", "#4d4d4d")
_DASHES = ("", "7 3", "2.5 2.5", "9 3 2 3", "12 4", "4 2 1 2", "1 3")

Result = Mapping[str, Any]
"""What was measured for one encoder: the content of its JSON file."""


def robustness_figure(results: Sequence[Result]) -> Markup | None:
    """The figure; None if no encoder has a distance to other slides, which is the unit of its axis."""
    kinds = _kinds(results)
    drawn = [result for result in results if any(move["relative"] is not None for move in result["movements"])]
    if not kinds or not drawn:
        return None
    names = [str(result["row"]) for result in drawn]
    pens = _pens(drawn)
    rows = -(-len(kinds) // _COLUMNS)
    below = _TOP + rows * (_HEIGHT + _GAP_Y)
    parts = [
        upright(11, _TOP + (rows * (_HEIGHT + _GAP_Y) - _GAP_Y) / 2, "distance moved / to the nearest other slide")
    ]
    for number, (kind, strengths) in enumerate(kinds.items()):
        left = _LEFT + (number % _COLUMNS) * (_WIDTH + _GAP_X)
        parts += _panel(
            kind, strengths, list(zip(drawn, pens, strict=True)), left, _TOP + (number // _COLUMNS) * (_HEIGHT + _GAP_Y)
        )
    across, room = (3, 30) if all(len(name) <= 30 for name in names) else (2, 50)
    for number, (name, pen) in enumerate(zip(names, pens, strict=True)):
        x, y = _LEFT + (number % across) * 750 / across, below + 8 + 18 * (number // across)
        parts += [line(x, y - 4, x + 22, y - 4, pen.css), pen.mark(x + 11, y - 4)]
        parts.append(el("text", el("title", name), _ends(name, room), x=x + 28, y=y, class_="name"))
    width = _LEFT + _COLUMNS * (_WIDTH + _GAP_X)
    height = below + 16 + 18 * (-(-len(names) // across))
    return figure(
        width, height, f"How far features of {', '.join(names)} move under {len(kinds)} kinds of change", parts
    )


def _ends(name: str, room: int) -> str:
    """Both ends of a long name: it begins with the encoder and ends with the stain."""
    half = (room - 1) // 2
    return name if len(name) <= room else f"{name[:half]}…{name[-half:]}"


def standalone(drawing: Markup) -> str:
    """The figure as an SVG file of its own: with the name space and the styles that the page else gives it."""
    curves = "".join(
        f".c{number} {{ stroke: {colour}; stroke-dasharray: {dash or 'none'}; }}\n"
        for number, (colour, dash) in enumerate(zip(_COLOURS, _DASHES, strict=True))
    )
    style = (
        "svg { font: 12px sans-serif; background: #fff; } .label, .tick { fill: #555; } .tick { font-size: 10px; }\n"
        ".grid { stroke: #ddd; } .baseline { stroke: #555; stroke-dasharray: 3 3; }\n"
        ".curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .curve.second { stroke-width: 1.1; }\n"
    )
    opening, rest = str(drawing).split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{style}{curves}</style>{rest}\n'


def _kinds(results: Sequence[Result]) -> dict[str, list[tuple[float, str]]]:
    """The kinds of change in order, and the strengths of each, from small to large."""
    kinds: dict[str, list[tuple[float, str]]] = {}
    for result in results[:1]:
        for move in result["movements"]:
            kinds.setdefault(str(move["kind"]), []).append((float(move["strength"]), str(move["unit"])))
    return {kind: sorted(found) for kind, found in kinds.items()}


def _panel(
    kind: str, strengths: Sequence[tuple[float, str]], results: Sequence[tuple[Result, _Pen]], left: float, top: float
) -> list[Markup]:
    x = Scale(0, max(1, len(strengths) - 1), left + 12, left + _WIDTH - 12)
    y = Scale(_LOW, _HIGH, top + _HEIGHT, top, log=True)
    unit = strengths[0][1]
    parts = [text(left, top - 8, f"{kind}{f', {unit}' * bool(unit)}", css="name")]
    for tick in y.ticks():
        parts.append(line(left, y(tick), left + _WIDTH, y(tick), "baseline" if tick == 1 else "grid"))
        parts.append(text(left - 5, y(tick) + 4, f"{tick:g}", anchor="end", css="tick"))
    for place, (strength, _) in enumerate(strengths):
        parts.append(text(x(place), top + _HEIGHT + 15, f"{strength:g}", anchor="middle", css="tick"))
    for result, pen in results:
        found = {float(move["strength"]): move["relative"] for move in result["movements"] if move["kind"] == kind}
        values = [(place, found.get(strength)) for place, (strength, _) in enumerate(strengths)]
        points = [(x(place), y(min(max(value, _LOW), _HIGH))) for place, value in values if value is not None]
        words = ", ".join(f"{value:.3g}" for _, value in values if value is not None)
        parts.append(path(points, pen.css, hint=f"{result['row']}: {words}"))
        parts += [pen.mark(across, up) for across, up in points]
    return parts


@dataclass(frozen=True)
class _Pen:
    """How a row is drawn: number of its encoder, and of its stain (0: as it is)."""

    encoder: int
    stain: int

    @property
    def css(self) -> str:
        return f"curve c{self.encoder % HUES}{' second' * bool(self.stain)}"

    def mark(self, x: float, y: float) -> Markup:
        """A circle for stain as it is; a square, a triangle, a diamond for normalised stain."""
        solid = "stroke-dasharray:none"
        if not self.stain:
            return el("circle", cx=x, cy=y, r=2.4, class_=self.css, style=solid)
        size, corners, first = _MARKS[(self.stain - 1) % len(_MARKS)]
        turns = [first + 2 * math.pi * number / corners for number in range(corners)]
        points = (f"{x + size * math.cos(turn):.1f} {y + size * math.sin(turn):.1f}" for turn in turns)
        shape = f"M{'L'.join(points)}Z"
        return el("path", d=shape, class_=self.css, style=solid)


_MARKS = ((4.0, 4, math.pi / 4), (4.2, 3, -math.pi / 2), (4.2, 4, 0.0), (4.2, 3, math.pi / 2))
"""Radius, number of corners and angle of the first."""


def _pens(results: Sequence[Result]) -> list[_Pen]:
    """The pens of rows: rows of one encoder, by its weights, share the number, so do those of one stain."""
    encoders = list(dict.fromkeys(result["encoder"]["fingerprint"] for result in results))
    stains = [None, *dict.fromkeys(_stain(result) for result in results if _stain(result))]
    return [_Pen(encoders.index(each["encoder"]["fingerprint"]), stains.index(_stain(each))) for each in results]


def _stain(result: Result) -> str | None:
    return (result["stain"] or {}).get("key")
