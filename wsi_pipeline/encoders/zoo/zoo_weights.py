"""Weights of the zoo: where they are, under the names that this package's networks use, and converted from pickle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol

from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.weights import misfits, read_tensors
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import first_line, listed

if TYPE_CHECKING:
    import torch

SAFE_FILE = "model.safetensors"
_READ_FAULTS = (
    UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip
"""What torch.load raises for files that are damaged, or hold more than tensors."""
_WRAPPERS = ("model", "state_dict", "teacher")
"""Keys under which training code keeps the tensors of a network, the outermost first."""


class Published(Protocol):
    """What is known about a published encoder of patches (`facts.Preset`) or of slides: see encoders.toml."""

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def repo(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def gate(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def pickled(self) -> bool: ...
    @property
    def prefix(self) -> str: ...
    @property
    def ignore(self) -> tuple[str, ...]: ...
    @property
    def rename(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def lora(self) -> float: ...


def find_weights(preset: Published, given: Path | None) -> Path:
    """The weights file: as given (a file, or a folder with model.safetensors), else cached, else from the hub.

    Raises EncoderError, saying which file is needed and where it is, if there is none.
    """
    if given is not None:
        return _in_folder(preset, given) if given.is_dir() else given
    found = cached_weights(preset)
    if found is not None:
        return found
    if not preset.repo or (preset.pickled and hub.is_offline()):
        raise _not_here(preset)
    fetched = hub.fetch_if_there(hub.HubFile(preset.repo, SAFE_FILE))
    if fetched is None:
        raise _not_here(preset)
    return fetched


def cached_weights(preset: Published) -> Path | None:
    """The preset's weights in the Hugging Face cache, in safetensors form, or None."""
    return hub.find_cached(hub.HubFile(preset.repo, SAFE_FILE)) if preset.repo else None


def how_to_get(preset: Published) -> str:
    """How to get weights that `--model NAME` can use, in one or two sentences."""
    ask = f"ask for access at {preset.where}, then d" if preset.gate == "request" else "d"
    if not preset.file:
        advice = (
            f"{ask}ownload model.safetensors from {preset.where}, or let it be downloaded; if it has pickled weights "
            f"alone, turn them into {preset.stem}.safetensors with: wsi-pipeline encoders {preset.name} --convert FILE"
        )
    elif not preset.pickled:
        advice = f"{ask}ownload {preset.file} from {preset.where}, or let it be downloaded"
    else:
        advice = (
            f"{ask}ownload {preset.file} from {preset.where}; turn it into {preset.stem}.safetensors "
            f"with: wsi-pipeline encoders {preset.name} --convert {preset.file}"
        )
    return f"{advice[0].upper()}{advice[1:]}; name it with --weights FILE."


def load_published(network: Any, preset: Published, file: Path) -> None:
    """Load a published weights file into a network of its layout, which may rename or join tensors (`adapt`).

    Raises EncoderError with how to get the right file, unless every tensor fits.
    """
    network.load_state_dict(published_state(network, preset, read_tensors([file]), file), strict=False)


def published_state(
    network: Any, preset: Published, given: Mapping[str, torch.Tensor], source: Path
) -> dict[str, torch.Tensor]:
    """The tensors of a published file as the state of a network of its layout, which may be on device `meta`.

    Raises EncoderError, naming the first that are missing, left over or of another shape, and how to get the file.
    """
    tensors = encoder_tensors(preset, given)
    if hasattr(network, "adapt"):
        tensors = network.adapt(tensors)
    unfit = misfits(network.state_dict(), tensors)
    if unfit:
        raise EncoderError(f"{source} does not fit {preset.title}: tensors {unfit}", todo=how_to_get(preset))
    return tensors


