"""Cell nuclei as stamps pressed onto the canvas: each kind of cell has a set of shapes, each in a set of turns.

Half axes are in pixels at 0.5 micrometres per pixel, so a lymphocyte of radius 6 is 6 micrometres across.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.demo.canvas import Canvas
from wsi_pipeline.demo.noise import Array, smooth_noise

TURNS = 24
"""Orientations per shape over half a circle."""

SHAPES = 20
"""Different shapes per kind."""


@dataclass(frozen=True)
class NucleusKind:
    """How the nuclei of one cell type look.

    half_axes       mean long and short half axis, pixels
    spread          standard deviation of the size, as a fraction of it
    rough           how far the outline departs from an ellipse
    darkness        mean and deviation of the haematoxylin amount
    texture         contrast of the chromatin
    rim             extra haematoxylin at the nuclear membrane (vesicular nuclei: much, with a pale centre)
    nucleoli        maximum number of nucleoli per nucleus
    """

    half_axes: tuple[float, float]
    spread: float
    rough: float
    darkness: tuple[float, float]
    texture: float
    rim: float = 0.1
    nucleoli: int = 0


KINDS = {
    "epithelial": NucleusKind((7.2, 4.6), 0.10, 0.05, (0.98, 0.12), 0.16, 0.15, 1),
    "spindle": NucleusKind((11.0, 2.3), 0.22, 0.10, (1.10, 0.18), 0.12),
    "fibroblast": NucleusKind((10.0, 3.8), 0.20, 0.10, (0.80, 0.15), 0.18, 0.2, 1),
    "lymphocyte": NucleusKind((5.3, 4.9), 0.09, 0.05, (1.45, 0.15), 0.22, 0.1),
    "endothelial": NucleusKind((8.0, 2.4), 0.18, 0.10, (1.15, 0.15), 0.12),
    "tumour": NucleusKind((9.4, 7.2), 0.21, 0.065, (0.82, 0.20), 0.24, 0.28, 2),
    "vesicular": NucleusKind((9.8, 7.6), 0.22, 0.065, (0.58, 0.14), 0.26, 0.45, 3),
    "mitosis": NucleusKind((8.0, 3.2), 0.20, 0.35, (2.0, 0.15), 0.10),
    "pyknotic": NucleusKind((3.6, 3.2), 0.25, 0.08, (1.9, 0.2), 0.05),
}


@dataclass(frozen=True, eq=False)
class Stamp:
    """One nucleus: how much of the canvas shows through and the stain it adds, arrays (h, w)."""

    keep: Array
    keep_eosin: Array
    haematoxylin: Array
    eosin: Array


@dataclass(frozen=True, eq=False)
class Shape:
    """One nucleus of a kind before it is turned; axes in pixels, waves of its outline as sizes and phases (4,)."""

    axes: tuple[float, float]
    waves: tuple[NDArray[np.float64], NDArray[np.float64]]
    darkness: float
    spots: list[tuple[float, float]]
    grain: Array


@cache
def shapes_of(kind: str) -> tuple[Shape, ...]:
    """The random shapes of one kind; made once per process, the same in every process."""
    rng = np.random.default_rng([2718, list(KINDS).index(kind)])
    return tuple(_shape(KINDS[kind], rng) for _ in range(SHAPES))


def _shape(kind: NucleusKind, rng: np.random.Generator) -> Shape:
    scale = float(np.clip(1 + kind.spread * rng.standard_normal(), 0.6, 1.8))
    long, short = kind.half_axes[0] * scale, kind.half_axes[1] * scale * rng.uniform(0.88, 1.12)
    orders = np.arange(2, 6)
    waves = kind.rough * rng.standard_normal(4) / np.sqrt(orders), rng.uniform(0, 2 * np.pi, 4)
    darkness = max(kind.darkness[0] + kind.darkness[1] * float(rng.standard_normal()), 0.35)
    spots = [(rng.uniform(-0.45, 0.45), rng.uniform(-0.4, 0.4)) for _ in range(rng.integers(0, kind.nucleoli + 1))]
    return Shape((long, short), waves, darkness, spots, smooth_noise((96, 96), 1.4, rng))


@cache
def stamp_of(kind: str, shape: int, turn: int) -> Stamp:
    """The stamp of one shape in one orientation, drawn when it is first pressed."""
    return _draw(KINDS[kind], shapes_of(kind)[shape], np.pi * turn / TURNS)


def _draw(kind: NucleusKind, shape: Shape, angle: float) -> Stamp:
    axes, grain = shape.axes, shape.grain
    half = int(np.ceil(max(axes) * 1.35)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / axes[0]
    across = (-x * np.sin(angle) + y * np.cos(angle)) / axes[1]
    radius, theta = np.hypot(along, across), np.arctan2(across, along)
    edge = np.ones_like(theta)
    for order, (size, phase) in enumerate(zip(*shape.waves, strict=True), 2):
        edge += size * np.cos(order * theta + phase)
    depth = (edge - radius) * axes[1]
    alpha = 1 / (1 + np.exp(-np.clip(depth, -8, 8) / 0.45))
    tone = 1 + kind.texture * grain[: 2 * half + 1, : 2 * half + 1]
    tone += kind.rim * (1.6 * np.exp(-(((depth - 0.8) / 1.1) ** 2)) - 0.8)
    for spot_x, spot_y in shape.spots:
        tone += 0.75 * np.exp(-((along - spot_x) ** 2 * axes[0] ** 2 + (across - spot_y) ** 2 * axes[1] ** 2) / 2.6)
    alpha = (0.95 * alpha).astype(np.float32)
    amount = np.clip(shape.darkness * tone, 0.15, 2.4).astype(np.float32)
    return Stamp(1 - alpha, 1 - np.float32(0.8) * alpha, alpha * amount, np.float32(0.30) * alpha * amount)


def press(canvas: Canvas, kind: str, points: NDArray[np.floating], angles: Array, rng: np.random.Generator) -> None:
    """Press one nucleus of `kind` at every point.

    points      (N, 2) positions x, y in canvas pixels; those outside the canvas are left out
    angles      (N,) direction of the long axis in radians, x to the right, y down
    """
    turns = np.round(np.asarray(angles) / np.pi * TURNS).astype(np.intp) % TURNS
    shapes = rng.integers(0, SHAPES, len(points))
    for (x, y), shape, turn in zip(np.rint(points).astype(int).tolist(), shapes.tolist(), turns.tolist(), strict=True):
        stamp = stamp_of(kind, shape, turn)
        window = canvas.centred(x, y, stamp.keep.shape[0] // 2)
        if window is None:
            continue
        haematoxylin, eosin = canvas.haematoxylin[window], canvas.eosin[window]
        haematoxylin *= stamp.keep
        haematoxylin += stamp.haematoxylin
        eosin *= stamp.keep_eosin
        eosin += stamp.eosin
