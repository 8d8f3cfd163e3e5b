"""`run`: all stages from one YAML file, whose keys are the option names. Unknown keys are refused."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.discover import at_home
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN, RunDir
from wsi_pipeline.cohort.tables.workbook import split_sheet
from wsi_pipeline.commands.catalogue import COMMANDS, Command
from wsi_pipeline.commands.shell.logfile import log_to
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request
from wsi_pipeline.commands.shell.safeyaml import read_yaml
from wsi_pipeline.config.fields import keys_of, options_of
from wsi_pipeline.errors import UsageError

TOP_KEYS = ("slides", "run", "labels", "tile", "tune", "embed", "classify", "embed-slides", "train-mil")
STEPS = ("tile", "tune", "embed", "classify", "embed-slides", "train-mil")
Step = tuple[Command, tuple[tuple[Any, ...], ...]]
_SEVERAL = ("embed", "embed-slides")
"""Steps that take a list of sections, one per encoder."""
_FILES = ("weights", "artefact_weights", "adapter", "trained", "clinical", "features_from", "labels", "stain_target")
"""Options that name files."""


def run(request: Request) -> int:
    """Run tile, tune, embed, classify, embed-slides and train-mil from a YAML file; all but tile are optional."""
    if len(request.sources) != 1:
        raise UsageError(f"run takes one YAML file, got {len(request.sources)}")
    path = Path(request.sources[0])
    plan = read_plan(path)
    folder = RunDir(path.parent / at_home(_run_folder(plan.get("run"), path)))
    sources = {
        command: tuple(str(path.parent / at_home(name)) for name in _as_list(plan.get(key)))
        for command, key in (("tile", "slides"), ("tune", "labels"))
    }
    code = EXIT_DONE
    # Every step is checked before the first is run: a typo in the last section should not cost a night.
    steps = list(_steps(plan, path))
    _foresee(steps)
    for command, sections in steps:
        request.console.say(f"-- {command.name}")
        given = sources.get(command.name, ())
        step = replace(request, run_dir=folder, options=sections[0], sections=sections, sources=given)
        module, function = command.handler.split(":")
        words = ["wsi-pipeline", "run", str(path), f"({command.name})"]
        json_path = folder.log_json if request.log_json else None
        with log_to(folder.log, shlex.join(words), request.console.note, json_path=json_path):
            code = max(code, int(getattr(import_module(module), function)(step)))
    return EXIT_SOME_FAILED if code else EXIT_DONE


def _foresee(steps: Sequence[Step]) -> None:
    """Check the names of encoders and models; the packages that define them are imported only if a step needs them."""
    if any(command.name in ("embed", "embed-slides", "train-mil") for command, _ in steps):
        options = [item for _, sections in steps for section in sections for item in section]
        import_module("wsi_pipeline.commands.shell.resolve_names").foresee(options)


def read_plan(path: Path) -> dict[str, Any]:
    """Read and check the top level of the YAML file. Raises UsageError for unreadable files and unknown keys."""
    plan = read_yaml(path)
    if not isinstance(plan, dict):
        raise UsageError(f"{path} must hold keys and values", todo=f"Known keys: {', '.join(TOP_KEYS)}")
    plan = {name: plan[key] for name, key in keys_of(plan, TOP_KEYS, str(path)).items()}
    if "labels" in plan and "tune" not in plan and plan["labels"] is not None:
        raise UsageError(f"{path}: `labels` needs a section `tune`", todo="Add a section `tune`")
    if "embed-slides" in plan and _has_features(plan.get("train-mil")):
        raise UsageError(
            f"{path}: `embed-slides` comes before train-mil, whose features_from imports the features it would need",
            todo="Run wsi-pipeline import features FOLDER --labels CSV first, and leave out features_from",
        )
    if "slides" not in plan and not _has_features(plan.get("train-mil")):
        raise UsageError(f"{path}: the key `slides` is missing", todo="Name the CSV, folder or glob of slides")
    return plan


def _has_features(section: Any) -> bool:
    """Whether train-mil uses features of another tool, so that no slides are needed."""
    given = section.items() if isinstance(section, dict) else ()
    return any(str(key).replace("-", "_") == "features_from" and value for key, value in given)


def _run_folder(value: Any, path: Path) -> str:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{path}: run must name a folder, got {type(value).__name__}")
    return value or DEFAULT_RUN


def _steps(plan: Mapping[str, Any], path: Path) -> Iterator[Step]:
    """The commands to run, each with its sets of options: embed takes several in one call, others one each."""
    by_name = {command.name: command for command in COMMANDS}
    for name in STEPS:
        if (name == "tile" and "slides" in plan) or name in plan:
            where = f"{path}, {name}"
            found = [_options(by_name[name], part, where) for part in _sections(plan.get(name), where, by_name[name])]
            sets = tuple(tuple(_beside(item, path.parent) for item in options) for options in found)
            for part in _calls(name, sets):
                yield by_name[name], part


def _calls(name: str, sets: tuple[tuple[Any, ...], ...]) -> Iterator[tuple[tuple[Any, ...], ...]]:
    if name == "embed" and sets:
        yield sets  # one pass over the pixels
    elif name != "embed":
        yield from ((one,) for one in sets)


def _sections(value: Any, where: str, command: Command) -> list[dict[str, Any]]:
    """One section, or where a step takes several a list of them: one per encoder."""
    sections = value if isinstance(value, list) and command.name in _SEVERAL else [value]
    for section in sections:
        if section is not None and not isinstance(section, dict):
            raise UsageError(f"{where}: must hold option names and values, got {repr(section)[:80]}")
    return [dict(section or {}) for section in sections]


def _options(command: Command, section: dict[str, Any], where: str) -> tuple[Any, ...]:
    """The option objects of one command from its section; each key sets the field of that name."""
    return options_of(command.options, section, where)


def _beside(options: Any, folder: Path) -> Any:
    """The options, with paths made relative to the YAML file's folder; words such as built-in are kept."""
    named = {name: getattr(options, name, None) for name in _FILES}
    places = {name: folder / at_home(value) for name, value in named.items() if value}
    found = {name: str(place) for name, place in places.items() if split_sheet(str(place))[0].exists()}
    return dataclasses.replace(options, **found) if found else options


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [] if value is None else [str(value)]
