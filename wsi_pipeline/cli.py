"""The command line: runs one command, explains errors in two lines, returns the exit code.

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
from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.catalogue import Command
from wsi_pipeline.commands.shell.console import Console
from wsi_pipeline.commands.shell.parser import parse
from wsi_pipeline.config.fields import quoting
from wsi_pipeline.errors import DamagedStoreError, UsageError, WsiPipelineError
from wsi_pipeline.files.addresses import is_address, named_address
from wsi_pipeline.system.locks import clear_stale
from wsi_pipeline.system.machine import prepare_process
from wsi_pipeline.system.termination import raise_on_ctrl_c, raise_on_sigterm

EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare_process()
    raise_on_sigterm(Terminated)
    raise_on_ctrl_c()
    if isinstance(sys.stdout, io.TextIOWrapper):  # like standard error: unencodable characters must not stop the work
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = parse(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    console = Console(quiet=args.quiet)
    try:
        return _run(args, words, console)
    except WsiPipelineError as error:
        _explain(_put_aside(_in_flags(error, args.command)), console, args.debug)
        return EXIT_USAGE
    except OSError as error:  # not about one slide (the runner handles those): e.g. a full disk
        _explain(_of_system(error), console, args.debug)
        return EXIT_USAGE
    except KeyboardInterrupt as stop:
        console.error("stopped; finished work is kept, and the same command continues from there")
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


def _run(args: argparse.Namespace, words: list[str], console: Console) -> int:
    from wsi_pipeline.commands.shell.logfile import log_to
    from wsi_pipeline.commands.shell.request import Request, parse_chunk
    from wsi_pipeline.commands.shell.sections import split_sections

    command: Command = args.command
    if is_address(args.run):
        raise UsageError(
            f"--run must be a folder of this machine, got {named_address(args.run)}",
            todo="Only slides are read from addresses; copy the finished run there.",
        )
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
    if command.stage or command.name in ("import", "export"):  # these lock slides, too
        clear_stale(run_dir.locks)
    with log_to(kept, request.command, console.note, json_path=kept_json if args.log_json else None):
        try:
            return int(handler(request))
        except WsiPipelineError as error:
            logging.getLogger(__name__).error("%s", error, exc_info=error)
            raise


def _explain(error: WsiPipelineError, console: Console, debug: bool) -> None:
    head, *rest = str(error).split("\n")
    console.error("\n".join([head, *(f"       {line}" for line in rest)]))
    if debug:
        console.err.write("".join(traceback.format_exception(error)))


def _in_flags(error: WsiPipelineError, command: Command) -> WsiPipelineError:
    """The error with options named as flags; `run` reads them from a file and keeps the YAML keys."""
    if type(error) is UsageError and command.name != "run":
        names = (field.name for kind in command.options for field in dataclasses.fields(kind))
        error.what = quoting(error.what, {name: "--" + name.replace("_", "-") for name in names})
    return error


def _put_aside(error: WsiPipelineError) -> WsiPipelineError:
    """Set aside a damaged store that stopped a command, so that it can be recomputed; the error then says so."""
    if not isinstance(error, DamagedStoreError):
        return error
    from wsi_pipeline.store.quarantine import set_aside

    return set_aside(error).with_traceback(error.__traceback__)


def _of_system(error: OSError) -> WsiPipelineError:
    """An error of the operating system in one line, with the traceback kept for --debug."""
    place = f"{error.filename}: " if error.filename else ""
    explained = WsiPipelineError(
        f"{place}{error.strerror or error}", todo="Check --run FOLDER, its disk and its permissions"
    )
    return explained.with_traceback(error.__traceback__)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as sent by cluster schedulers: like Ctrl-C, workers stop and finished slides are kept."""
