"""How slide embeddings are made and searched, and how slides are viewed: options that are in no digest."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import between, option, validate


@dataclass(frozen=True)
class EmbedSlidesExecution:
    """How embed-slides is run."""

    features: str | None = option(
        None, "patch encoder whose features are pooled (default: all that the slide encoder takes)",
        group="slide encoder", metavar="NAME",
    )  # fmt: skip
    weights: str | None = shared.weights("the slide encoder", "slide encoder")
    device: str = shared.device()
    store: str = shared.store()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class StainOptions:
    """How the stain of slides is measured, and whose stain they would be given."""

    stain_norm: str = option(
        "macenko", "method that estimates the stain, from each slide's tissue", group="stain",
        choices=("reinhard", "macenko", "vahadane"),
    )  # fmt: skip
    stain_target: str = shared.stain_target()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class SimilarOptions:
    """Which slides are neighbours, and what their labels predict."""

    features: str | None = option(
        None, "slide embeddings to search, such as uni+mean (default: those of the run)", group="search",
        metavar="NAME",
    )  # fmt: skip
    neighbours: int = option(5, "nearest slides of other patients to list and to vote", group="search",
        check=between(1, 1000))  # fmt: skip
    patch: str | None = option(
        None, "list the patches nearest to the one at this level-0 pixel of the slide instead; --features then names a "
        "patch encoder", group="search", metavar="X,Y",
    )  # fmt: skip
    other_slides: bool = option(False, "with --patch: only patches of other slides", group="search")
    task: str = option(
        "classification", "what the label is, for the leave-one-patient-out score", group="score",
        choices=("classification", "regression"),
    )  # fmt: skip
    positive: str | None = option(
        None, "positive class of two (default: the last in sorted order)", group="score", metavar="NAME"
    )
    bootstrap: int = shared.bootstrap("patients", group="score")
    permutations: int = option(
        1000, "label permutations for the test against chance (0: no test)", group="score",
        check=between(0, 100_000), rare=True,
    )  # fmt: skip
    seed: int = shared.seed("the bootstrap", group="score")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ViewOptions:
    """Where `view` serves the run, or what it exports."""

    port: int = option(
        0, "port (0: 8765, or the next that is free)", group="server", check=between(0, 65_535), metavar="N"
    )
    host: str = option(
        "127.0.0.1", "address to listen on; any but the default lets other machines in", group="server",
        metavar="ADDRESS")  # fmt: skip
    browser: bool = option(True, "open the browser", group="server")
    export: str | None = option(
        None, "write a folder that shows the slides in a browser without a server, then end", group="export",
        metavar="FOLDER")  # fmt: skip
    export_mpp: float = option(
        1.0, "finest resolution in that folder, micrometres per pixel", group="export", check=between(0.05, 100)
    )
    next_to_mark: int | None = option(
        None, "list the N patches that a tuned model is least certain about, then exit", group="teaching",
        check=between(1, 100), metavar="N",
    )  # fmt: skip
    classified_by: str = option(
        "pathotune:marks", "that model, as given to classify --model", group="teaching", metavar="MODEL"
    )

    def __post_init__(self) -> None:
        validate(self)
