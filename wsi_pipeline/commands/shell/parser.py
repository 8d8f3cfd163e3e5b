"""The parser of the command line, made from the catalogue of commands and the fields of their specs."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

import wsi_pipeline
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN
from wsi_pipeline.commands.catalogue import COMMANDS, Command
from wsi_pipeline.config.fields import value_type
from wsi_pipeline.wording import counted

_INTRO = """From a CSV of whole-slide images to a trained slide-level model:

  wsi-pipeline tile slides.csv               segment tissue, tile it into patches
  wsi-pipeline embed --model pathotune       compute features of the patches
  wsi-pipeline train-mil                     train a slide-level model, cross-validate it, write the report
"""
_EPILOG = """Results go to ./wsi-run (or --run FOLDER). Repeating a command redoes only what is missing or has changed.
Exit codes: 0 all done, 2 wrong usage, 3 some slides failed (listed at the end and in wsi-run/status/),
130 stopped by Ctrl-C, 143 by SIGTERM; finished work is kept."""
ALL = "--help-all"
LOG_JSON = "--log-json"
_OF_THE_WHOLE = ("run", "report", "tune", "compare", "similar", "robustness", "push", "encoders")
"""Commands that do not work on slides one by one: --only and --chunk mean nothing to them."""


class _Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line and one hint, as all errors of the program are."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where the options are listed; exit with code 2."""
        message = re.sub(r"^argument COMMAND .*?: invalid choice:", "unknown command", message)
        message = re.sub(r"^argument (\S+): ", r"\1: ", message)
        self.exit(2, f"error: {message}\n       See: {self.prog} --help\n")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of one command line. Exits, as argparse does, after --help or if an option is wrong."""
    parser = build_parser(everything=ALL in words)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse_unknown(args.command, unknown)
    return args


def _refuse_unknown(command: Command, unknown: Sequence[str]) -> NoReturn:
    word = unknown[0].partition("=")[0]
    fields = [field for kind in command.options for field in dataclasses.fields(kind)]
    similar = difflib.get_close_matches(word, [_flag(field.name) for field in fields], n=1)
    meant = f". Did you mean {similar[0]}?" if similar else ""
    what = "option" if word.startswith("-") else "argument"
    shown = ALL if any(field.metadata["rare"] for field in fields) else "--help"
    sys.stderr.write(f"error: unknown {what} {word}{meant}\n       See: wsi-pipeline {command.name} {shown}\n")
    raise SystemExit(2)


def build_parser(everything: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands. With `everything`, their help also shows rare options."""
    usage = "wsi-pipeline [-h] [--version] COMMAND ..."
    parser = _Parser(prog="wsi-pipeline", usage=usage, description=_INTRO, epilog=_EPILOG, formatter_class=_formatter)
    parser.add_argument("--version", action="version", version=f"wsi-pipeline {wsi_pipeline.__version__}")
    commands = parser.add_subparsers(title="commands", prog="wsi-pipeline", metavar="COMMAND ...", required=True)
    for command in COMMANDS:
        _add_command(commands, command, everything)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=118)


def _add_command(commands: Any, command: Command, everything: bool) -> None:
    fields = [(field, value_type(hint)) for kind in command.options for field, hint in _hinted(kind)]
    hidden = [_flag(field.name) for field, _ in fields if field.metadata["rare"]]
    hidden += [LOG_JSON] if hidden and _is_logged(command) else []
    more = f"\n{counted(len(hidden), 'more option')}: wsi-pipeline {command.name} {ALL}"
    parser = commands.add_parser(
        command.name,
        help=command.purpose,
        description=command.purpose[0].upper() + command.purpose[1:] + ".",
        epilog=f"example: {command.example}{more if hidden and not everything else ''}",
        usage=f"wsi-pipeline {command.name} [options] {_sources_usage(command)}".rstrip(),
        formatter_class=_formatter,
        allow_abbrev=False,
        add_help=False,
    )
    if command.sources:
        metavar, help_text = command.sources
        group = parser.add_argument_group("input")
        group.add_argument("sources", metavar=metavar, nargs="+" if command.needed else "*", help=help_text)
    groups: dict[str, Any] = {}
    for field, kind in fields:
        name = field.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        _add_option(groups[name], field, kind, hidden=field.metadata["rare"] and not everything)
    _add_common(parser.add_argument_group("all commands"), command, hidden, everything)
    parser.set_defaults(command=command)


def _sources_usage(command: Command) -> str:
    """`SLIDES`, in brackets if it may be left out, with dots if there may be several."""
    if command.sources is None:
        return ""
    metavar = command.sources[0] if command.single else f"{command.sources[0]} ..."
    return metavar if command.needed else f"[{metavar}]"


def _is_logged(command: Command) -> bool:
    return command.stage or command.name == "run"


def _hinted(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_option(group: Any, field: dataclasses.Field[Any], kind: type, hidden: bool) -> None:
    flag, meta = _flag(field.name), field.metadata
    text = argparse.SUPPRESS if hidden else _help_of(field, kind).replace("%", "%%")
    if kind is bool:
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        group.add_argument(flag, action=action, default=field.default, help=text)
        return
    choices = tuple(meta["choices"])
    group.add_argument(
        flag,
        type=kind,
        action="append" if meta["repeat"] or meta["several"] else "store",
        default=None if meta["repeat"] or meta["several"] else field.default,
        choices=choices or None,
        metavar=None if choices else meta["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT"),
        help=text,
    )


def _help_of(field: dataclasses.Field[Any], kind: type) -> str:
    """The field's help with its default: `... (0: none; default: 1000)`."""
    text, default = str(field.metadata["help"]), field.default
    if default in (None, "", ()) or (kind is bool and not default):
        return text
    shown = "yes" if kind is bool else f"{default:g}" if isinstance(default, float) else str(default)
    return f"{text[:-1]}; default: {shown})" if text.endswith(")") else f"{text} (default: {shown})"


def _add_common(group: Any, command: Command, hidden: Sequence[str], everything: bool) -> None:
    group.set_defaults(run=DEFAULT_RUN, only=None, chunk=None)
    if command.name not in ("run", "demo"):  # the YAML names it; a demo belongs to no run
        text = argparse.SUPPRESS if command.name == "encoders" else f"run folder (default: {DEFAULT_RUN})"
        group.add_argument("--run", metavar="FOLDER", help=text)
    if command.name != "demo":
        unused = argparse.SUPPRESS if command.name in _OF_THE_WHOLE else None
        group.add_argument("--only", metavar="ID,...", help=unused or "process these slides only")
        group.add_argument("--chunk", metavar="I/N", help=unused or "process the I-th of N parts (for job arrays)")
    text = "write a second log, logs/run.jsonl, with one JSON object per line"
    shown = _is_logged(command) and (everything or LOG_JSON not in hidden)
    group.add_argument(LOG_JSON, action="store_true", help=text if shown else argparse.SUPPRESS)
    group.add_argument("--quiet", action="store_true", help="print errors only")
    group.add_argument("--debug", action="store_true", help="print tracebacks")
    group.add_argument("-h", "--help", action="help", help="show this help and exit")
    if hidden:
        group.add_argument(ALL, action="help", help="show all options and exit")
