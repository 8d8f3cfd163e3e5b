"""Facts about published patch encoders, each with its source: encoders.toml as objects. Imports no framework.

`Preset` is an encoder that `--model NAME` opens, or the reason why it cannot be built. `Known` completes what the
config.json of a repository on the hub leaves out.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import EncoderError

CLASS_AND_MEAN = "class+mean"
"""A published feature: the class token, then the mean of the patch tokens."""
CLASS_TOKEN = "class token"
LIBRARIES = ("timm", "transformers", "layout", "none")
GROUPS = ("network", "pixels", "feature", "resolution", "licence", "weights")
"""Groups of facts; each has its own sources."""


@dataclass(frozen=True)
class Known:
    """What the hub's config.json leaves out about one model.

    mpp            resolution it was trained at; None: several
    licence        of the weights, with the access it needs
    arguments      for timm.create_model
    packed_swiglu  its feed-forward layers are timm's SwiGLUPacked with SiLU, which JSON cannot express
    feature        the feature its authors use: CLASS_AND_MEAN, "" for the network's own output
    crop           part of the resized patch that its authors cut out; None: as configured
    """

    mpp: float | None
    licence: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    packed_swiglu: bool = False
    feature: str = ""
    crop: float | None = None


@dataclass(frozen=True)
class Preset:
    """One encoder of encoders.toml, which explains the fields. `library` is "none" if it cannot be built here."""

    name: str
    title: str
    library: str
    feature: str
    gate: str
    licence: str
    sources: Mapping[str, tuple[str, ...]]
    repo: str = ""
    page: str = ""
    file: str = ""
    network: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    input_px: int | None = None
    resize_px: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    interpolation: str = ""
    dim: int | None = None
    million: float | None = None
    mpp: float | None = None
    use_at: str = ""
    prefix: str = ""
    ignore: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    lora: float = 0.0
    positions: str = ""
    hub: Mapping[str, Any] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def built(self) -> bool:
        """Whether `--model NAME` opens it."""
        return self.library != "none"

    @property
    def stem(self) -> str:
        """Name of its converted weights file, without the suffix."""
        return self.name

    @property
    def where(self) -> str:
        """Web address of its weights."""
        return f"https://huggingface.co/{self.repo}" if self.repo else self.page

    @property
    def terms(self) -> str:
        """Licence and access in one phrase, for messages."""
        return f"{self.licence}, access on request" if self.gate == "request" else self.licence

    @property
    def pickled(self) -> bool:
        """Whether its weights are known to be published as pickle only, which must be converted once."""
        return bool(self.file) and not self.file.endswith(".safetensors")

    def known(self) -> Known | None:
        """The facts missing from the config.json of its repository; None if nothing is missing."""
        if self.hub is None:
            return None
        feature = CLASS_AND_MEAN if self.feature == CLASS_AND_MEAN else ""
        hub = self.hub
        return Known(self.mpp, self.terms, dict(hub["arguments"]), self.swiglu, feature, hub.get("crop"))


@dataclass(frozen=True)
class Zoo:
    """encoders.toml: the encoders by name, and the sources of their facts by short name."""

    presets: Mapping[str, Preset]
    sources: Mapping[str, str]


@cache
def zoo() -> Zoo:
    """The encoders of this package."""
    text = resources.files("wsi_pipeline.encoders.zoo").joinpath("encoders.toml").read_text(encoding="utf-8")
    return read_zoo(text)


def read_zoo(text: str) -> Zoo:
    """The encoders of a TOML text. Raises EncoderError for unknown keys, and for facts without a source."""
    facts = tomllib.loads(text)
    sources, colours = facts["sources"], facts["colours"]
    read = {name: _preset(name, dict(stated), sources, colours) for name, stated in facts["encoders"].items()}
    return Zoo(read, sources)


def presets() -> Mapping[str, Preset]:
    """All encoders of encoders.toml by name, in its order."""
    return zoo().presets


def list_encoders() -> tuple[Preset, ...]:
    """The published patch encoders that this package knows, with their facts: what `wsi-pipeline encoders` lists."""
    return tuple(presets().values())


def find_preset(name: str) -> Preset:
    """The encoder of the zoo called `name`. Raises EncoderError for an unknown name, with similar names."""
    if name in presets():
        return presets()[name]
    near = names_elsewhere(name) or difflib.get_close_matches(name, presets(), n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    raise EncoderError(f"no published encoder is called {name!r}", todo=f"{hint}List them with: wsi-pipeline encoders")


def known_facts(repo: str) -> Known | None:
    """Facts about the hub model `ORG/NAME` (with or without @revision), None if unknown."""
    plain = repo.partition("@")[0].lower()
    return next((item.known() for item in presets().values() if item.repo.lower() == plain and item.hub), None)


def preset_of_folder(folder: Path) -> Preset | None:
    """The zoo encoder that a local folder is a copy of, judged by its name alone; None if there is none.

    Known are the short name (`virchow2`), NAME, ORG/NAME, ORG_NAME and ORG--NAME of the repository, in any case, and
    a snapshot in the Hugging Face cache.
    """
    *_, above, middle, last = "", "", *(part.lower() for part in folder.parts)
    cached = above.removeprefix("models--") if middle == "snapshots" and above.startswith("models--") else last
    for item in presets().values():
        organisation, _, repo = item.repo.lower().partition("/")
        if cached in {item.name, *(({repo} | {f"{organisation}{mark}{repo}" for mark in ("_", "--")}) if repo else ())}:
            return item
    return None


def is_preset(name: str) -> bool:
    """Whether a name is in the zoo; names that no zoo encoder can have are not looked up."""
    return not set(name) & set("/\\:") and name in presets()


def names_elsewhere(name: str) -> list[str]:
    """Presets that other tools (TRIDENT, STAMP, LazySlide) call `name`."""
    return [item.name for item in presets().values() if name in {each.split(" ")[0] for each in item.names.values()}]


def _preset(name: str, stated: dict[str, Any], sources: Mapping[str, str], colours: Mapping[str, Any]) -> Preset:
    chosen = stated.pop("colours", None)
    if chosen is not None:
        exact = colours[chosen] if isinstance(chosen, str) else chosen
        stated |= {"mean": tuple(exact["mean"]), "std": tuple(exact["std"])}
    unknown = sorted(set(stated) - {each.name for each in fields(Preset)})
    if unknown:
        raise EncoderError(f"encoders.toml: {name} has unknown keys: {', '.join(unknown)}")
    stated["ignore"] = tuple(stated.get("ignore", ()))
    stated["rename"] = tuple((str(old), str(new)) for old, new in stated.get("rename", ()))
    given = stated.get("sources", {})
    stated_groups = [group for group in GROUPS if group != "resolution" or "mpp" in stated or "use_at" in stated]
    lacking = [group for group in stated_groups if not given.get(group)]
    unheard = sorted({each for group in given.values() for each in group} - set(sources))
    if lacking or unheard:
        raise EncoderError(f"encoders.toml: {name} has no source for {lacking}, or unknown sources {unheard}")
    stated["sources"] = {group: tuple(each) for group, each in given.items()}
    preset = Preset(name=name, **stated)
    if preset.library not in LIBRARIES or preset.built == bool(preset.reason):
        raise EncoderError(f"encoders.toml: {name} needs a library of {', '.join(LIBRARIES)}, or `none` and a reason")
    return preset
