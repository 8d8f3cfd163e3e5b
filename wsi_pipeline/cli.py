"""The command line: options made from the specs, one line for an error, and the exit code.

Imports nothing heavy, so that --help answers at once; a command's own module is imported when it is run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import logging
import shlex
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wsi_pipeline
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN, RunDir
from wsi_pipeline.commands.catalogue import COMMANDS, Command
from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.config.fields import quoting, value_type
from wsi_pipeline.errors import DamagedStoreError, UsageError, WsiPipelineError
from wsi_pipeline.system.locks import clear_stale
from wsi_pipeline.system.machine import prepare_process
from wsi_pipeline.system.termination import raise_on_ctrl_c, raise_on_sigterm

EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143

_INTRO = """From a CSV of whole-slide images to a trained slide-level model:

  wsi-pipeline tile slides.csv               segment tissue, lay patches
  wsi-pipeline embed --model pathotune       patches to features
  wsi-pipeline train-mil                     slide-level model, cross-validation, report
"""
_EPILOG = """Results go to ./wsi-run (or --run FOLDER). Running a command again does only what is missing or changed.
Exit codes: 0 all done, 2 wrong usage, 3 some slides failed (named at the end and in wsi-run/status/),
130 stopped by Ctrl-C, 143 by SIGTERM; what is done is kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare_process()
    raise_on_sigterm(Terminated)
    raise_on_ctrl_c()
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error: what a terminal cannot show stops no work
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = build_parser().parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    console = Console(quiet=args.quiet)
    try:
        return _run(args, words, console)
    except WsiPipelineError as error:
        _explain(_put_aside(_in_flags(error, args.command)), console, args.debug)
        return EXIT_USAGE
    except OSError as error:  # not about a slide (the runner has those): a folder that cannot be written, a full disk
        _explain(_of_system(error), console, args.debug)
        return EXIT_USAGE
    except KeyboardInterrupt as stop:
        console.error("stopped; what is done is kept, the same command goes on from there")
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


def _run(args: argparse.Namespace, words: list[str], console: Console) -> int:
    from wsi_pipeline.commands.shell.logfile import log_to
    from wsi_pipeline.commands.shell.request import Request, parse_chunk
    from wsi_pipeline.commands.shell.sections import split_sections

    command: Command = args.command
    run_dir = RunDir(Path(args.run))
    sections = split_sections(command.options, vars(args))
    request = Request(
        run_dir=run_dir,
        options=sections[0],
        sections=sections,
        console=console,
        sources=tuple(getattr(args, "sources", ()) or ()),
        only=args.only or "",
        chunk=parse_chunk(args.chunk),
        command=shlex.join(["wsi-pipeline", *words]),
        log_json=args.log_json,
    )
    module, function = command.handler.split(":")
    handler = getattr(importlib.import_module(module), function)
    kept, kept_json = (run_dir.log, run_dir.log_json) if command.stage else (None, None)
    if command.stage:
        clear_stale(run_dir.locks)
    with log_to(kept, request.command, console.note, json_path=kept_json if args.log_json else None):
        try:
            return int(handler(request))
        except WsiPipelineError as error:
            logging.getLogger(__name__).error("%s", error, exc_info=error)
            raise


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="wsi-pipeline", description=_INTRO, epilog=_EPILOG, formatter_class=_formatter
    )
    parser.add_argument("--version", action="version", version=f"wsi-pipeline {wsi_pipeline.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        _add_command(commands, command)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=118)


def _add_command(commands: Any, command: Command) -> None:
    parser = commands.add_parser(
        command.name,
        help=command.purpose,
        description=command.purpose[0].upper() + command.purpose[1:] + ".",
        epilog=f"example: {command.example}",
        usage=f"wsi-pipeline {command.name} [options]" + (f" [{command.sources[0]} ...]" if command.sources else ""),
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    if command.sources:
        metavar, help_text = command.sources
        parser.add_argument("sources", metavar=metavar, nargs="+" if command.needed else "*", help=help_text)
    groups: dict[str, Any] = {}
    for kind in command.options:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            name = field.metadata["group"]
            if name not in groups:
                groups[name] = parser.add_argument_group(name)
            _add_option(groups[name], field, value_type(hints[field.name]))
    _add_common(parser.add_argument_group("everywhere"), command)
    parser.set_defaults(command=command)


def _add_option(group: Any, field: dataclasses.Field[Any], kind: type) -> None:
    flag, meta = "--" + field.name.replace("_", "-"), field.metadata
    default = "" if field.default in (None, "") or kind is bool else f" (default: {field.default})"
    text = (meta["help"] + default).replace("%", "%%")
    if kind is bool:
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        group.add_argument(flag, action=action, default=field.default, help=text)
        return
    group.add_argument(
        flag,
        type=kind,
        action="append" if meta["repeat"] else "store",
        default=None if meta["repeat"] else field.default,
        choices=meta["choices"] or None,
        metavar=None if meta["choices"] else meta["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT"),
        help=text,
    )


def _add_common(group: Any, command: Command) -> None:
    group.set_defaults(run=DEFAULT_RUN, only=None, chunk=None)
    if command.name not in ("run", "demo"):  # the YAML says it; there is no run
        group.add_argument("--run", metavar="FOLDER", help=f"run folder (default: {DEFAULT_RUN})")
    if command.name != "demo":
        hidden = argparse.SUPPRESS if command.name in ("run", "report", "tune") else None
        group.add_argument("--only", metavar="ID,...", help=hidden or "work on these slides only")
        group.add_argument("--chunk", metavar="I/N", help=hidden or "work on the I-th of N parts (for job arrays)")
    logged = command.stage or command.name == "run"
    text = "keep a log for machines too: logs/run.jsonl, one JSON object a line"
    group.add_argument("--log-json", action="store_true", help=text if logged else argparse.SUPPRESS)
    group.add_argument("--quiet", action="store_true", help="say only what went wrong")
    group.add_argument("--debug", action="store_true", help="show tracebacks")


def _explain(error: WsiPipelineError, console: Console, debug: bool) -> None:
    head, *rest = str(error).split("\n")
    console.error("\n".join([head, *(f"       {line}" for line in rest)]))
    if debug:
        console.err.write("".join(traceback.format_exception(error)))


def _in_flags(error: WsiPipelineError, command: Command) -> WsiPipelineError:
    """A message about options names them as they are typed here; `run` reads them from a file."""
    if type(error) is UsageError and command.name != "run":
        names = (field.name for kind in command.options for field in dataclasses.fields(kind))
        error.what = quoting(error.what, {name: "--" + name.replace("_", "-") for name in names})
    return error


def _put_aside(error: WsiPipelineError) -> WsiPipelineError:
    """A damaged store that stopped a command is set aside, so that it can be made anew; then the error says so."""
    if not isinstance(error, DamagedStoreError):
        return error
    from wsi_pipeline.store.quarantine import set_aside

    return set_aside(error).with_traceback(error.__traceback__)


def _of_system(error: OSError) -> WsiPipelineError:
    """What the system refused, in a line, with the traceback kept for --debug."""
    where = f"{error.filename}: " if error.filename else ""
    told = WsiPipelineError(
        f"{where}{error.strerror or error}", todo="Check --run FOLDER, its disk and its permissions"
    )
    return told.with_traceback(error.__traceback__)


class Terminated(KeyboardInterrupt):
    """Told to end by SIGTERM, a cluster's way: as for Ctrl-C, workers stop and finished slides are kept."""
