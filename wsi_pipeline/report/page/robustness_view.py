"""Data of the report's section on robustness, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_pipeline.report.figures.robustness_figure import robustness_figure

_MEASURES = {
    "nearest_own_slide": "to the nearest patch of the same slide",
    "nearest_other_slide": "to the nearest patch of another slide",
    "nearest_same_site": "to the nearest patch of another slide of the same site",
    "nearest_other_site": "to the nearest patch of another site",
}
_INDICES = {"ri": "RI", "mari": "MaRI", "croma": "CRoMa"}


def robustness_view(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The section's figure, its two tables and the size of the sample; None if nothing was measured."""
    if not results:
        return None
    kinds = list(dict.fromkeys(str(move["kind"]) for result in results for move in result["movements"]))
    measures = [
        (
            words,
            [_valued(result["neighbours"][key]["value"], result["neighbours"][key]["patches"]) for result in results],
        )
        for key, words in _MEASURES.items()
    ]
    measures += [(words, [_index(result, key) for result in results]) for key, words in _INDICES.items()]
    return {
        "encoders": [str(result["encoder"]["name"]) for result in results],
        "figure": robustness_figure(results),
        "moved": [(kind, [_worst(result, kind) for result in results]) for kind in kinds],
        "measures": [(words, cells) for words, cells in measures if any(cell != "–" for cell in cells)],
        "patches": sum(results[0]["slides"].values()),
        "slides": len(results[0]["slides"]),
        "not_scored": next((str(result["not_scored"]) for result in results if result["not_scored"]), ""),
    }


def _worst(result: Mapping[str, Any], kind: str) -> str:
    moves = [move for move in result["movements"] if move["kind"] == kind]
    worst = max(moves, key=lambda move: (move["median"] or 0, move["lost"] or 0))
    relative = "–" if worst["relative"] is None else f"{worst['relative']:.2f}"
    return f"{relative} ({100 * (worst['lost'] or 0):.0f} %)"


def _index(result: Mapping[str, Any], key: str) -> str:
    scored = result["confounding"]
    return _valued(scored[key]["value"], scored[key]["scored"]) if scored else "–"


def _valued(value: float | None, patches: int) -> str:
    return "–" if value is None else f"{value:.3f} ({patches})"
