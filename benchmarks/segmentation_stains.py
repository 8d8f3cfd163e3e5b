"""A real H&E slide in other stains: haematoxylin and eosin are told apart and their places taken by other dyes.

Colour deconvolution after Ruifrok and Johnston 2001. The tissue keeps its true texture and outline; only its
colours are made up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

HAEMATOXYLIN, EOSIN, REST = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)
DYES = {
    "haematoxylin": HAEMATOXYLIN,
    "aniline blue": (0.85, 0.51, 0.11),
    "fuchsin": (0.10, 0.73, 0.67),
    "light green": (0.93, 0.25, 0.28),
    "Schiff": (0.18, 0.95, 0.25),
    "Congo red": (0.10, 0.78, 0.62),
    "sirius red": (0.05, 0.80, 0.60),
    "silver": (0.57, 0.58, 0.58),
    "DAB": REST,
}
"""Optical density in red, green and blue; scaled to length 1 before use."""

Plane = NDArray[np.float64]


def restained(rgb: NDArray[np.uint8], factor: int) -> dict[str, NDArray[np.uint8]]:
    """Pictures by stain from an H&E picture (h, w, 3), each shrunk by `factor` after staining.

    Staining happens at the finer resolution because light mixes after the dyes have absorbed it.
    """
    density = -np.log10((rgb.astype(float) + 1) / (np.percentile(rgb, 90, axis=(0, 1)) + 1)).clip(max=0)
    stains = np.array([HAEMATOXYLIN, EOSIN, REST])
    amounts = (density @ np.linalg.inv(stains / np.linalg.norm(stains, axis=1, keepdims=True))).clip(0)
    nuclei, matrix = amounts[..., 0], amounts[..., 1]
    cellular = 1 / (1 + np.exp(-(ndi.gaussian_filter(nuclei, 8) - 0.28) / 0.04))
    fibres = matrix * (1 - cellular) * 1.2 + 0.1 * nuclei
    muscle = matrix * cellular + 0.25 * nuclei
    recipes: dict[str, dict[str, Plane]] = {
        "Masson trichrome": {"silver": 0.5 * nuclei, "fuchsin": muscle, "aniline blue": fibres},
        "strong trichrome": {"silver": nuclei, "fuchsin": 1.8 * muscle, "aniline blue": 1.8 * fibres + 0.5 * nuclei},
        "Goldner trichrome": {"silver": 0.5 * nuclei, "fuchsin": muscle, "light green": fibres},
        "aniline blue alone": {"aniline blue": 1.2 * matrix + 0.5 * nuclei},
        "PAS": {"haematoxylin": 0.4 * nuclei, "Schiff": matrix},
        "Congo red": {"haematoxylin": 0.3 * nuclei, "Congo red": 0.6 * matrix},
        "picrosirius": {"sirius red": 1.5 * matrix + 0.3 * nuclei},
        "silver": {"silver": 0.7 * nuclei + 0.15 * matrix},
        "DAB, faint counterstain": {"haematoxylin": 0.2 * nuclei, "DAB": matrix * cellular},
        "H&E, an eighth as strong": {"haematoxylin": nuclei / 8, "Schiff": matrix / 8},
    }
    return {name: _picture(recipe, factor) for name, recipe in recipes.items()}


def _picture(recipe: dict[str, Plane], factor: int) -> NDArray[np.uint8]:
    density = sum(amount[..., None] * np.array(DYES[dye]) / np.linalg.norm(DYES[dye]) for dye, amount in recipe.items())
    light = 245 * 10 ** -np.asarray(density)
    light += np.random.default_rng(0).normal(0, 2, light.shape)
    image = Image.fromarray(np.rint(light.clip(0, 255)).astype(np.uint8))
    return np.asarray(image.resize((image.width // factor, image.height // factor), Image.Resampling.BOX))
