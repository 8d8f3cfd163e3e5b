"""Which files in a local folder hold the weights: one safetensors file, or the shards that an index names."""

from __future__ import annotations

import json
from pathlib import Path

from wsi_pipeline.encoders.weights import CONVERT
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import listed

SAFE_FILE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = (".bin", ".pth", ".pt", ".tar", ".ckpt")


def folder_weights(folder: Path) -> tuple[Path, ...]:
    """`model.safetensors`, or the shards named in `model.safetensors.index.json`, in order of name.

    Raises EncoderError that names what the folder holds instead: pickled weights, shards without an index, an index
    without all of its shards, or safetensors files of another name.
    """
    if (folder / SAFE_FILE).is_file():
        return (folder / SAFE_FILE,)
    if (folder / SAFE_INDEX).is_file():
        return _all_shards(folder)
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    safe = [name for name in names if name.endswith(".safetensors")]
    if any("-of-" in name for name in safe):
        raise EncoderError(
            f"{folder} has {listed(safe)} but no {SAFE_INDEX}",
            todo=f"Copy {SAFE_INDEX} of the model into the folder too.",
        )
    if safe:
        raise EncoderError(
            f"{folder} has {listed(safe)} but no {SAFE_FILE}",
            todo=f"Name the weights of the model, e.g. --weights {folder / safe[0]}",
        )
    pickled = [name for name in names if name.endswith(_PICKLED)]
    if pickled:
        raise EncoderError(
            f"{folder} has {listed(pickled)} but no {SAFE_FILE}: pickled weights are not opened",
            todo=CONVERT.replace("pytorch_model.bin", pickled[0]),
        )
    raise EncoderError(f"{folder} has no {SAFE_FILE}", todo=CONVERT)


def shards_in(index: Path) -> list[str]:
    """Names of the shards in an index, sorted. Raises EncoderError if it is not one."""
    try:
        listed_in = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in listed_in.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names = []
    if not names:
        raise EncoderError(f"{index} is not an index of shards: it has no weight_map", todo="Fetch the file again.")
    return names


def _all_shards(folder: Path) -> tuple[Path, ...]:
    shards = [folder / Path(name).name for name in shards_in(folder / SAFE_INDEX)]
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise EncoderError(
            f"{folder} lacks {listed(missing)} of the {len(shards)} shards that {SAFE_INDEX} names",
            todo="Copy all files of the model into this folder.",
        )
    return tuple(shards)
