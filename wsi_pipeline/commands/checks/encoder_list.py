"""`encoders`: the patch encoders of the zoo, all facts about one of them, and conversion of its pickled weights."""

from __future__ import annotations

import textwrap
from pathlib import Path

from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import EncodersOptions
from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.zoo.facts import Preset, find_preset, list_encoders, zoo
from wsi_pipeline.encoders.zoo.zoo_weights import cached_weights, convert, how_to_get
from wsi_pipeline.errors import UsageError

_WIDTH = 112


def encoders(request: Request) -> int:
    """List the zoo, or print the facts of the encoders named, each with its source."""
    chosen = [find_preset(name) for name in request.sources]
    file = request.get(EncodersOptions).convert
    if file is not None:
        if len(chosen) != 1:
            raise UsageError(
                f"--convert needs the name of one encoder, got {len(chosen)}",
                todo="For example: wsi-pipeline encoders uni --convert pytorch_model.bin",
            )
        return _convert(request.console, chosen[0], Path(file))
    if not chosen:
        _list_all(request.console)
    for preset in chosen:
        _describe(request.console, preset)
    return EXIT_DONE


def _convert(console: Console, preset: Preset, file: Path) -> int:
    written = convert(preset, file)
    console.fact("weights", shown(written))
    console.say(f"next: wsi-pipeline embed --model {preset.name} --weights {shown(written)}")
    return EXIT_DONE


def _list_all(console: Console) -> None:
    every = list_encoders()
    rows = [
        [
            preset.name,
            str(preset.input_px or "-"),
            str(preset.dim or "-"),
            f"{preset.mpp:g}" if preset.mpp else "-",
            preset.licence,
            preset.gate,
            _state(preset),
        ]
        for preset in every
        if preset.built
    ]
    console.table(("encoder", "input px", "features", "mpp", "licence", "gate", "weights"), rows, right=(1, 2, 3))
    console.say()
    console.table(("not built here", "reason"), [[item.name, item.reason] for item in every if not item.built])
    console.say()
    console.say("weights: here (in the Hugging Face cache), convert (cached, but pickled), or - (not in the cache)")
    console.say("also: colour, vit-mini and pathotune (built in), any model of timm, any vision model of transformers")
    console.say("next: wsi-pipeline encoders NAME for all facts and how to get the weights")


def _state(preset: Preset) -> str:
    if cached_weights(preset) is not None:
        return "here"
    return "convert" if _pickled(preset) is not None else "-"


def _pickled(preset: Preset) -> Path | None:
    if not preset.repo or not preset.file or not preset.pickled:
        return None
    return hub.find_cached(hub.HubFile(preset.repo, preset.file))


def _describe(console: Console, preset: Preset) -> None:
    console.say(f"{preset.name}: {preset.title}")
    for label, text, group in _facts(preset):
        cited = f" [{', '.join(preset.sources[group])}]" if group else ""
        first, *rest = textwrap.wrap(text + cited, _WIDTH - 15, break_on_hyphens=False, break_long_words=False)
        console.say(f"  {label:<13}{first}")
        for line in rest:
            console.say(f"{'':15}{line}")
    console.say("  sources")
    for name in dict.fromkeys(name for group in preset.sources.values() for name in group):
        console.say(f"    {name}: {zoo().sources[name]}")


def _facts(preset: Preset) -> list[tuple[str, str, str]]:
    """Label, text, and the group of sources of each line; a line without a text is left out."""
    arguments = ", ".join(f"{key}={value}" for key, value in preset.arguments.items())
    swiglu = ", SwiGLU layers" if preset.swiglu else ""
    network = f"{preset.library}: {preset.network}({arguments}){swiglu}" if preset.built else ""
    cut = f", centre of {preset.resize_px}" if preset.resize_px else ""
    pixels = f"{preset.input_px} px{cut}, {preset.interpolation}" if preset.input_px else ""
    colours = f"mean {_numbers(preset.mean)}, std {_numbers(preset.std)}" if preset.mean else ""
    size = f", {preset.dim} values" if preset.dim else ""
    resolution = f"{preset.mpp:g} mpp, others are refused" if preset.mpp else "any resolution"
    file = cached_weights(preset) or _pickled(preset)
    elsewhere = ", ".join(f"{tool}: {name}" for tool, name in preset.names.items())
    lines = [
        ("not built", preset.reason, "network"),
        ("network", network, "network"),
        ("parameters", f"{preset.million:g} million" if preset.million else "", "network"),
        ("input", pixels.rstrip(", "), "pixels"),
        ("colours", colours, "pixels"),
        ("feature", f"{preset.feature}{size}", "feature"),
        ("resolution", f"{resolution}; {preset.use_at}" if preset.use_at else resolution, "resolution"),
        ("licence", preset.licence, "licence"),
        ("gate", preset.gate, "licence"),
        ("repository", f"{preset.where} ({preset.file})" if preset.file else preset.where, "weights"),
        ("here", str(file) if file else "no, not in the Hugging Face cache", ""),
        ("to get it", how_to_get(preset) if preset.built else "", ""),
        ("elsewhere", elsewhere, ""),
    ]
    return [line for line in lines if line[1]]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
