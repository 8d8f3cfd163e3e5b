"""`encoders`: the published patch and slide encoders, all facts about one of them, and conversion of its weights."""

from __future__ import annotations

import textwrap
from pathlib import Path

from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import EncodersOptions
from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.names import plan_published
from wsi_pipeline.encoders.slide_zoo.slide_facts import (
    SlidePreset,
    find_slide_preset,
    is_slide_preset,
    list_slide_encoders,
    slide_zoo,
)
from wsi_pipeline.encoders.zoo.facts import Preset, find_preset, is_preset, list_encoders, zoo
from wsi_pipeline.encoders.zoo.zoo_weights import Check, cached_weights, convert, how_to_get
from wsi_pipeline.errors import UsageError

_WIDTH = 112


def encoders(request: Request) -> int:
    """List all patch and slide encoders, or print the facts of the named ones, each with its source."""
    chosen = [preset for name in request.sources for preset in _named(name)]
    file = request.get(EncodersOptions).convert
    if file is not None:
        if len(request.sources) != 1:
            raise UsageError(
                f"--convert needs the name of one encoder, got {len(request.sources)}",
                todo="For example: wsi-pipeline encoders uni --convert pytorch_model.bin",
            )
        # A slide encoder may have the same name as its patch encoder; then the file decides which one is meant.
        own = [preset for preset in chosen if preset.file == Path(file).name]
        return _convert(request.console, (own or chosen)[0], Path(file))
    if not chosen:
        _list_all(request.console)
    for preset in chosen:
        _describe(request.console, preset)
    return EXIT_DONE


def _named(name: str) -> list[Preset | SlidePreset]:
    """The patch encoder and the slide encoder with this name. Raises EncoderError if there is neither."""
    slides: list[Preset | SlidePreset] = [one for one in list_slide_encoders() if one.name == name]
    return slides if is_slide_preset(name) and not is_preset(name) else [find_preset(name), *slides]


def _convert(console: Console, preset: Preset | SlidePreset, file: Path) -> int:
    written = convert(preset, file, check_of(preset))
    console.fact("weights", shown(written))
    command = "embed-slides" if isinstance(preset, SlidePreset) else "embed"
    console.say(f"next: wsi-pipeline {command} --model {preset.name} --weights {shown(written)}")
    return EXIT_DONE


def check_of(preset: Preset | SlidePreset) -> Check:
    """What compares tensors with the network of an encoder. Raises EncoderError if it cannot be built here."""
    if isinstance(preset, SlidePreset):
        from wsi_pipeline.encoders.slide_zoo.plan_slide import SlideLayoutPlan

        return SlideLayoutPlan(find_slide_preset(preset.name)).check_tensors
    return plan_published(preset.name).check_tensors


def _list_all(console: Console) -> None:
    every, of_slides = list_encoders(), list_slide_encoders()
    rows = [[preset.name, str(preset.input_px or "-"), *_columns(preset)] for preset in every if preset.built]
    console.table(("encoder", "input px", "features", "mpp", "licence", "gate", "weights"), rows, right=(1, 2, 3))
    console.say()
    rows = [[one.name, " or ".join(one.encoders), *_columns(one)] for one in of_slides if one.built]
    console.table(("slide encoder", "takes", "features", "mpp", "licence", "gate", "weights"), rows, right=(2, 3))
    console.say()
    presets: list[Preset | SlidePreset] = [*every, *of_slides]
    reasons = [[item.name, item.reason] for item in presets if not item.built]
    console.table(("not built here", "reason"), reasons)
    console.say()
    console.say("weights: here (in the Hugging Face cache), convert (cached, but pickled), or - (not in the cache)")
    console.say("also: colour, vit-mini and pathotune (built in), any model of timm, any vision model of transformers")
    console.say("slide encoders without weights: mean, and the attention of a model trained here (--trained)")
    console.say("next: wsi-pipeline encoders NAME for all facts and how to get the weights")


