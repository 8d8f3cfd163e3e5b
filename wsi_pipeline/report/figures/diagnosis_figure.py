"""The picture of a tuned model's diagnosis: attention of [CLS] by kind of token, its variation, gradients by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wsi_pipeline.report.figures.tuning_figures import BLUE, GREY, INK, LINE, MUTED, new_figure, png_of

_SIZE = 8.0
_KINDS: Mapping[str, tuple[str, str, str]] = {
    "image": ("image", "#0072b2", ""),
    "cls": ("[CLS] itself", "#b8bcc2", ""),
    "registers": ("registers", "#7a8088", ".."),
    "tvp": ("TVP", "#e69f00", "//"),
    "ttp": ("TTP", "#009e73", "\\\\"),
    "ivp": ("IVP", "#cc79a7", "xx"),
}
"""Name, colour (Okabe and Ito 2008) and hatching of each kind of token, from the bottom of a bar to its top."""


def diagnosis_png(tuned: Mapping[str, Any], bare: Mapping[str, Any]) -> bytes:
    """Draw two diagnoses (`pathotune.diagnosis.Diagnosis.to_dict`): of the tuned model and of the bare backbone."""
    figure = new_figure(9.6, 2.9)
    left, middle, right, far = figure.subplots(1, 4, gridspec_kw={"width_ratios": [3, 3, 3, 1.4]})
    _attention(left, bare["attention"], "bare backbone: attention of [CLS]")
    _attention(middle, tuned["attention"], "tuned: attention of [CLS]")
    used = [kind for kind in _KINDS if max(tuned["attention"][kind]) > 0]
    handles = [middle.patches[list(_KINDS).index(kind) * len(tuned["variation"])] for kind in used]
    figure.legend(handles, [_KINDS[kind][0] for kind in used], loc="lower left", ncols=len(used), fontsize=_SIZE,
                  frameon=False, bbox_to_anchor=(0.04, -0.07))  # fmt: skip
    _variation(right, tuned["variation"], bare["variation"])
    _gradient(far, tuned["gradient"])
    figure.tight_layout(w_pad=1.5)
    return png_of(figure)


def _attention(axes: Axes, shares: Mapping[str, Sequence[float]], title: str) -> None:
    layers = range(1, len(shares["image"]) + 1)
    floor = [0.0] * len(layers)
    for kind, (_, colour, hatch) in _KINDS.items():
        values = list(shares[kind])
        axes.bar(layers, values, 0.8, floor, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        floor = [low + value for low, value in zip(floor, values, strict=True)]
    axes.set_ylim(0, 1)
    _finish(axes, title)


def _variation(axes: Axes, tuned: Sequence[float], bare: Sequence[float]) -> None:
    layers = range(1, len(tuned) + 1)
    axes.plot(layers, bare, color=GREY, lw=1.5, ls="--", marker=".", label="bare")
    axes.plot(layers, tuned, color=BLUE, lw=1.5, marker=".", label="tuned")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=_SIZE, frameon=False, labelcolor=INK)
    _finish(axes, "variation of [CLS] between images")


def _gradient(axes: Axes, shares: Mapping[str, float]) -> None:
    names = list(shares)
    axes.barh(names, [shares[name] for name in names], color=GREY, height=0.6)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _finish(axes, "gradient by part", layers=False)


def _finish(axes: Axes, title: str, *, layers: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=_SIZE, color=MUTED)
    if layers:
        axes.set_xlabel("layer", fontsize=_SIZE, color=MUTED)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.tick_params(labelsize=_SIZE, colors=INK, color=LINE, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
