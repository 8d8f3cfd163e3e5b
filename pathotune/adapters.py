"""Tuning methods behind one interface: each is a PathoTune model with some fields of its configuration fixed.

pathotune      task, textual and instance prompts (Lu et al. 2024, arXiv 2403.16497)
linear         only the head, on frozen features
vpt-shallow    learned tokens at the input (Jia et al. 2022, arXiv 2203.12119)
vpt-deep       learned tokens at every layer (same source)
lora           low-rank updates of queries, keys and values (Hu et al. 2021, arXiv 2106.09685), by peft
full           all weights of the backbone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pathotune.config import PathoTuneConfig
from pathotune.errors import ConfigError

_NO_PROMPTS = {"tvp_tokens": 0, "ttp": False, "ivp_tokens": 0}
_VPT = {"ttp": False, "ivp_tokens": 0, "entry": 0.0, "start": "random"}


@dataclass(frozen=True)
class Method:
    """A tuning method.

    fields         the configuration fields it fixes
    learning_rate  the default: the lowest of those close to the best in the search of docs/results.md
    network_rate   the default, explained in `pathotune.training.FitOptions`
    optimizer      the optimiser these rates were found for
    """

    name: str
    purpose: str
    learning_rate: float
    fields: Mapping[str, Any] = field(default_factory=dict)
    network_rate: float = 1.0
    optimizer: str = "radam"

    @property
    def training(self) -> dict[str, Any]:
        """This method's defaults for FitOptions."""
        return {name: getattr(self, name) for name in ("learning_rate", "network_rate", "optimizer")}


_ALL = (
    Method("pathotune", "task, textual and instance prompts", 1e-2, {}, network_rate=0.3, optimizer="adamw"),
    Method("linear", "only the head", 1e-2, _NO_PROMPTS),
    Method("vpt-shallow", "learned tokens at the input", 1e-2, {**_VPT, "tvp_depth": "shallow"}),
    Method("vpt-deep", "learned tokens at every layer", 3e-2, {**_VPT, "tvp_depth": "deep"}),
    Method("lora", "low-rank updates of the attention", 1e-2, {**_NO_PROMPTS, "backbone": "lora"}),
    Method("full", "all weights", 5e-4, {**_NO_PROMPTS, "backbone": "full"}),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def method_of(name: str) -> Method:
    """Look up a method by name. Raises ConfigError that lists the known names."""
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def configure(method: str, **fields: Any) -> PathoTuneConfig:
    """Make the configuration of a method from fields of PathoTuneConfig; fields that the method fixes take precedence.

    Raises ConfigError for an unknown method or a field out of range.
    """
    return PathoTuneConfig(**{**fields, **method_of(method).fields})
