"""Fields of a spec, defined once for CLI, YAML, stores and digests: default, help, group, choices and check.

A spec is a frozen dataclass whose fields are made by `option`. It determines the command-line options, the
keys of cohort.yaml, the JSON in a store's attributes and the digest. Options that several commands share are in
`config.shared`, so that none is defined twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, cast

from wsi_pipeline.errors import UsageError
from wsi_pipeline.registry import Registry

S = TypeVar("S")
Check = Callable[[Any], bool]
_SHOWN = 80
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def option(
    default: Any,
    help: str,
    *,
    group: str = "options",
    choices: tuple[str, ...] | Registry[Any] = (),
    check: tuple[str, Check] | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    rare: bool = False,
) -> Any:
    """A spec field: `help` is one line with the unit, `check` is (what is expected, test of the value).

    default  a tuple means several texts (tuple[str, ...]): a repeated option on the command line, a list in YAML
    choices  the values allowed: words, or the names of a registry
    repeat   whether the option may be given more than once, see `commands.shell.sections`
    rare     whether the option is shown only by --help-all
    """
    metadata = {
        "help": help, "group": group, "choices": choices, "check": check, "metavar": metavar, "repeat": repeat,
        "several": isinstance(default, tuple), "rare": rare,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def at_least(low: float) -> tuple[str, Check]:
    """A check that the value is a number >= `low`."""
    return f">= {low}", lambda value: value >= low


def between(low: float, high: float) -> tuple[str, Check]:
    """A check that the value lies in [low, high]."""
    return f"between {low} and {high}", lambda value: low <= value <= high


def validate(spec: Any) -> None:
    """Check every field of a spec: type, choices, range. For use in `__post_init__`.

    Raises UsageError such as `patch_px must be >= 16, got 0`.
    """
    hints = typing.get_type_hints(type(spec))
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.metadata.get("several"):
            _check_texts(field.name, value)
            continue
        _check_type(field.name, value, hints[field.name])
        choices, check = field.metadata.get("choices"), field.metadata.get("check")
        if isinstance(choices, Registry):
            choices.check(value)
        elif choices and value not in choices:
            raise UsageError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}")
        if check and value is not None and not check[1](value):
            raise UsageError(f"{field.name} must be {check[0]}, got {value}")


def value_type(hint: Any) -> type:
    """The plain type behind a hint: `float | None` -> float, `tuple[str, ...]` -> str. Specs have no other types."""
    if typing.get_origin(hint) is tuple:
        return str
    members = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return cast(type, members[0] if is_union else hint)


def _check_texts(name: str, value: Any) -> None:
    if not isinstance(value, tuple):
        raise UsageError(f"{name} must be a text or a list of texts, got {repr(value)[:_SHOWN]}")
    for item in value:
        _check_type(name, item, str)
        if not item.strip():
            raise UsageError(f"{name} must not be empty")
    twice = next((item for item in value if value.count(item) > 1), None)
    if twice is not None:
        raise UsageError(f"{name} names {twice} twice")


def _check_type(name: str, value: Any, hint: Any) -> None:
    if value is None and type(None) in typing.get_args(hint):
        return
    wanted = value_type(hint)
    allowed: tuple[type, ...] = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        todo = "Write it in quotation marks" if wanted is str and isinstance(value, bool | int | float) else None
        raise UsageError(f"{name} must be of type {wanted.__name__}, got {repr(value)[:_SHOWN]}", todo=todo)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, got {value}")


def from_mapping(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Make a spec from a mapping (a YAML section, a store's JSON). `where` names the source for messages.

    Dashes and underscores in keys are equivalent. Raises UsageError for unknown keys, naming the known ones; messages
    quote keys as written in the source.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(cast(Any, kind))}
    written = keys_of(values, known, where)
    several = {field.name for field in dataclasses.fields(cast(Any, kind)) if field.metadata.get("several")}
    given = {
        key: _as_texts(values[name]) if key in several else _as_number(values[name], hints[key])
        for key, name in written.items()
    }
    try:
        return kind(**given)
    except UsageError as error:
        raise UsageError(f"{where}: {quoting(error.what, written)}", todo=error.todo) from None


def options_of(kinds: Iterable[type], values: Mapping[Any, Any], where: str) -> tuple[Any, ...]:
    """One object of each kind from a section; a key sets the field of every kind that has it. See `from_mapping`."""
    names = {kind: {field.name for field in dataclasses.fields(cast(Any, kind))} for kind in kinds}
    written = keys_of(values, set().union(*names.values()), where)
    parts = {kind: {written[name]: values[written[name]] for name in written if name in names[kind]} for kind in names}
    return tuple(from_mapping(kind, part, where) for kind, part in parts.items())


def keys_of(values: Mapping[Any, Any], known: Collection[str], where: str) -> dict[str, Any]:
    """Match the keys of `values` to the `known` names, treating dashes as underscores: name -> key.

    Raises UsageError for unknown keys and for two keys of the same option, quoting them as written.
    """
    names = {name.replace("-", "_"): name for name in known}
    unknown = [str(key) for key in values if str(key).replace("-", "_") not in names]
    if unknown:
        raise UsageError(f"{where}: unknown key {', '.join(unknown)}", todo=f"Known keys: {', '.join(sorted(known))}")
    found: dict[str, Any] = {}
    for key in values:
        name = names[str(key).replace("-", "_")]
        if name in found:
            raise UsageError(f"{where}: {found[name]} and {key} are the same key", todo="Write it once")
        found[name] = key
    return found


def quoting(message: str, written: Mapping[str, Any]) -> str:
    """Rewrite a message so that it has the option names as the user wrote them; `written` is name -> as written.

    Names of one word are also common words: they are replaced only at the start of a message.
    """
    for name, shown in written.items():
        pattern = rf"(?<![\w/-]){name}(?![\w/-])" if "_" in name else rf"^{name}(?= )"
        message = re.sub(pattern, lambda _, shown=shown: str(shown), message)  # type: ignore[misc]
    return message


def _as_texts(value: Any) -> Any:
    """A list of texts, or one text, as a tuple; an empty tuple for None."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _as_number(value: Any, hint: Any) -> Any:
    """Convert texts such as `1e-4` to numbers: YAML 1.1 reads them as text unless written `1.0e-4`."""
    is_number = isinstance(value, str) and value_type(hint) is float and _EXPONENT.fullmatch(value)
    return float(value) if is_number else value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give the same bytes; dataclasses become objects."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)


def digest_of(**parts: Any) -> str:
    """SHA-256 (hex) over named parts: specs, parent digests, fingerprints. Any change changes it."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in a digest")
