"""Metrics of survival predictions: concordance, Brier score, Kaplan-Meier curves by risk.

Times (n,) are positive, events (n,) 0 or 1; a higher risk means an earlier event. As for other outcomes, metrics are
functions of weights W (R, n), how often each row counts.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy  # its stats are loaded on first use: half a second that few callers need
from numpy.typing import NDArray

from wsi_pipeline.statistics.ratios import ratio

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

CHI_SQUARE = "chi-square, 1 degree of freedom"
"""Kind of the log-rank statistic; older files, which lack this entry, hold its signed root."""

_CELLS = 4_000_000
"""Most pairs compared at a time."""


def concordance(time: Floats, event: Mask, risk: Floats, weights: Floats, group: Codes | None = None) -> Floats:
    """Harrell's C, (R,): fraction of comparable pairs whose risks are in the order of their events.

    A pair is comparable if one had the event before the other's time, or at the time at which the other was censored;
    equal risks count half. With `group`, only pairs within a group are compared. NaN without comparable pairs.
    Harrell et al. 1982, JAMA 247:2543; with weights (R, n) a pair counts w_i w_j times.
    """
    n = len(time)
    concordant, comparable = np.zeros(len(weights)), np.zeros(len(weights))
    died = np.flatnonzero(event)
    for start in range(0, len(died), step := max(1, _CELLS // max(n, 1))):
        first = died[start : start + step]
        later = (time > time[first, None]) | ((time == time[first, None]) & ~event)
        if group is not None:
            later &= group == group[first, None]
        wins = later * (0.5 + 0.5 * np.sign(risk[first, None] - risk))
        comparable += (weights[:, first] * (weights @ later.T.astype(np.float64))).sum(1)
        concordant += (weights[:, first] * (weights @ wins.T)).sum(1)
    return ratio(concordant, comparable)


def integrated_brier(time: Floats, event: Mask, survived: Floats, edges: Floats, weights: Floats) -> Floats:
    """Brier score of predicted survival, averaged over the time from 0 to the last edge, (R,); 0 is perfect.

    survived   predicted probability (n, K) of no event until the times `edges` (K,)

    Squared errors at each edge, weighted by the inverse probability of censoring (Graf et al. 1999, Stat Med 18:2529),
    interpolated linearly from 0 at time 0. Patients censored before an edge contribute nothing there.
    """
    distinct, code = np.unique(time, return_inverse=True)
    seen = censoring_curve(code, event, weights)
    before = np.concatenate([np.ones((len(weights), 1)), seen], axis=1)
    total = weights.sum(1)
    scores = [np.zeros(len(weights))]
    for k, edge in enumerate(edges):
        until = before[:, np.searchsorted(distinct, edge, side="right")]
        died, alive = event & (time <= edge), time > edge
        dead = _inverse(before[:, code[died]], weights[:, died]) @ (survived[died, k] ** 2)
        living = _inverse(np.broadcast_to(until[:, None], weights.shape)[:, alive], weights[:, alive])
        scores.append((dead + living @ ((1 - survived[alive, k]) ** 2)) / np.where(total > 0, total, np.nan))
    area: Floats = np.trapezoid(np.stack(scores), np.concatenate([[0.0], edges]), axis=0) / edges[-1]
    return area


def censoring_curve(code: Codes, event: Mask, weights: Floats) -> Floats:
    """Kaplan-Meier estimate of the censoring distribution just after each distinct time, (R, T).

    code   index of each row's time among the sorted distinct times, (n,)

    At tied times, events come before censoring.
    """
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    here = np.add.reduceat(weights[:, order], starts, axis=1)
    died = np.add.reduceat((weights * event)[:, order], starts, axis=1)
    at_risk = here[:, ::-1].cumsum(1)[:, ::-1] - died
    hazard = np.divide(here - died, at_risk, out=np.zeros_like(here), where=at_risk > 0)
    curve: Floats = np.cumprod(1 - hazard, axis=1)
    return curve


def _inverse(chance: Floats, weights: Floats) -> Floats:
    """weights / chance; NaN for rows with a weight but probability 0 of being uncensored."""
    inverse: Floats = np.divide(weights, chance, out=np.where(weights > 0, np.nan, 0.0), where=chance > 0)
    return inverse


def risk_groups(time: Floats, event: Mask, high: Mask) -> dict[str, Any]:
    """Kaplan-Meier curves of the rows with low and high risk, and the log-rank test between them; JSON.

    {"groups": [{"name", "n", "events", "times", "survival", "at_risk", "low", "high"}], "logrank": {"statistic",
    "statistic_is", "p_value"} | None}: survival just after each time (1 before the first); low and high are pointwise
    95 % limits (log-log). The test statistic is chi-square (Mantel 1966); None if a group is empty or there are no
    events.
    """
    named = (("low risk", ~high), ("high risk", high))
    groups = [kaplan_meier(time[rows], event[rows]) | {"name": name} for name, rows in named if rows.any()]
    test = None
    if len(groups) == 2 and event.any():
        low, top = (_censored(time[rows], event[rows]) for _, rows in named)
        found = scipy.stats.logrank(low, top)
        z, p = float(found.statistic), float(found.pvalue)  # scipy's is the signed root of chi-square
        test = {"statistic": z**2, "statistic_is": CHI_SQUARE, "p_value": p} if np.isfinite([z, p]).all() else None
    return {"groups": groups, "logrank": test}


def kaplan_meier(time: Floats, event: Mask) -> dict[str, Any]:
    """The Kaplan-Meier estimate of one group as lists over its times (see `risk_groups`), and n and events."""
    curve = scipy.stats.ecdf(_censored(time, event)).sf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # limits are undefined where the curve is 1 or 0
        limits = curve.confidence_interval(0.95, method="log-log")
    low, high = (np.asarray(limit.probabilities, dtype=np.float64) for limit in (limits.low, limits.high))
    return {
        "n": len(time),
        "events": int(event.sum()),
        "times": [float(value) for value in curve.quantiles],
        "survival": [float(value) for value in curve.probabilities],
        "at_risk": [int((time >= value).sum()) for value in curve.quantiles],
        "low": [float(a) if np.isfinite(a) else float(p) for a, p in zip(low, curve.probabilities, strict=True)],
        "high": [float(b) if np.isfinite(b) else float(p) for b, p in zip(high, curve.probabilities, strict=True)],
    }


def _censored(time: Floats, event: Mask) -> scipy.stats.CensoredData:
    return scipy.stats.CensoredData(uncensored=time[event], right=time[~event])
