"""Which networks find tissue and artefacts in a run: known, with a digest of their weights, before they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from wsi_pipeline.config.registries import TISSUE_NETWORKS
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.errors import UsageError
from wsi_pipeline.tissue_networks.open_network import open_network, weights_digest
from wsi_pipeline.tissue_networks.published import Network, PublishedNetwork, artefact_network


@dataclass(frozen=True)
class PlannedNetwork:
    """A network, its weights file and the SHA-256 of that; loaded once per process by `open`."""

    published: PublishedNetwork
    weights: Path
    sha256: str
    device: str

    def open(self) -> Network:
        """The loaded network. Raises EncoderError if the weights do not fit."""
        return _opened(self.published, self.weights, self.sha256, self.device)


@dataclass(frozen=True)
class NetworkPlan:
    """The networks of a run; `tissue` is None if a detector without weights finds it, `artefacts` if none are sought.

    threads   of torch in each process; 0: as many as torch takes
    """

    tissue: PlannedNetwork | None = None
    artefacts: PlannedNetwork | None = None
    threads: int = 0

    def __bool__(self) -> bool:
        return self.tissue is not None or self.artefacts is not None

    def facts(self) -> dict[str, Any]:
        """For digests and stores: the hash of each network's weights, and its resolution; {} if there is none."""
        used = {"tissue": self.tissue, "artefacts": self.artefacts}
        return {
            kind: {"network": each.published.name, "mpp": each.published.mpp, "sha256": each.sha256}
            for kind, each in used.items()
            if each is not None
        }

    def open(self) -> None:
        """Load all networks. Raises EncoderError if weights do not fit."""
        for each in (self.tissue, self.artefacts):
            if each is not None:
                each.open()


NO_NETWORKS = NetworkPlan()


def plan_networks(method: str, options: TissueNetworks, threads: int = 0) -> NetworkPlan:
    """The networks for a tissue detector and these options.

    Raises UsageError if weights are missing, or given for a detector that has none.
    """
    tissue = None
    if method in TISSUE_NETWORKS:
        published = TISSUE_NETWORKS.get(method)
        if options.weights is None:
            raise UsageError(
                f"--method {method} needs --weights FILE: this package contains no weights of {published.name}",
                todo=f"Published weights: {published.where}.",
            )
        tissue = _planned(published, options.weights, options.device)
    elif options.weights is not None:
        raise UsageError(
            f"--method {method} has no weights, but --weights {options.weights} is given",
            todo=f"Leave it out, or choose --method {' or '.join(TISSUE_NETWORKS.names())}.",
        )
    artefacts = None
    if options.artefact_weights is not None:
        artefacts = _planned(artefact_network(options.artefact_mpp), options.artefact_weights, options.device)
    return NetworkPlan(tissue, artefacts, threads)


def _planned(published: PublishedNetwork, weights: str, device: str) -> PlannedNetwork:
    path = Path(weights).absolute()
    return PlannedNetwork(published, path, weights_digest(path, published), device)


@cache
def _opened(published: PublishedNetwork, weights: Path, sha256: str, device: str) -> Network:
    if weights_digest(weights, published) != sha256:
        raise UsageError(f"weights file {weights} has changed since this command began", todo="Run it again.")
    return open_network(published, weights, device)
