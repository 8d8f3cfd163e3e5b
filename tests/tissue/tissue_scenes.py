"""Drawn slides at mask resolution whose tissue is known: stains, glass, ink, dust, padding and scanner seams.

Tissue is a sum of stains in optical density with cell-like texture; ink and dust are added in optical density on
top, as light would meet them. Used by the tests and by benchmarks/segmentation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage as ndi

MPP = 8.0

STAINS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "H&E": ((0.17, 0.19, 0.08), (0.02, 0.22, 0.09)),
    "pale H&E": ((0.03, 0.035, 0.015), (0.008, 0.07, 0.03)),
    "pale IHC": ((0.10, 0.11, 0.06), (0.05, 0.052, 0.044)),
    "very pale IHC": ((0.06, 0.065, 0.03), (0.012, 0.012, 0.012)),
    "DAB IHC": ((0.10, 0.11, 0.06), (0.13, 0.22, 0.30)),
    "trichrome": ((0.08, 0.40, 0.36), (0.36, 0.22, 0.05)),
    "Goldner": ((0.08, 0.40, 0.36), (0.34, 0.09, 0.10)),
    "PAS": ((0.12, 0.13, 0.05), (0.05, 0.26, 0.07)),
    "Congo red": ((0.05, 0.06, 0.03), (0.03, 0.20, 0.16)),
    "silver": ((0.25, 0.26, 0.26), (0.06, 0.05, 0.05)),
    "picrosirius": ((0.02, 0.10, 0.22), (0.02, 0.40, 0.32)),
}
"""Two stains each, as optical density in red, green and blue where the stain is at its usual strength."""

HARD_STAINS = ("very pale IHC",)
"""Stains that are only measured: their paler regions have a density near 0.015, too little for the default detector."""

INKS = {
    "red": (0.06, 0.95, 0.75),
    "blue": (0.90, 0.50, 0.13),
    "green": (0.85, 0.35, 0.50),
    "black": (1.10, 1.10, 1.05),
}

FELT_PENS = {
    "navy": (0, 20, 80),
    "royal blue": (10, 40, 140),
    "dark blue": (0, 60, 110),
    "bright blue": (20, 90, 200),
    "violet": (40, 30, 130),
    "teal": (0, 110, 120),
    "dark green": (0, 100, 50),
    "crimson": (200, 20, 30),
    "dark red": (120, 10, 20),
    "jet": (20, 20, 22),
    "blue-black": (15, 20, 40),
}
"""Saturated inks as they look on white glass; they are drawn crossing H&E tissue in `crossed`."""


@dataclass(frozen=True)
class Scene:
    """A picture (h, w, 3), its tissue (h, w), and ink (h, w), on which neither answer is asked of tissue beneath."""

    name: str
    rgb: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    ink: NDArray[np.bool_]


def blob(seed: int, height: int = 420, width: int = 560, cover: float = 0.3) -> NDArray[np.bool_]:
    """An irregular piece of tissue in the middle, with notches, covering about `cover` of the picture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    reach = np.hypot((rows - height / 2) / height, (columns - width / 2) / width)
    wobble = ndi.gaussian_filter(rng.normal(size=(height, width)), 25)
    fringe = ndi.gaussian_filter(rng.normal(size=(height, width)), 4)
    level = reach - 0.08 * wobble / wobble.std() - 0.012 * fringe / fringe.std()
    mask = level < np.quantile(level, cover)
    labels, _ = ndi.label(mask)
    biggest = labels == np.argmax(np.bincount(labels[mask]))
    return np.asarray(ndi.binary_fill_holes(ndi.binary_opening(biggest, iterations=2)))


def stained(
    stain: str,
    tissue: NDArray[np.bool_],
    *,
    glass: Sequence[float] = (243, 243, 243),
    noise: float = 1.0,
    seed: int = 0,
    zoom: int = 1,
) -> Scene:
    """Tissue in one of STAINS on glass of one colour, with sensor noise of `noise` grey levels, at MPP / `zoom`."""
    rng = np.random.default_rng(seed)
    first, second = (np.asarray(part) for part in STAINS[stain])
    regions = ndi.gaussian_filter(rng.normal(size=tissue.shape), 12 * zoom)
    share = 1 / (1 + np.exp(-2 * regions / regions.std()))[..., None]
    density = _cells(rng, tissue.shape, zoom)[..., None] * share * first
    density = density + _cells(rng, tissue.shape, zoom)[..., None] * (1 - 0.7 * share) * second
    light = np.asarray(glass, dtype=float) * 10 ** -(density * tissue[..., None])
    light = ndi.gaussian_filter(light, (0.6, 0.6, 0)) + rng.normal(0, noise, light.shape)
    return Scene(stain, _bytes(light), tissue, np.zeros_like(tissue))


