"""The networks that found tissue for a training, with weights the user names again: the same ones, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_pipeline.config.registries import TISSUE_NETWORKS
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.inputs.alike import network_words
from wsi_pipeline.store.schema import NETWORKS
from wsi_pipeline.tissue_networks.open_network import weights_digest
from wsi_pipeline.tissue_networks.published import PublishedNetwork, artefact_network

OPTIONS = {"tissue": "--tissue-weights", "artefacts": "--artefact-weights"}
"""Option of `predict` that names the weights of each network."""


def recorded_networks(
    specs: Mapping[str, Mapping[str, Any]], given: Mapping[str, str | None], device: str
) -> TissueNetworks:
    """Options of `tile` for the networks that the slides of a training were tiled with.

    specs   settings of the training; `networks` has name, mpp and sha256 for `tissue` and `artefacts`
    given   weights file for each of the two, None if not named

    A model does not hold these weights, and not where they were. Raises UsageError, naming the network, if its weights
    are missing or are others by their SHA-256, or if weights are given for a network that the training did not use.
    """
    known: Mapping[str, Any] = specs.get(NETWORKS) or {}
    for kind, option in OPTIONS.items():
        file, recorded = given[kind], known.get(kind)
        if recorded is None and file is not None:
            what = "found tissue without a network" if kind == "tissue" else "sought no artefacts with a network"
            raise UsageError(f"the training {what}, but {option} {file} is given", todo=f"Leave {option} out.")
        if recorded is not None:
            _check(_published(kind, specs, recorded), recorded, file, option)
    more = {"artefact_mpp": float(known["artefacts"]["mpp"])} if "artefacts" in known else {}
    return TissueNetworks(weights=given["tissue"], artefact_weights=given["artefacts"], device=device, **more)


def _published(kind: str, specs: Mapping[str, Mapping[str, Any]], recorded: Mapping[str, Any]) -> PublishedNetwork:
    if kind == "artefacts":
        return artefact_network(float(recorded["mpp"]))
    found: PublishedNetwork = TISSUE_NETWORKS.get(str(specs["segment"]["method"]))
    return found


def _check(published: PublishedNetwork, recorded: Mapping[str, Any], file: str | None, option: str) -> None:
    what = f"the model was trained on tissue of {network_words(recorded)}"
    if file is None:
        raise UsageError(
            f"{what}: the model does not contain these weights",
            todo=f"Name the same file: {option} FILE; or tile and embed these slides with it first, then predict "
            "without naming slides",
        )
    digest = weights_digest(Path(file), published)
    if digest != recorded["sha256"]:
        raise UsageError(
            f"{what}, but {option} {file} has other weights ({digest[:12]})",
            todo=f"Name the file that the slides of the training were tiled with; its SHA-256 is {recorded['sha256']}",
        )
