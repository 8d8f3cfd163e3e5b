"""Calibration curve (are predictions of 0.8 correct in 8 of 10 cases?), drawn from the bins in metrics.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.data import as_number
from wsi_pipeline.report.figures.axes import BOTTOM, unit_axes, unit_square
from wsi_pipeline.report.figures.svg import el, figure, line, path

_Z = 1.96


def calibration_figure(calibration: Mapping[str, Any] | None, repeats: int = 1) -> Markup | None:
    """Observed fraction against mean prediction per bin; dot area: bin size; whiskers: 95 % Wilson interval.

    calibration   `{"bins": [{"mean_predicted", "observed", "n"}], ...}`; None if no bin is usable
    repeats       number of predictions per slide; whiskers are computed from slides, not from predictions
    """
    bins = _bins((calibration or {}).get("bins") or ())
    if not bins:
        return None
    x, y = unit_square()
    parts = [unit_axes(x, y, "predicted probability", "observed fraction"), line(x(0), y(0), x(1), y(1), "chance")]
    most = max(n for _, _, n in bins)
    for at, seen, n in bins:
        low, high = wilson(seen, n / repeats)
        parts.append(line(x(at), y(low), x(at), y(high), "whisker thin"))
    parts.append(path([(x(at), y(seen)) for at, seen, _ in bins], "curve c0"))
    for at, seen, n in bins:
        hint = el("title", f"{n} predictions: mean {at:.2f}, observed {seen:.0%}")
        parts.append(el("circle", hint, cx=x(at), cy=y(seen), r=3.0 + 4.0 * math.sqrt(n / most), class_="point"))
    description = f"Calibration curve: {sum(n for _, _, n in bins)} predictions in {len(bins)} bins"
    return figure(x(1) + 10, y(0) + BOTTOM, description, parts)


def wilson(fraction: float, n: float) -> tuple[float, float]:
    """95 % interval of a fraction observed in n cases (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    centre, scale = fraction + _Z**2 / (2 * n), 1 + _Z**2 / n
    half = _Z * math.sqrt(fraction * (1 - fraction) / n + _Z**2 / (4 * n**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _bins(raw: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, int]]:
    found = [(as_number(b.get("mean_predicted")), as_number(b.get("observed")), int(b.get("n") or 0)) for b in raw]
    return sorted((at, seen, n) for at, seen, n in found if at is not None and seen is not None and n > 0)