def _cells(rng: np.random.Generator, shape: tuple[int, ...], zoom: int = 1) -> NDArray[np.float64]:
    """Positive texture of mean 1 whose grains are 10 to 30 micrometres wide."""
    fine, coarse = (ndi.gaussian_filter(rng.normal(size=shape), zoom * sigma) for sigma in (0.7, 1.8))
    return np.clip(1 + 0.3 * fine / fine.std() + 0.2 * coarse / coarse.std(), 0.1, None)


def marked(scene: Scene, ink: str, path: Sequence[tuple[float, float]], width_px: int = 70, seed: int = 0) -> Scene:
    """The scene with a pen stroke along `path` (fractions of width and height)."""
    height, width = scene.tissue.shape
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    points = [(x * width, y * height) for x, y in path]
    draw.line(points, fill=255, width=width_px, joint="curve")
    for x, y in (points[0], points[-1]):
        draw.ellipse([x - width_px / 2, y - width_px / 2, x + width_px / 2, y + width_px / 2], fill=255)
    stroke = np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.5)), dtype=float) / 255
    streaks = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=stroke.shape), (8, 40))
    amount = stroke * (1 + 0.1 * streaks / streaks.std())
    dye = INKS[ink] if ink in INKS else np.log10(246 / (1 + np.asarray(FELT_PENS[ink])))
    rgb = _bytes(scene.rgb * 10 ** -(amount[..., None] * np.asarray(dye)))
    under = scene.ink | (stroke > 0.05)
    return replace(scene, name=f"{scene.name}, {ink} pen", rgb=rgb, ink=under)


def follicular(zoom: int) -> tuple[Scene, NDArray[np.bool_]]:
    """H&E tissue at MPP / `zoom`, 1.8 x 2.4 mm, and the lymph follicles in it, dense with haematoxylin (h, w)."""
    tissue = blob(11, 225 * zoom, 300 * zoom, cover=0.3)
    scene = stained("H&E", tissue, seed=4, zoom=zoom)
    rows, columns = np.mgrid[0 : tissue.shape[0], 0 : tissue.shape[1]] / zoom
    centres = ((90, 160), (140, 130), (120, 190))
    follicles = np.any([np.hypot(rows - row, columns - column) < 11 for row, column in centres], axis=0) & tissue
    dense = follicles[..., None] * _cells(np.random.default_rng(5), tissue.shape, zoom)[..., None]
    return replace(scene, rgb=_bytes(scene.rgb * 10 ** -(dense * np.array([0.36, 0.34, 0.21])))), follicles


def crossed(scene: Scene, pen: str, width_um: float, zoom: int) -> Scene:
    """A `follicular` scene with a stroke of one of FELT_PENS from the glass across the tissue, with sensor noise."""
    inked = marked(scene, pen, ((0.05, 0.5), (0.3, 0.12), (0.6, 0.8)), width_px=round(width_um * zoom / MPP))
    noise = np.random.default_rng(6).normal(0, 1.5, inked.rgb.shape)
    return replace(inked, rgb=_bytes(inked.rgb + noise))


