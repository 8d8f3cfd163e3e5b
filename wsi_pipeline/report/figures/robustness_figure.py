"""How far features move under each kind of change, one panel per kind, one line per encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.figures.axes import HUES
from wsi_pipeline.report.figures.svg import Scale, clip, el, figure, line, path, text, upright

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
    names = [str(result["encoder"]["name"]) for result in drawn]
    rows = -(-len(kinds) // _COLUMNS)
    below = _TOP + rows * (_HEIGHT + _GAP_Y)
    parts = [
        upright(11, _TOP + (rows * (_HEIGHT + _GAP_Y) - _GAP_Y) / 2, "distance moved / to the nearest other slide")
    ]
    for number, (kind, strengths) in enumerate(kinds.items()):
        left = _LEFT + (number % _COLUMNS) * (_WIDTH + _GAP_X)
        parts += _panel(kind, strengths, drawn, left, _TOP + (number // _COLUMNS) * (_HEIGHT + _GAP_Y))
    for number, name in enumerate(names):
        x, y = _LEFT + (number % 3) * 250, below + 8 + 18 * (number // 3)
        parts += [line(x, y - 4, x + 22, y - 4, f"curve c{number % HUES}"), text(x + 28, y, clip(name, 30), css="name")]
    width = _LEFT + _COLUMNS * (_WIDTH + _GAP_X)
    height = below + 16 + 18 * (-(-len(names) // 3))
    return figure(
        width, height, f"How far features of {', '.join(names)} move under {len(kinds)} kinds of change", parts
    )


def standalone(drawing: Markup) -> str:
    """The figure as an SVG file of its own: with the name space and the styles that the page else gives it."""
    curves = "".join(
        f".c{number} {{ stroke: {colour}; stroke-dasharray: {dash or 'none'}; }}\n"
        for number, (colour, dash) in enumerate(zip(_COLOURS, _DASHES, strict=True))
    )
    style = (
        "svg { font: 12px sans-serif; background: #fff; } .label, .tick { fill: #555; } .tick { font-size: 10px; }\n"
        ".grid { stroke: #ddd; } .baseline { stroke: #555; stroke-dasharray: 3 3; }\n"
        ".curve { fill: none; stroke-width: 2; stroke-linejoin: round; }\n"
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
    kind: str, strengths: Sequence[tuple[float, str]], results: Sequence[Result], left: float, top: float
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
    for number, result in enumerate(results):
        found = {float(move["strength"]): move["relative"] for move in result["movements"] if move["kind"] == kind}
        values = [(place, found.get(strength)) for place, (strength, _) in enumerate(strengths)]
        points = [(x(place), y(min(max(value, _LOW), _HIGH))) for place, value in values if value is not None]
        words = ", ".join(f"{value:.3g}" for _, value in values if value is not None)
        name = str(result["encoder"]["name"])
        parts.append(path(points, f"curve c{number % HUES}", hint=f"{name}: {words}"))
        parts += [el("circle", cx=a, cy=b, r=2.4, class_=f"curve c{number % HUES}") for a, b in points]
    return parts
