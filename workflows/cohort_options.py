"""Sections of the configuration as checked options of a command, and these as command-line words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from wsi_pipeline.commands.catalogue import COMMANDS
from wsi_pipeline.config.fields import options_of
from wsi_pipeline.errors import UsageError

S = TypeVar("S")


@dataclass(frozen=True)
class Call:
    """What a command is told: one object per option dataclass of the command."""

    options: tuple[Any, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """The options as command-line words; those left at their defaults are not spelled."""
        return tuple(word for item in self.options for word in _flags(item))

    @property
    def gpus(self) -> int:
        """How many GPUs the command uses: 1 where it is told `device: cuda`, as many as `devices` names, else 0."""
        return max((_gpus(item) for item in self.options), default=0)

    def get(self, kind: type[S]) -> S:
        """The options of one kind, which the command must have."""
        return next(item for item in self.options if isinstance(item, kind))

    def as_command(self, command: str) -> Call:
        """The options that another command shares with this one."""
        return Call(tuple(item for item in self.options if type(item) in _kinds(command)))


def read_section(command: str, section: Any) -> Call:
    """Options of `command` from its section (a mapping; nothing means defaults). Dashes in keys equal underscores.

    Raises UsageError for unknown keys and impossible values, naming the section.
    """
    where = f"configuration, {command}"
    if section is not None and not isinstance(section, Mapping):
        raise UsageError(f"{where}: must hold option names and values, got {section!r}")
    return Call(options_of(_kinds(command), section or {}, where))


def _kinds(command: str) -> tuple[Any, ...]:
    return next(item.options for item in COMMANDS if item.name == command)


def _gpus(options: Any) -> int:
    names = [name.strip() for name in str(getattr(options, "devices", None) or "").split(",")]
    if len(names) == 1 and names[0].isdigit():
        return int(names[0])
    return len({name for name in [*names, str(getattr(options, "device", ""))] if name.startswith("cuda")})


def _flags(options: Any) -> Iterator[str]:
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        elif isinstance(value, tuple):
            yield from (f"--{flag}={item}" for item in value)
        else:
            yield f"--{flag}={value}"