def coarser(picture: NDArray[np.generic], factor: int) -> NDArray[np.float64]:
    """Means over blocks of factor x factor pixels of (h, w) or (h, w, 3); what is left over is cut off."""
    height, width = (side // factor for side in picture.shape[:2])
    cut = picture[: height * factor, : width * factor]
    return np.asarray(cut.reshape(height, factor, width, factor, *picture.shape[2:]).mean(axis=(1, 3)))


def dusty(scene: Scene, seed: int = 0, grains: int = 60) -> Scene:
    """The scene with black grains, out-of-focus grey spots and a hair."""
    rng = np.random.default_rng(seed)
    height, width = scene.tissue.shape
    density = np.zeros((height, width))
    for size, strength in ((2.0, 0.8), (4.0, 0.5)):
        spots = np.zeros((height, width))
        spots[rng.integers(0, height, grains), rng.integers(0, width, grains)] = 1
        density += strength * (ndi.gaussian_filter(spots, size / 2) * 6.3 * (size / 2) ** 2)
    smear = np.zeros((height, width))
    smear[height // 8, width // 6] = 1
    density += 0.03 * ndi.gaussian_filter(smear, 18) * 6.3 * 18**2
    column = np.arange(width // 20, width // 5)
    density[(height * 0.9 + 6 * np.sin(column / 9)).astype(int), column] += 0.7
    return replace(scene, name=f"{scene.name}, dust", rgb=_bytes(scene.rgb * 10 ** -density[..., None]))


def padded(scene: Scene, colour: int, side: int = 40) -> Scene:
    """The scene with a border of one grey level where nothing was scanned."""
    rgb, tissue = scene.rgb.copy(), scene.tissue.copy()
    border = np.ones(tissue.shape, dtype=bool)
    border[side:-side, side:-side] = False
    rgb[border], tissue[border] = colour, False
    return replace(scene, name=f"{scene.name}, border {colour}", rgb=rgb, tissue=tissue)


def stitched(scene: Scene, step: int = 70, depth: float = 0.03, seed: int = 0) -> Scene:
    """The scene scanned in blocks of uneven brightness, some left out (pure white), as area scanners do."""
    rng = np.random.default_rng(seed)
    height, width = scene.tissue.shape
    gains = 1 - depth * rng.random((-(-height // step), -(-width // step), 1))
    gain = gains.repeat(step, axis=0).repeat(step, axis=1)[:height, :width]
    rgb = _bytes(scene.rgb * gain)
    blocks = ndi.maximum_filter(scene.tissue, 2 * step // 3)
    skipped = ~blocks[step // 2 :: step, step // 2 :: step].repeat(step, axis=0).repeat(step, axis=1)
    skipped = np.pad(skipped, ((0, step), (0, step)), mode="edge")[:height, :width] & ~scene.tissue
    rgb[skipped] = 255
    return replace(scene, name=f"{scene.name}, stitched", rgb=rgb)


def glass_edges(scene: Scene) -> Scene:
    """The scene with the cover glass's edges: two long grey lines."""
    density = np.zeros(scene.tissue.shape)
    density[12:15, :] = 0.25
    density[:, -20:-16] = 0.2
    return replace(scene, name=f"{scene.name}, glass edges", rgb=_bytes(scene.rgb * 10 ** -density[..., None]))


def blank(seed: int = 0, *, glass: Sequence[float] = (243, 243, 243), noise: float = 2.0) -> Scene:
    """Glass without tissue."""
    nothing = np.zeros((420, 560), dtype=bool)
    return replace(stained("H&E", nothing, glass=glass, noise=noise, seed=seed), name="blank")


def _bytes(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(light), 0, 255), dtype=np.uint8)


CORNER = ((0.05, 0.15), (0.3, 0.08), (0.5, 0.45))
RIGHT = ((0.95, 0.1), (0.9, 0.6), (0.6, 0.75))


def scenes() -> list[Scene]:
    """All drawn slides that the tests and the benchmark measure."""
    tissue, other = blob(1), blob(2, cover=0.2)
    he, pale, trichrome = stained("H&E", tissue), stained("pale IHC", other), stained("trichrome", tissue)
    usual = [stain for stain in STAINS if stain not in HARD_STAINS]
    pictures = [stained(stain, blob(5 + number)) for number, stain in enumerate(usual)]
    pictures += [replace(stained("H&E", other, glass=(240, 234, 212)), name="H&E, tinted glass")]
    pictures += [replace(stained("H&E", other, glass=(205, 204, 207), noise=3.0), name="H&E, grey noisy glass")]
    pictures += [marked(he, ink, CORNER) for ink in INKS]
    pictures += [marked(pale, ink, RIGHT) for ink in INKS]
    pictures += [marked(trichrome, ink, CORNER) for ink in ("red", "green", "black")]
    pictures += [dusty(he), dusty(pale), padded(he, 0), padded(pale, 255), glass_edges(he)]
    pictures += [stitched(pale), stitched(he)]
    pictures += [blank(), replace(blank(noise=5.0), name="blank, noisy"), dusty(blank()), glass_edges(blank())]
    return [*pictures, replace(blank(glass=(210, 206, 200)), name="blank, tinted")]


def half_yellow(scene: Scene, depth: float = 0.04) -> Scene:
    """The scene with yellow mountant over its left half, `depth` dense in blue."""
    left = np.arange(scene.tissue.shape[1]) < scene.tissue.shape[1] // 2
    density = np.where(left, depth, 0.0)[None, :, None] * np.array([0, 0.2, 1.0])
    return replace(scene, name=f"{scene.name}, half under yellow glass", rgb=_bytes(scene.rgb * 10**-density))


def half_pink(scene: Scene, depth: float = 0.04) -> Scene:
    """The scene with a smear of eosin on the left half of the glass, `depth` dense in green."""
    left = np.arange(scene.tissue.shape[1]) < scene.tissue.shape[1] // 2
    density = np.where(left, depth, 0.0)[None, :, None] * np.array([0.1, 1.0, 0.4])
    return replace(scene, name=f"{scene.name}, half under pink smear", rgb=_bytes(scene.rgb * 10**-density))


def hard_scenes() -> list[Scene]:
    """Drawn slides meant to be hard for the default detector; the benchmark measures them, the tests do not."""
    tissue, other = blob(1), blob(2, cover=0.2)
    he = stained("H&E", tissue)
    pictures = [stained(stain, other) for stain in HARD_STAINS]
    pictures += [marked(stained("picrosirius", tissue), "red", CORNER)]
    pictures += [marked(stained("Goldner", tissue), "green", CORNER)]
    for width_px in (12, 20, 30):
        thin = marked(he, "blue", CORNER, width_px=width_px)
        pictures.append(replace(thin, name=f"{thin.name}, {width_px * MPP / 1000:g} mm wide"))
    return [*pictures, half_yellow(he), half_pink(he)]
