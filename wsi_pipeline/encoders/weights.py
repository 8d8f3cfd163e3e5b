"""Safetensors files: identity without a framework, reading into fp32, and a strict fit to a model.

Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the bytes
(https://github.com/huggingface/safetensors, section Format). Pickled weights are never opened.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import listed

if TYPE_CHECKING:
    import torch

_MAX_HEADER = 100_000_000
_BLOCK = 1 << 22
CONVERT = (
    "Provide a .safetensors file and name it with --weights FILE. A PyTorch checkpoint that you trust is converted by: "
    "safetensors.torch.save_file(torch.load('pytorch_model.bin', weights_only=True), 'model.safetensors')"
)


@dataclass(frozen=True)
class TensorEntry:
    """Place of one tensor in a file: its safetensors type, shape, first byte and byte count."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Names and places of the tensors in a safetensors file.

    Raises EncoderError when the file is missing, cut short, or of another format.
    """
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            header = json.loads(file.read(length)) if 0 < length <= _MAX_HEADER else None
        size = path.stat().st_size
    except FileNotFoundError:
        raise EncoderError(f"weights file {path} is missing", todo=CONVERT) from None
    except OSError as error:
        raise EncoderError(f"weights file {path} cannot be read: {error}") from None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise EncoderError(f"{path} is not a safetensors file", todo=CONVERT)
    entries = {name: _entry(path, 8 + length, facts) for name, facts in header.items() if name != "__metadata__"}
    if not entries or max(entry.start + entry.nbytes for entry in entries.values()) != size:
        raise EncoderError(f"{path} is damaged: its length does not match its header", todo="Fetch the file again.")
    return entries


def hash_tensors(files: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names, types, shapes and bytes of all tensors, in order of name.

    Does not depend on file names, on the order of tensors in a file, on shards, or on the metadata block.
    """
    entries: dict[str, TensorEntry] = {}
    for path in files:
        entries.update(read_header(path))
    digest = hashlib.sha256()
    for name in sorted(entries):
        entry = entries[name]
        digest.update(json.dumps([name, entry.dtype, list(entry.shape)]).encode())
        with entry.file.open("rb") as file:
            file.seek(entry.start)
            left = entry.nbytes
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise EncoderError(f"{entry.file} was cut short while it was read")
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def read_tensors(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """All tensors of the files on the CPU; half precision is raised to float32, integers stay."""
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for path in files:
        read_header(path)
        tensors.update(load_file(path))
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


@dataclass(frozen=True)
class Fit:
    """How given tensors fit the wanted ones: names that are missing, extra, or of another shape."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def good(self) -> bool:
        """True when every wanted tensor is there in its shape."""
        return not self.missing and not self.reshaped


def compare(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> Fit:
    """Compare a model's state with tensors from a file. BatchNorm's step counters may be missing."""
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in wanted]
    reshaped = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    return Fit(tuple(missing), tuple(extra), tuple(reshaped))


def misfits(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    """What keeps tensors from being the state of a model, the first of each kind by name; "" if nothing does."""
    fit = compare(wanted, given)
    reshaped = [f"{key}: {_shape(given[key])} instead of {_shape(wanted[key])}" for key in fit.reshaped]
    faults = (("missing", fit.missing), ("of another shape", reshaped), ("not in the model", fit.extra))
    return "; ".join(f"{len(names)} {kind} ({listed(names)})" for kind, names in faults if names)


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one value"


def _entry(path: Path, data_start: int, facts: Any) -> TensorEntry:
    try:
        begin, end = (int(value) for value in facts["data_offsets"])
        shape = tuple(int(value) for value in facts["shape"])
        entry = TensorEntry(path, str(facts["dtype"]), shape, data_start + begin, end - begin)
    except (KeyError, TypeError, ValueError):
        raise EncoderError(f"{path} is damaged: its header is not that of a safetensors file", todo=CONVERT) from None
    if begin < 0 or end < begin:
        raise EncoderError(f"{path} is damaged: a tensor ends before it begins", todo="Fetch the file again.")
    return entry
