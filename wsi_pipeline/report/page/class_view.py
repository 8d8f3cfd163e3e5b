"""Data of the report's section on classes, ready for the template: bars, percentages, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.data import ClassRow, ClassSection
from wsi_pipeline.report.figures import svg
from wsi_pipeline.report.maps.class_areas import Colour, class_colours
from wsi_pipeline.report.maps.class_overlay import UNCLEAR_COLOUR, percent
from wsi_pipeline.report.maps.pictures import embedded

UNCLEAR = "unclear"
_BAR_WIDTH, _BAR_HEIGHT = 420.0, 16.0
_PICTURE_PX = 420

Part = tuple[str, float, Colour]


def class_views(sections: Sequence[ClassSection]) -> list[dict[str, Any]]:
    """One view per adapter: its legend, and for each slide a bar, the percentages as text, and the overlay."""
    return [_view(section) for section in sections]


def fraction_bar(parts: Sequence[Part], slide_id: str) -> Markup:
    """A stacked bar of the class fractions; each segment shows its name and percentage on hover."""
    segments, x = [], 0.0
    for name, fraction, colour in parts:
        width = fraction * _BAR_WIDTH
        hint = svg.el("title", f"{name} {percent(fraction)}")
        segments.append(svg.el("rect", hint, x=x, y=0, width=width, height=_BAR_HEIGHT, fill=hex_of(colour)))
        x += width
    words = ", ".join(f"{name} {percent(fraction)}" for name, fraction, _ in parts)
    return svg.figure(_BAR_WIDTH, _BAR_HEIGHT, f"Classes of {slide_id}: {words}", segments, css="stack")


def hex_of(colour: Colour) -> str:
    """`#0072b2`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _view(section: ClassSection) -> dict[str, Any]:
    colours = dict(zip(section.classes, class_colours(len(section.classes)), strict=True))
    legend = [(name, hex_of(colour)) for name, colour in colours.items()]
    if any(row.unclear for row in section.slides):
        legend.append((UNCLEAR, hex_of(UNCLEAR_COLOUR)))
    return {
        "name": section.name,
        "adapter": section.adapter,
        "notes": section.notes,
        "legend": legend,
        "rows": [_row(row, colours) for row in section.slides],
        "cards": [
            {"slide_id": row.slide_id, "picture": _picture(row.overlay)} for row in section.slides if row.overlay
        ],
    }


def _row(row: ClassRow, colours: Mapping[str, Colour]) -> dict[str, Any]:
    parts = [(name, row.fractions[name], colour) for name, colour in colours.items() if row.fractions.get(name)]
    if row.unclear:
        parts.append((UNCLEAR, row.unclear, UNCLEAR_COLOUR))
    ranked = sorted(parts, key=lambda part: -part[1])
    return {
        "slide_id": row.slide_id,
        "patches": row.patches,
        "bar": fraction_bar(parts, row.slide_id) if parts else None,
        "words": ", ".join(f"{name} {percent(part)}" for name, part, _ in ranked).replace(" %", "\u00a0%"),
    }


def _picture(encoded: bytes) -> dict[str, Any]:
    return {**embedded(encoded), "most": _PICTURE_PX}
