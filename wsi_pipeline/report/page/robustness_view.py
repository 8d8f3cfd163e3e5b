"""Data of the report's section on robustness, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_pipeline.report.figures.robustness_figure import robustness_figure
from wsi_pipeline.wording import counted

_MEASURES = {
    "nearest_own_slide": "same slide",
    "nearest_other_slide": "other slide",
    "nearest_same_site": "other slide, same site",
    "nearest_other_site": "other site",
}
_NAMED = 5
_INDICES = {"ri": "RI", "mari": "MaRI", "croma": "CRoMa"}


def robustness_view(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The section's figure, its two tables and the size of the sample; None if nothing was measured."""
    if not results:
        return None
    kinds = list(dict.fromkeys(str(move["kind"]) for result in results for move in result["movements"]))
    columns = [
        (
            words,
            [_valued(result["neighbours"][key]["value"], result["neighbours"][key]["patches"]) for result in results],
        )
        for key, words in _MEASURES.items()
    ]
    columns += [(words, [_index(result, key) for result in results]) for key, words in _INDICES.items()]
    columns = [(words, cells) for words, cells in columns if any(cell != "–" for cell in cells)]
    names = [str(result["row"]) for result in results]
    return {
        "figure": robustness_figure(results),
        "kinds": kinds,
        "moved": [
            (name, [_worst(result, kind) for kind in kinds]) for name, result in zip(names, results, strict=True)
        ],
        "measures": [words for words, _ in columns],
        "near": [(name, [cells[at] for _, cells in columns]) for at, name in enumerate(names)],
        "patches": sum(results[0]["slides"].values()),
        "slides": len(results[0]["slides"]),
        "not_scored": next((str(result["not_scored"]) for result in results if result["not_scored"]), ""),
        "own_stain": _own_stain(results),
    }


def _own_stain(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Per normalisation, its target and the slides that keep their own stain."""
    found: dict[str, str] = {}
    for stain in (result["stain"] for result in results if result["stain"]):
        own = stain["own_stain"]
        slides = f"{counted(len(own), 'slide')} with their own stain ({', '.join(list(own)[:_NAMED])}"
        rest = f"{', ...' * (len(own) > _NAMED)})"
        found[stain["key"]] = f"{stain['method']}, target: {stain['target']}; " + (
            slides + rest if own else "no slide with its own stain"
        )
    return list(found.values())


def _worst(result: Mapping[str, Any], kind: str) -> str:
    moves = [move for move in result["movements"] if move["kind"] == kind]
    worst = max(moves, key=lambda move: (move["median"] or 0, move["lost"] or 0))
    relative = "–" if worst["relative"] is None else f"{worst['relative']:.2f}"
    return f"{relative} ({100 * (worst['lost'] or 0):.0f} %)"


def _near(result: Mapping[str, Any], key: str) -> str:
    facts = result["neighbours"][key]
    return _valued(facts["value"], facts["patches"])


def _index(result: Mapping[str, Any], key: str) -> str:
    scored = result["confounding"]
    return _valued(scored[key]["value"], scored[key]["scored"]) if scored else "–"


def _valued(value: float | None, patches: int) -> str:
    return "–" if value is None else f"{value:.3f} ({patches})"
