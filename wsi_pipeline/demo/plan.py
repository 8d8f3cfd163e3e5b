"""The slides of the demo cohort: patients, sites, labels and content of each slide, drawn from one seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wsi_pipeline.demo.layout import Recipe
from wsi_pipeline.demo.stain import SITES, Site, Staining
from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Size

TUMOUR_LABEL, NORMAL_LABEL = "tumour", "normal"

FEWEST_SLIDES = 4
"""Two patients per class, the fewest that any cross-validation can use."""

ANNOTATED_FROM = 1000
"""Number of the first annotated slide when pictures are drawn, so that no picture is drawn twice."""

SHORTEST_SIDE = 512
"""Side in pixels below which no piece of tissue would hold a patch."""


@dataclass(frozen=True)
class SlidePlan:
    """One slide of the cohort, fully decided.

    kind        good, blank (no tissue) or corrupt (cut off in the middle of the file)
    states_mpp  whether the file says its resolution; if not, the manifest does
    pen         whether someone marked the glass with a felt pen
    regions     whether its outlines are regions of every kind of tissue, or of tumour only
    seed        random seed of its picture
    """

    slide_id: str
    patient_id: str
    label: str
    site: Site
    staining: Staining
    recipe: Recipe
    seed: tuple[int, int]
    kind: str = "good"
    states_mpp: bool = True
    pen: bool = False
    regions: bool = False

    @property
    def path(self) -> str:
        """Path of the slide, relative to the cohort's folder."""
        return f"slides/{self.slide_id}.svs"

    @property
    def outlines(self) -> str:
        """Path of its outlines, relative to the cohort's folder."""
        return f"truth/{self.slide_id}.geojson"

    @property
    def class_map(self) -> str:
        """Path of its class map, relative to the cohort's folder."""
        return f"truth/{self.slide_id}.classes.png"


def plan_cohort(slides: int, seed: int, sides: tuple[int, int]) -> tuple[SlidePlan, ...]:
    """Plan `slides` good slides, half of them tumour in every site, then a blank and a corrupt one.

    From 8 slides on, one patient of each class has two slides. `sides` is the shortest and longest side in pixels.
    Raises UsageError for fewer than 4 slides, or sides below 512 or out of order.
    """
    if not SHORTEST_SIDE <= sides[0] <= sides[1]:
        raise UsageError(f"sides must be two lengths from {SHORTEST_SIDE} px up, shortest first, got {sides}")
    if slides < FEWEST_SLIDES:
        raise UsageError(f"slides must be at least {FEWEST_SLIDES}, got {slides}")
    patients = [*range(slides - 2), 0, 1] if slides >= 8 else list(range(slides))
    plans = [_good(number, patient, seed, sides, slides) for number, patient in enumerate(patients)]
    spare = max(patients) + 1
    blank = _good(slides, spare + 1 - spare % 2, seed, sides, slides)
    corrupt = _good(slides + 1, spare + 2 - spare % 2, seed, sides, slides)
    return (*plans, _renamed(blank, "demo-blank", "blank"), _renamed(corrupt, "demo-corrupt", "corrupt"))


def plan_annotated(slides: int, seed: int, sides: tuple[int, int]) -> tuple[SlidePlan, ...]:
    """Plan slides of other patients, every second one with tumour, all of whose tissue is outlined by kind.

    They show more fat, follicles and inflammation than the cohort, so that each kind has enough patches.
    """
    plans = []
    for number in range(slides):
        plan = _good(ANNOTATED_FROM + number, number, seed, sides, 0)
        recipe = replace(
            plan.recipe,
            inflammation=max(plan.recipe.inflammation, 0.3),
            follicles=max(plan.recipe.follicles, 3),
            fat=max(plan.recipe.fat, 0.12),
        )
        slide_id, patient_id = f"annotated-{number + 1:02d}", f"A{number + 1:02d}"
        plans.append(replace(plan, slide_id=slide_id, patient_id=patient_id, recipe=recipe, regions=True))
    return tuple(plans)


def _good(number: int, patient: int, seed: int, sides: tuple[int, int], slides: int) -> SlidePlan:
    """The plan of one good slide: even patients have tumour, pairs of patients share a site."""
    rng = np.random.default_rng([seed, number])
    tumour = patient % 2 == 0
    return SlidePlan(
        slide_id=f"demo-{number + 1:02d}",
        patient_id=f"P{patient + 1:02d}",
        label=TUMOUR_LABEL if tumour else NORMAL_LABEL,
        site=SITES[patient // 2 % len(SITES)],
        staining=Staining.draw(rng),
        recipe=_recipe(tumour, sides, rng),
        seed=(seed, number),
        states_mpp=number != slides // 2,
        pen=number == slides // 3,
    )


def _recipe(tumour: bool, sides: tuple[int, int], rng: np.random.Generator) -> Recipe:
    """What a slide shows; everything but the tumour is drawn alike for both classes."""
    width, height = (int(side) for side in rng.integers(sides[0], sides[1], 2, endpoint=True))
    core = rng.random() < 0.3
    return Recipe(
        Size(width, height),
        pieces=int(rng.integers(2, 4)) if core else int(rng.integers(1, 4)),
        elongation=float(rng.uniform(2.4, 3.6) if core else rng.uniform(1.0, 1.6)),
        tumour=int(rng.integers(1, 4)) if tumour else 0,
        tumour_radius=float(rng.uniform(0.09, 0.14) * sum(sides) / 2),
        gland_density=float(rng.uniform(0.4, 0.95)),
        gland_radius=float(rng.uniform(34, 60)),
        inflammation=float(rng.uniform(0.0, 0.5)),
        follicles=int(rng.integers(0, 6)),
        fat=float(max(rng.uniform(-0.05, 0.22), 0)),
    )


def _renamed(plan: SlidePlan, slide_id: str, kind: str) -> SlidePlan:
    """The same plan under another name, for a slide that cannot be used."""
    return replace(plan, slide_id=slide_id, kind=kind, states_mpp=True, pen=False)
