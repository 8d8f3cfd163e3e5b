"""Facts about published slide encoders, each with its source: slide_encoders.toml as objects. Imports no framework."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from wsi_pipeline.encoders.zoo.facts import presets
from wsi_pipeline.errors import EncoderError

MEAN = "mean"
"""The slide encoder that needs no weights: the mean of the patch features."""
SLIDE_GROUPS = ("network", "input", "resolution", "licence", "weights")
"""Groups of facts; each has its own sources."""


@dataclass(frozen=True)
class SlidePreset:
    """One slide encoder of slide_encoders.toml, which explains the fields; without a network it is not built here."""

    name: str
    title: str
    gate: str
    licence: str
    encoders: tuple[str, ...]
    in_dim: int
    sources: Mapping[str, tuple[str, ...]]
    file: str = ""
    repo: str = ""
    page: str = ""
    dim: int | None = None
    patch_px: int | None = None
    mpp: float | None = None
    network: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    million: float | None = None
    prefix: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    places: bool = False
    lora: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def built(self) -> bool:
        """Whether `embed-slides --model NAME` opens it."""
        return bool(self.network)

    @property
    def stem(self) -> str:
        """Name of its converted weights file, without the suffix: a patch encoder may have the same name."""
        return f"{self.name}-slide"

    @property
    def where(self) -> str:
        """Web address of its weights."""
        return f"https://huggingface.co/{self.repo}" if self.repo else self.page

    @property
    def pickled(self) -> bool:
        """Whether its weights are known to be published as pickle only, which must be converted once."""
        return bool(self.file) and not self.file.endswith(".safetensors")

    def takes(self, encoder: str) -> bool:
        """Whether these are features of a patch encoder that it was trained on.

        encoder   as a feature store names it: our name, its repository, or its name in another tool
        """
        return _plain(encoder) in {_plain(name) for each in self.encoders for name in _names_of(each)}


@dataclass(frozen=True)
class SlideZoo:
    """slide_encoders.toml: the slide encoders by name, and the sources of their facts by short name."""

    presets: Mapping[str, SlidePreset]
    sources: Mapping[str, str]


@cache
def slide_zoo() -> SlideZoo:
    """The slide encoders of this package."""
    place = resources.files("wsi_pipeline.encoders.slide_zoo").joinpath("slide_encoders.toml")
    return read_slide_zoo(place.read_text(encoding="utf-8"))


def read_slide_zoo(text: str) -> SlideZoo:
    """The slide encoders of a TOML text. Raises EncoderError for unknown keys, and for facts without a source."""
    facts = tomllib.loads(text)
    return SlideZoo(
        {name: _preset(name, dict(stated), facts["sources"]) for name, stated in facts["encoders"].items()},
        facts["sources"],
    )


def list_slide_encoders() -> tuple[SlidePreset, ...]:
    """The published slide encoders that this package knows, with their facts."""
    return tuple(slide_zoo().presets.values())


def is_slide_preset(name: str) -> bool:
    """Whether slide_encoders.toml has an encoder of this name."""
    return name in slide_zoo().presets


def find_slide_preset(name: str) -> SlidePreset:
    """The slide encoder called `name`. Raises EncoderError if it is unknown or cannot be built here."""
    known = slide_zoo().presets
    if name not in known:
        elsewhere = [one.name for one in known.values() if name in one.names.values()]
        near = elsewhere or difflib.get_close_matches(name, (MEAN, *known), n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise EncoderError(f"no slide encoder is called {name!r}", todo=f"{hint}List them with: wsi-pipeline encoders")
    preset = known[name]
    if not preset.built:
        raise EncoderError(
            f"{preset.title} is not built here: {preset.reason}",
            todo="Compute its slide embeddings with the authors' code, or choose another: wsi-pipeline encoders",
        )
    return preset


def _names_of(encoder: str) -> set[str]:
    preset = presets()[encoder]
    hub = {preset.repo, f"hf-hub:{preset.repo}"} if preset.repo else set()
    return {encoder, *hub, *(each.split(" ")[0] for each in preset.names.values())}


def _plain(name: str) -> str:
    """A name as it is compared: lower case, as a folder under embed/ spells it, without -, _ and dots."""
    return re.sub(r"[-_.]", "", name.lower().replace("/", "--").replace(":", "-"))


def _preset(name: str, stated: dict[str, Any], sources: Mapping[str, str]) -> SlidePreset:
    unknown = sorted(set(stated) - {each.name for each in fields(SlidePreset)})
    given = stated.get("sources", {})
    places = [group for group in SLIDE_GROUPS if group != "resolution" or "mpp" in stated]
    lacking = [group for group in places if not given.get(group)]
    unheard = sorted({each for group in given.values() for each in group} - set(sources))
    if unknown or lacking or unheard:
        raise EncoderError(
            f"slide_encoders.toml: {name} has unknown keys {unknown}, no source for {lacking}, or unknown sources "
            f"{unheard}"
        )
    stated |= {
        "sources": {group: tuple(each) for group, each in given.items()},
        "encoders": tuple(stated["encoders"]),
        "ignore": tuple(stated.get("ignore", ())),
        "rename": tuple((str(old), str(new)) for old, new in stated.get("rename", ())),
    }
    preset = SlidePreset(name=name, **stated)
    if preset.built == bool(preset.reason) or set(preset.encoders) - set(presets()):
        raise EncoderError(f"slide_encoders.toml: {name} needs a network or a reason, and encoders of encoders.toml")
    return preset
