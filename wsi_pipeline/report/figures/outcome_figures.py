"""Figures for survival (Kaplan-Meier curves by risk) and regression (predicted against measured values)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from wsi_pipeline.report.figures.axes import BOTTOM, LEFT, SIDE, TOP, axes
from wsi_pipeline.report.figures.svg import Scale, el, figure, line, path, text
from wsi_pipeline.wording import counted

_WIDE = 300.0
_MOST_DOTS = 3000
_Group = Mapping[str, Any]


def survival_figure(survival: Mapping[str, Any] | None) -> Markup | None:
    """Kaplan-Meier curves of low and high risk with pointwise bands, and the numbers at risk below.

    survival   metrics.json's `survival`: groups of {name, n, events, times, survival, at_risk, low, high}, logrank

    None if no group has follow-up times.
    """
    groups = [group for group in (survival or {}).get("groups") or () if group.get("times")]
    if not groups:
        return None
    last = max(max(group["times"]) for group in groups)
    x, y = Scale(0.0, last, LEFT, LEFT + _WIDE), Scale(0, 1, TOP + SIDE * 0.8, TOP)
    parts = [axes(x, y, "time", "event-free probability", (), (0, 0.25, 0.5, 0.75, 1))]
    for number, group in enumerate(groups):
        parts += _curve(group, number, x, y)
    parts += _key(groups, x(last), y(1))
    top = y(0) + 62
    parts.append(text(0, top, "at risk", css="label"))
    for number, group in enumerate(groups):
        parts += _at_risk(group, number, x, top + 20 * (number + 1))
    sizes = "; ".join(f"{group['name']}: {group['n']} patients, {group['events']} events" for group in groups)
    return figure(x(last) + 14, top + 20 * len(groups) + 8, f"Kaplan-Meier curves, {sizes}", parts)


def _curve(group: _Group, number: int, x: Scale, y: Scale) -> list[Markup]:
    times, alive = [0.0, *group["times"]], [1.0, *group["survival"]]
    low, high = ([1.0, *(group.get(end) or group["survival"])] for end in ("low", "high"))
    stairs = [_stairs(times, values, x, y) for values in (alive, low, high)]
    hint = f"{group['name']}: n = {group['n']}, {group['events']} events"
    band = path(stairs[1] + stairs[2][::-1], f"band b{number}", closed=True, hint="pointwise 95 % interval")
    return [band, path(stairs[0], f"curve c{number}", hint=hint)]


def _stairs(times: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    points = [(x(times[0]), y(values[0]))]
    for before, time, value in zip(values, times[1:], values[1:], strict=False):
        points += [(x(time), y(before)), (x(time), y(value))]
    return points


def _key(groups: Sequence[_Group], right: float, top: float) -> list[Markup]:
    parts = []
    for number, group in enumerate(groups):
        at = top + 14 + 18 * number
        parts += [line(right - 20, at - 4, right, at - 4, f"curve c{number}")]
        parts += [text(right - 26, at, str(group["name"]), anchor="end")]
    return parts


def _at_risk(group: _Group, number: int, x: Scale, baseline: float) -> list[Markup]:
    times, counts = np.asarray(group["times"], float), list(group.get("at_risk") or ())
    if len(counts) != len(times):
        return []
    parts = [line(6, baseline - 4, 26, baseline - 4, f"curve c{number}")]
    for tick in x.ticks(5):
        later = np.flatnonzero(times >= tick)
        count = counts[int(later[0])] if len(later) else 0
        parts.append(text(x(tick), baseline, str(count), anchor="middle", css="tick"))
    return parts


def scatter_figure(predictions: pd.DataFrame | None) -> Markup | None:
    """Predicted (y) against measured (x) values, one dot per row, with the line predicted = measured.

    predictions   columns label and predicted, both numeric; rows that lack one are left out

    None with fewer than 2 rows.
    """
    if predictions is None or not {"label", "predicted"} <= set(predictions):
        return None
    pairs = predictions[["label", "predicted"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    kept = np.isfinite(pairs).all(axis=1)
    pairs = pairs[kept]
    if len(pairs) < 2:
        return None
    low, high = float(pairs.min()), float(pairs.max())
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    x, y = (Scale(low - room, high + room, *ends) for ends in ((LEFT, LEFT + SIDE), (TOP + SIDE, TOP)))
    parts = [axes(x, y, "measured", "predicted"), line(x(x.low), y(x.low), x(x.high), y(x.high), "chance")]
    named = "slide_id" if "slide_id" in predictions else "patient_id"
    names = predictions[named].astype(str).to_numpy()[kept] if named in predictions else np.full(len(pairs), "")
    step = -(-len(pairs) // _MOST_DOTS)
    for (measured, predicted), name in zip(pairs[::step].tolist(), names[::step], strict=True):
        hint = el("title", f"{name}: measured {measured:.4g}, predicted {predicted:.4g}")
        parts.append(el("circle", hint, cx=x(measured), cy=y(predicted), r=3.4, class_="dot"))
    description = f"Predicted against measured, {counted(len(pairs), 'slide')}"
    return figure(x(x.high) + 10, y(y.low) + BOTTOM, description, parts)
