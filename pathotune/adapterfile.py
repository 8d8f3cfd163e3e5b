"""Read and write the bytes of an adapter file: safetensors, float32 only, with a header of bounded size.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the tensors
(https://github.com/huggingface/safetensors, section Format). The header's `__metadata__` has a single entry,
`pathotune`, which holds JSON text: safetensors writes several entries in random order, and equal models should give
equal files. A file may come from a stranger, so everything is checked; reading takes no more memory than the limit on
the header.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from safetensors.torch import save
from torch import Tensor

from pathotune.errors import AdapterError

FORMAT, VERSION = "pathotune-adapter", 2
READABLE = (1, 2)
"""Format versions this program reads; it writes the last. Version 2 may hold `ttp.text` for the text projection."""
ENTRY = "pathotune"
MAX_HEADER = 4 << 20
_MAX_AXES = 8
_REMAKE = "Use the file as it was saved, or tune again."


@dataclass(frozen=True)
class RawAdapter:
    """Header of an adapter file: shapes by name, the JSON document in its metadata, total bytes of the tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    document: Mapping[str, Any]
    nbytes: int


def read_raw(path: Path, kind: str = FORMAT) -> RawAdapter:
    """Read and check the header only. Raises AdapterError unless the file is of this kind and version."""
    header, start = _header(path)
    metadata = header.pop("__metadata__", None)
    text = metadata.get(ENTRY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise AdapterError(f"{path} is not an adapter file: its header has no entry {ENTRY}", todo=_REMAKE)
    document = _parse(text, path)
    if document.get("format") != kind:
        raise AdapterError(f"{path} is not an adapter file: format {document.get('format')!r}", todo=_REMAKE)
    if document.get("version") not in READABLE:
        raise AdapterError(
            f"{path} is of format version {document.get('version')!r}; this program reads versions up to {VERSION}",
            todo="Use the version of wsi-pipeline that wrote it, or tune again.",
        )
    shapes, nbytes = _layout(header, path)
    if path.stat().st_size != start + nbytes:
        raise AdapterError(f"{path} is damaged: its length does not match its header", todo=_REMAKE)
    return RawAdapter(shapes, document, nbytes)


def write_raw(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any], kind: str = FORMAT) -> None:
    """Write a file of this kind, completely or not at all. Raises AdapterError if the document is not JSON."""
    try:
        text = json.dumps({"format": kind, "version": VERSION, **document}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"metrics and provenance must be JSON values: {error}") from None
    if len(text) > MAX_HEADER // 2:
        raise AdapterError(f"metrics and provenance must be at most {MAX_HEADER // 2} characters, got {len(text)}")
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # safetensors' own writer makes files that only their owner can read, but cohorts are often shared by a group.
        with temporary.open("wb") as file:
            file.write(save(state, metadata={ENTRY: text}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's JSON object and the byte offset of the tensors."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= MAX_HEADER:
                raise AdapterError(
                    f"{path} is not an adapter file: its header must have 1 to {MAX_HEADER} bytes, got {length}",
                    todo=_REMAKE,
                )
            raw = file.read(length)
    except OSError as error:
        raise AdapterError(f"adapter file {path} cannot be read: {error.strerror or error}") from None
    try:
        return _parse(raw.decode("utf-8"), path), 8 + length
    except UnicodeDecodeError:
        raise AdapterError(f"{path} is not an adapter file: its header is not text", todo=_REMAKE) from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    """A JSON object. NaN and duplicate keys are refused."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not an adapter file: its header is not JSON: {error}", todo=_REMAKE) from None
    if not isinstance(value, dict):
        raise AdapterError(f"{path} is not an adapter file: its header is not an object", todo=_REMAKE)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _layout(header: Mapping[str, Any], path: Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """Shapes by name and total bytes. Tensors must follow one another without gap or overlap."""
    shapes: dict[str, tuple[int, ...]] = {}
    spans = []
    for name, facts in header.items():
        shape, span = _entry(name, facts, path)
        shapes[name] = shape
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise AdapterError(f"{path} is damaged: its tensors overlap or leave gaps", todo=_REMAKE)
        end = stop
    return shapes, end


def _entry(name: str, facts: Any, path: Path) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Shape and byte range (begin, end) of one tensor."""
    given = facts if isinstance(facts, dict) else {}
    shape, span = _whole_numbers(given.get("shape")), _whole_numbers(given.get("data_offsets"))
    if shape is None or span is None or len(span) != 2 or len(shape) > _MAX_AXES:
        raise AdapterError(f"{path} is damaged: the entry of {name!r} in its header cannot be read", todo=_REMAKE)
    if given.get("dtype") != "F32":
        raise AdapterError(f"{path}: {name} must be float32, got {given.get('dtype')!r}", todo=_REMAKE)
    if span[1] - span[0] != 4 * math.prod(shape):
        raise AdapterError(f"{path} is damaged: the size of {name} does not match its shape {shape}", todo=_REMAKE)
    return shape, (span[0], span[1])


def _whole_numbers(values: Any) -> tuple[int, ...] | None:
    """A list of whole numbers as a tuple; None for anything else."""
    if isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        return tuple(values)
    return None