def _columns(preset: Preset | SlidePreset) -> tuple[str, ...]:
    mpp = f"{preset.mpp:g}" if preset.mpp else "-"
    return str(preset.dim or "-"), mpp, preset.licence, preset.gate, _state(preset)


def _state(preset: Preset | SlidePreset) -> str:
    if cached_weights(preset) is not None:
        return "here"
    return "convert" if _pickled(preset) is not None else "-"


def _pickled(preset: Preset | SlidePreset) -> Path | None:
    if not preset.repo or not preset.file or not preset.pickled:
        return None
    return hub.find_cached(hub.HubFile(preset.repo, preset.file))


def _describe(console: Console, preset: Preset | SlidePreset) -> None:
    of_slides = isinstance(preset, SlidePreset)
    console.say(f"{preset.name}: {preset.title}{', slide encoder' * of_slides}")
    for label, text, group in _slide_facts(preset) if isinstance(preset, SlidePreset) else _facts(preset):
        cited = f" [{', '.join(preset.sources[group])}]" if preset.sources.get(group) else ""
        first, *rest = textwrap.wrap(text + cited, _WIDTH - 15, break_on_hyphens=False, break_long_words=False)
        console.say(f"  {label:<13}{first}")
        for line in rest:
            console.say(f"{'':15}{line}")
    console.say("  sources")
    for name in dict.fromkeys(name for group in preset.sources.values() for name in group):
        console.say(f"    {name}: {(slide_zoo() if of_slides else zoo()).sources[name]}")


def _facts(preset: Preset) -> list[tuple[str, str, str]]:
    """Label, text and group of sources of each line; lines without text are left out."""
    arguments = ", ".join(f"{key}={value}" for key, value in preset.arguments.items())
    swiglu = ", SwiGLU layers" if preset.swiglu else ""
    network = f"{preset.library}: {preset.network}({arguments}){swiglu}" if preset.built else ""
    cut = f", centre of {preset.resize_px}" if preset.resize_px else ""
    pixels = f"{preset.input_px} px{cut}, {preset.interpolation}" if preset.input_px else ""
    colours = f"mean {_numbers(preset.mean)}, std {_numbers(preset.std)}" if preset.mean else ""
    size = f", {preset.dim} values" if preset.dim else ""
    resolution = f"{preset.mpp:g} mpp, others are refused" if preset.mpp else "none stated; any is taken"
    file = cached_weights(preset) or _pickled(preset)
    elsewhere = ", ".join(f"{tool}: {name}" for tool, name in preset.names.items())
    if not preset.mpp and preset.use_at:
        resolution = "any is taken"
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


def _slide_facts(preset: SlidePreset) -> list[tuple[str, str, str]]:
    """The same for a slide encoder."""
    arguments = ", ".join(f"{key}={value}" for key, value in preset.arguments.items())
    patches = f"patches of {preset.patch_px} px at {preset.mpp:g} mpp" if preset.patch_px and preset.mpp else ""
    file = cached_weights(preset) or _pickled(preset)
    lines = [
        ("not built", preset.reason, "network"),
        ("network", f"{preset.network}({arguments})" if preset.built else "", "network"),
        ("parameters", f"{preset.million:g} million" if preset.million else "", "network"),
        ("takes", f"{preset.in_dim} features of {' or '.join(preset.encoders)}", "input"),
        ("gives", f"{preset.dim} values per slide" if preset.dim else "", "network"),
        ("resolution", f"{patches}, others are refused" if preset.built and patches else patches, "resolution"),
        ("licence", preset.licence, "licence"),
        ("gate", preset.gate, "licence"),
        ("repository", f"{preset.where} ({preset.file})" if preset.file else preset.where, "weights"),
        ("here", str(file) if file else "no, not in the Hugging Face cache", ""),
        ("to get it", how_to_get(preset) if preset.built else "", ""),
        ("elsewhere", ", ".join(f"{tool}: {name}" for tool, name in preset.names.items()), ""),
    ]
    return [line for line in lines if line[1]]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