def encoder_tensors(preset: Published, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a published file that belong to the encoder, under the names of its network.

    Raises EncoderError if two tensors of one name differ: layers that share their weights may be saved more than once.
    """
    given = _joined(given, preset.lora) if preset.lora else given
    kept = {name: value for name, value in given.items() if not any(re.search(each, name) for each in preset.ignore)}
    named: dict[str, torch.Tensor] = {}
    for name, value in kept.items():
        short = name.removeprefix(preset.prefix)
        for pattern, new in preset.rename:
            short = re.sub(pattern, new, short)
        if short in named and not named[short].equal(value):
            raise EncoderError(f"{preset.title} shares {short} between layers, and {name} differs from it")
        named[short] = value
    return named


def _joined(given: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """Tensors with each low-rank adapter (names of peft) added to its layer: W + scale * B A."""
    joined: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    for name, value in given.items():
        module, mark, last = name.partition(".base_layer.")
        pair = [f"{module}.lora_{part}.default.weight" for part in "BA"]
        if last == "weight" and all(each in given for each in pair):
            up, down = (given[each] for each in pair)
            value = value + scale * (up @ down)
            used |= set(pair)
        joined[f"{module}.{last}" if mark else name] = value
    return {name: value for name, value in joined.items() if name not in used}


Check = Callable[[Mapping[str, "torch.Tensor"], Path], None]
"""Raises EncoderError unless tensors, read from a file, are the weights of an encoder."""


def convert(preset: Published, pickled: Path, check: Check) -> Path:
    """Write the tensors of a pickled checkpoint as STEM.safetensors beside it; returns that file.

    The checkpoint is read with torch's weights-only loader, which makes nothing but tensors and plain containers.
    Raises EncoderError for a file that needs more than that, holds no tensors, does not pass `check`, or is already
    converted; nothing is written then.
    """
    from safetensors.torch import save_file

    target = pickled.with_name(f"{preset.stem}.safetensors")
    if target.exists():
        raise EncoderError(f"{target} already exists", todo="Use it with --weights, or remove it first.")
    tensors = checkpoint_tensors(
        pickled, "Only checkpoints of tensors are converted; ask its authors for a safetensors file."
    )
    check(tensors, pickled)
    part = target.with_name(f"{target.name}.part")
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, part)
    part.replace(target)
    return target


def checkpoint_tensors(pickled: Path, todo: str) -> dict[str, torch.Tensor]:
    """The tensors of a pickled checkpoint by name, read with torch's weights-only loader.

    Raises EncoderError, with `todo` as advice, for a file that is missing, needs more than that loader, or holds none.
    """
    import torch

    try:
        content: Any = torch.load(pickled, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EncoderError(f"--convert {pickled} does not exist") from None
    except _READ_FAULTS as error:
        raise EncoderError(f"{pickled} cannot be read as tensors alone: {_unread(error)}", todo=todo) from None
    tensors = _tensors_in(content, torch.Tensor)
    if not tensors:
        raise EncoderError(f"{pickled} holds no tensors by name")
    return tensors


def _tensors_in(content: Any, kind: type) -> dict[str, Any]:
    for _ in range(len(_WRAPPERS)):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content, dict) and key in content), None)
        if not isinstance(inner, dict):
            break
        content = inner
    if not isinstance(content, dict):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, kind)}


def _in_folder(preset: Published, folder: Path) -> Path:
    for name in (SAFE_FILE, f"{preset.stem}.safetensors"):
        if (folder / name).is_file():
            return folder / name
    pickled = [path.name for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pth", ".pt", ".tar")]
    what = f"{folder} has no {SAFE_FILE}" + (
        f", only {listed(pickled)}: pickled weights are not opened" * bool(pickled)
    )
    raise EncoderError(what, todo=how_to_get(preset))


def _not_here(preset: Published) -> EncoderError:
    published = f"; they are published as {preset.file}, a pickled file" if preset.pickled else ""
    return EncoderError(
        f"the weights of {preset.name} ({preset.title}) are not in the Hugging Face cache{published}",
        todo=how_to_get(preset),
    )


def _unread(error: Exception) -> str:
    """Why the weights-only loader failed. Its own first line advises to load the file without that safeguard."""
    if "Weights only load failed" not in str(error):
        return first_line(error)
    found = str(error).partition("WeightsUnpickler error: ")[2].splitlines()
    return "it holds other objects, or is not a PyTorch checkpoint" + (f" ({found[0].strip()})" if found else "")
