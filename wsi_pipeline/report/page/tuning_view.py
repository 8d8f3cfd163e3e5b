"""Data of the report's section on tuning, ready for the template: numbers, sentences, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsi_pipeline.report.data import Estimate, TuningSection, with_intervals
from wsi_pipeline.report.maps.pictures import embedded
from wsi_pipeline.report.page.findings import estimate_words
from wsi_pipeline.wording import counted, plural_of

_WIDE_PX, _SQUARE_PX, _TALL_PX = 320, 560, 900

Json = Mapping[str, Any]


def tuning_views(tunings: Sequence[TuningSection]) -> list[dict[str, Any]]:
    """One view per tuning: those measured on test patches first, then by macro F1, best first."""
    return [_view(tuning) for tuning in sorted(tunings, key=_rank)]


def measured_alike(tunings: Sequence[TuningSection]) -> bool:
    """Whether all were measured on the same patches: same data, same split, same part."""
    return len({_measured_on(tuning.metrics) for tuning in tunings}) <= 1


def tuning_findings(tunings: Sequence[TuningSection]) -> list[str]:
    """One sentence on the performance of the best tuning; empty if none has a macro F1."""
    for view in tuning_views(tunings)[:1]:
        score = Estimate.read(view["pooled"].get("macro_f1"))
        if score is not None:
            on = _sizes(view["n_patches"], view["n_groups"], f"{view['part']} ")
            return [f"The tuned adapter {view['name']} reaches a macro F1 of {estimate_words(score)} on {on}."]
    return []


def tuning_cautions(tunings: Sequence[TuningSection]) -> list[str]:
    """Caveats: what could mislead a reader."""
    sentences = [f"Tuning {t.name}: {text}" for t in tunings for text in t.metrics.get("warnings") or ()]
    sentences += [
        f"Tuning {t.name} was measured on validation patches, which also selected its epoch: scores are optimistic."
        for t in tunings
        if t.metrics.get("part") != "test"
    ]
    if len(tunings) > 2 and measured_alike(tunings):
        sentences.append(
            f"{len(tunings)} tunings were compared on the same patches, so the score of the best one is optimistic."
        )
    return sentences


def _rank(tuning: TuningSection) -> tuple[bool, float, str]:
    score = ((tuning.metrics.get("pooled") or {}).get("macro_f1") or {}).get("value")
    return tuning.metrics.get("part") != "test", -(score if score is not None else -1.0), tuning.name


def _measured_on(metrics: Json) -> tuple[Any, ...]:
    spec = (metrics.get("specs") or {}).get("tune") or {}
    split = tuple(spec.get(name) for name in ("seed", "val_fraction", "test_fraction"))
    return metrics.get("data_digest"), metrics.get("part"), split


def _view(tuning: TuningSection) -> dict[str, Any]:
    metrics = tuning.metrics
    trained = metrics.get("trained") or {}
    part = str(metrics.get("part") or "test")
    return {
        "name": tuning.name,
        "method": str(metrics.get("method") or "?"),
        "backbone": str((metrics.get("backbone") or {}).get("name") or "?"),
        "part": part,
        "share": f"{trained['share']:.2%}" if trained.get("share") is not None else "–",
        "pooled": metrics.get("pooled") or {},
        "per_class": {name: with_intervals(row) for name, row in (metrics.get("per_class") or {}).items()},
        "n_patches": metrics.get("n_patches"),
        "n_groups": metrics.get("n_groups"),
        "heading": f"{part.capitalize()} set: {_sizes(metrics.get('n_patches'), metrics.get('n_groups'))}",
        "training": _training(metrics, trained),
        "interval": _interval(metrics),
        # In files without `ece_bins` the ECE is of the predicted class, in 15 bins of equal width.
        "ece_bins": str(metrics.get("ece_bins") or "15 bins of equal width"),
        "curves": _picture(tuning.curves, _WIDE_PX),
        "confusion": _picture(tuning.confusion, _SQUARE_PX),
        "sheet": _picture(tuning.sheet, _TALL_PX),
    }


def _training(metrics: Json, trained: Json) -> str:
    """Number of trained parameters, training data, and epochs."""
    training, data = metrics.get("training") or {}, metrics.get("data") or {}
    split = (metrics.get("split") or {}).get("train") or {}
    parts = []
    if trained.get("parameters") is not None:
        count = f"{trained['parameters']:,}".replace(",", "\u202f")
        parts.append(f"{count} trained parameters ({trained['share']:.2%} of the backbone)")
    if split:
        parts.append(f"{_sizes(split.get('patches'), split.get('groups'), 'training ')} of {data.get('source')}")
    if training:
        stopped = ", stopped early" if training.get("stopped_early") else ""
        parts.append(f"kept epoch {training.get('best_epoch')} of {training.get('epochs')}{stopped}")
    return "; ".join(parts)


def _sizes(patches: int | None, groups: int | None, part: str = "") -> str:
    """`76 test patches from 2 groups`; `?` for a number that is missing."""
    numbers = ((patches, f"{part}patch"), (groups, "group"))
    return " from ".join(f"? {plural_of(noun)}" if n is None else counted(n, noun) for n, noun in numbers)


def _interval(metrics: Json) -> str:
    found = metrics.get("interval") or {}
    if not found.get("level"):
        return "No interval recorded"
    return (
        f"{found['level'] * 100:g}\u00a0% intervals by {found.get('method')}, {found.get('resamples')} resamples "
        f"of {counted(metrics.get('n_groups') or 0, 'group')}"
    )


def _picture(encoded: bytes | None, most: int) -> dict[str, Any] | None:
    if encoded is None:
        return None
    picture = embedded(encoded)
    # Pictures are drawn at 200 dpi: shown at about half their pixels, text has its size on paper.
    return {**picture, "most": min(most, round(0.55 * picture["height"]))}
