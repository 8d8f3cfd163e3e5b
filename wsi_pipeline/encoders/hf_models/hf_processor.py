"""The preprocessing of a Hugging Face model, measured on the image processor of transformers itself.

Each class of processor has its own defaults for what the file leaves out, and its own steps (channels in another order,
a second division, a frame). So it is built as transformers builds it and probed with a few small images: how
bytes become numbers, in which order the channels come, and where it crops. That is then reproduced here, to the
pixel, or refused with a reason.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.encoders.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo, Triple
from wsi_pipeline.encoders.torch_encoder import prepare
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import counted, first_line

log = logging.getLogger(__name__)
auto: Any = transformers
"""transformers types only a part of its functions."""

CONFIG, PROCESSOR, NESTED = "config.json", "preprocessor_config.json", "processor_config.json"
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters in the order of Pillow's codes."""
_COLOURS = np.array(
    [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (51, 102, 204), (7, 3, 1)], np.uint8
)
_FAULTS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ImportError, OSError)
"""What transformers raises for files and arguments that do not fit."""
_COMMON = ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb")
_RGB = (0, 1, 2)
_NO_CODE = "Processors that need custom code are not run; look for a timm version (hf-hub:ORG/NAME)."


@dataclass(frozen=True)
class Preprocessing:
    """How a patch is prepared for the network.

    side           of the square that the network gets, in pixels; None: not stated
    mean, std      of the patch's own channels, scaled to 0..1
    interpolation  filter of the resize
    order          which channel of the patch the network gets first, second and third
    resize_px      side before the cut, or within a black frame; None: neither
    corner_px      first row and column of the cut
    """

    side: int | None
    mean: Triple
    std: Triple
    interpolation: str
    order: tuple[int, int, int] = _RGB
    resize_px: int | None = None
    corner_px: int | None = None

    def resized_to(self, side: int) -> Preprocessing:
        """The same for a network with another input size: whole patches, resized."""
        return replace(self, side=side, resize_px=None, corner_px=None)

    def beyond_the_usual(self) -> dict[str, Any]:
        """What the fingerprint needs besides side, mean, std and filter; empty for most encoders."""
        facts = {"order": self.order, "resize_px": self.resize_px, "corner_px": self.corner_px}
        return {key: value for key, value in facts.items() if value not in (None, _RGB)}


def read_processor(
    name: str, config_file: Path, plain: Path | None, nested: Path | None, start_px: int
) -> Preprocessing:
    """What the image processor beside a model does to a square patch.

    plain     its preprocessor_config.json
    nested    its processor_config.json, which may hold the image processor of a larger one, and then comes first
    start_px  side of the probe images; it matters if the processor keeps the size

    Without either, ImageNet's mean and std are assumed, with a warning. Raises EncoderError for processors that
    transformers does not have and for those that do more than resize, crop and normalise, naming what.
    """
    config = read_json(config_file)
    facts = _nested(nested) or (None if plain is None else read_json(plain))
    if facts is None and "pretrained_cfg" not in config:
        log.warning("%s has no %s: ImageNet's mean and std are assumed", name, PROCESSOR)
        return Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD, "bicubic")
    processor = _build(name, config_file, facts)
    try:
        return _Measured(name, processor).preprocessing(start_px)
    except _FAULTS as error:
        raise EncoderError(
            f"{name}: its image processor {_called(processor)} does not turn a square RGB patch into one image: "
            f"{first_line(error)} ({_settings(processor)})",
            todo=f"Correct {PROCESSOR}, or choose another model.",
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises EncoderError for anything else."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return facts


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' reports and progress bars; what matters is checked and reported here."""
    verbosity, bars = auto.logging.get_verbosity(), auto.logging.is_progress_bar_enabled()
    auto.logging.set_verbosity_error()
    auto.logging.disable_progress_bar()
    try:
        yield
    finally:
        auto.logging.set_verbosity(verbosity)
        if bars:
            auto.logging.enable_progress_bar()


def _nested(path: Path | None) -> dict[str, Any] | None:
    inner = None if path is None else read_json(path).get("image_processor")
    return inner if isinstance(inner, dict) else None


def _build(name: str, config_file: Path, facts: Mapping[str, Any] | None) -> Any:
    """The image processor as transformers makes it from the files, in a folder that holds nothing else."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        shutil.copyfile(config_file, Path(folder, CONFIG))
        if facts is not None:
            Path(folder, PROCESSOR).write_text(json.dumps(facts), encoding="utf-8")
        kind, code = _kind(facts or {})
        try:
            built = auto.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except _FAULTS as error:
            reason = first_line(error).replace(folder, name)
            raise EncoderError(
                f"{name}: transformers {transformers.__version__} cannot build its image processor"
                f"{f' {kind}' if kind else ''}: {reason}",
                todo=_NO_CODE,
            ) from None
    if code is not None and _called(built) != (kind or "").removesuffix("Fast"):
        raise EncoderError(f"{name}: its image processor needs custom code ({code})", todo=_NO_CODE)
    return built


def _kind(facts: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The class of the processor and the custom code that a file names."""
    kind = facts.get("image_processor_type")
    older = str(facts.get("feature_extractor_type") or "").replace("FeatureExtractor", "ImageProcessor")
    codes = facts.get("auto_map")
    own = codes.get("AutoImageProcessor") or codes.get("AutoFeatureExtractor") if isinstance(codes, dict) else None
    return (str(kind) if kind else older or None), (str(own) if own else None)


class _Measured:
    """A processor, probed with small images."""

    def __init__(self, name: str, processor: Any) -> None:
        self._name = name
        self._processor = processor

    def preprocessing(self, start_px: int) -> Preprocessing:
        """Find its output size with images of `start_px`, then everything else at that size."""
        flat = np.broadcast_to(_COLOURS[:, None, None], (len(_COLOURS), start_px, start_px, 3))
        side = self._pixels(flat[:1]).shape[-1]
        seen = self._pixels(np.broadcast_to(_COLOURS[:, None, None], (len(_COLOURS), side, side, 3)))
        if seen.shape[-1] != side:
            raise self._refused(f"it makes {seen.shape[-1]} x {seen.shape[-1]} of {side} x {side} pixels")
        mean, std, order = self._colours(seen[:, :, side // 2, side // 2])
        usual = Preprocessing(side, mean, std, self._filter(), order)
        across = np.abs(seen[4, 0, side // 2] - seen[4, 0, side // 2, side // 2])
        return self._with_cut(usual, int((across < 1e-4 * (np.ptp(seen) or 1.0)).sum()))

    def _pixels(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(B, 3, S, S) as the processor gives them."""
        pictures = [Image.fromarray(np.ascontiguousarray(image)) for image in images]
        with quiet():
            given = self._processor(images=pictures, return_tensors="pt")
        if "pixel_values" not in given:
            raise self._refused(f"it gives {', '.join(given)}, not pixel_values")
        values = given["pixel_values"]
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else None
        if shape is None or len(shape) != 4 or shape[:2] != (len(images), 3):
            raise self._refused(f"{counted(len(images), 'patch')} come out as {shape or type(values).__name__}")
        if shape[2] != shape[3]:
            raise self._refused(f"it makes {shape[3]} x {shape[2]} pixels of a square patch")
        return np.asarray(values.double().numpy())

    def _colours(self, plain: NDArray[np.float64]) -> tuple[Triple, Triple, tuple[int, int, int]]:
        """Mean, std and order of the channels, from plain colours: each must come out straight and unmixed."""
        span = float(np.ptp(plain)) or 1.0
        shift, slopes = plain[0], (plain[1:4] - plain[0]).T / 255.0
        if not np.allclose(plain, _COLOURS @ slopes.T + shift, rtol=0, atol=1e-4 * span):
            raise self._refused("its output is not linear in the brightness of a pixel")
        large = np.abs(slopes) > 1e-4 * np.abs(slopes).max()
        if large.sum() != 3 or not (large.any(axis=0) & large.any(axis=1)).all():
            raise self._refused("it mixes the colour channels")
        order = tuple(int(channel) for channel in large.argmax(axis=1))
        scale = slopes[np.arange(3), order]
        if (scale <= 0).any():
            raise self._refused("it inverts brightness")
        back = np.argsort(order)
        std, mean = (1.0 / (255.0 * scale))[back], (-shift / (255.0 * scale))[back]
        return self._as_stated("image_mean", mean), self._as_stated("image_std", std), (order[0], order[1], order[2])

    def _as_stated(self, key: str, measured: NDArray[np.float64]) -> Triple:
        """The measured numbers without rounding errors: the processor's own where they agree."""
        stated = np.asarray(getattr(self._processor, key, None) or np.nan, float)
        candidates = [np.broadcast_to(stated, 3)] if stated.shape in ((), (1,), (3,)) else []
        candidates += [np.full(3, 1 / 255), np.array([float(f"{value:.6g}") for value in measured])]
        near = (each for each in candidates if np.allclose(each, measured, rtol=1e-6, atol=1e-9))
        first, second, third = (float(value) + 0.0 for value in next(near, measured))
        return first, second, third

    def _filter(self) -> str:
        code = getattr(self._processor, "resample", None)
        if code is None:
            code = (getattr(self._processor, "data_config", None) or {}).get("interpolation", "bilinear")
        named = str(getattr(code, "value", code)).removesuffix("-exact").lower()
        if named.isdecimal() and int(named) < len(_RESAMPLE):
            named = _RESAMPLE[int(named)]
        if named not in _RESAMPLE:
            raise self._refused(f"resample {code!r} is not a filter of Pillow")
        return named

    def _with_cut(self, usual: Preprocessing, inner_px: int) -> Preprocessing:
        """The preprocessing with its crop or frame, checked pixel by pixel at two patch sizes.

        `inner_px` pixels across the middle of a white patch come out white: fewer than all if there is a frame.
        """
        side = usual.side or 0
        patch = _pattern(side)
        seen = self._pixels(patch[None])
        framed = replace(usual, resize_px=inner_px)
        for candidate in [framed] if inner_px < side else self._cuts(usual, seen):
            if self._agrees(candidate, patch, seen):
                break
        else:
            reason = "it sets a frame around the patch" if inner_px < side else "it does not cut out the middle"
            raise self._refused(reason)
        other = _pattern(side + side // 7 + 1)
        larger = self._pixels(other[None])
        if larger.shape[-1] == side and not self._agrees(candidate, other, larger):
            raise self._refused(f"it treats patches of {len(other)} pixels in another way than patches of {side}")
        return candidate

    def _cuts(self, usual: Preprocessing, seen: NDArray[np.float64]) -> Iterator[Preprocessing]:
        """No crop, then the crops that fit the slope of a gradient across the patch."""
        yield usual
        side = usual.side or 0
        red = usual.order.index(0)
        line = seen[0, red].mean(axis=0)
        middle = slice(side // 4, side - side // 4)
        slope = np.polyfit(np.arange(side)[middle], line[middle], 1)[0] * 255.0 * usual.std[0]
        whole = 255.0 / max(side - 1, 1)
        if not 0.2 * whole < slope < 0.999 * whole:
            return
        near = round(side * whole / slope)
        for resized in sorted(range(near - 3, near + 4), key=lambda px: abs(px - near)):
            if resized > side:
                for corner in sorted({(resized - side) // 2, round((resized - side) / 2)}):
                    yield replace(usual, resize_px=resized, corner_px=corner)

    def _agrees(self, ours: Preprocessing, patch: NDArray[np.uint8], seen: NDArray[np.float64]) -> bool:
        """True where `prepare` and the processor agree, up to the rounding of a resized byte.

        DINOv3's processor does not round, which is half a step of 255 at most and a quarter on average.
        """
        info = EncoderInfo(self._name, "huggingface", ours.side, None, ours.mean, ours.std, 1, ours.interpolation,
                           resize_px=ours.resize_px, corner_px=ours.corner_px)  # fmt: skip
        images = prepare(patch[None], info, torch.device("cpu"))[:, list(ours.order)].double().numpy()
        steps = np.abs(images - seen) * 255.0 * np.array(ours.std)[list(ours.order)][None, :, None, None]
        return bool(steps.max() <= 3.0 and steps.mean() <= 0.5)

    def _refused(self, reason: str) -> EncoderError:
        return EncoderError(
            f"{self._name}: its image processor {_called(self._processor)} does more than resize, cut and normalise: "
            f"{reason} ({_settings(self._processor)})",
            todo=f"Correct {PROCESSOR} if it is wrong, or choose another model.",
        )


def _pattern(side: int) -> NDArray[np.uint8]:
    """A square patch: red grows to the right, green downwards, blue is a fine texture."""
    ramp = np.round(np.linspace(0, 255, side))
    noise = np.random.default_rng(0).integers(0, 256, (side, side))
    return np.stack([np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), noise], axis=-1).astype(np.uint8)


def _called(processor: Any) -> str:
    return type(processor).__name__.removesuffix("Pil").removesuffix("Fast")


def _settings(processor: Any) -> str:
    """The settings that an error may be about: sizes, and uncommon switches."""
    facts = {key: value for key, value in vars(processor).items() if not key.startswith("_") and value is not None}
    sizes = {key: _plain(facts[key]) for key in ("size", "crop_size", "pad_size", "crop_pct") if key in facts}
    switches = {key: value for key, value in facts.items() if key.startswith(("do_", "apply_")) and value is True}
    others = {key: value for key, value in facts.items() if key in _COMMON and value is False}
    shown = {**sizes, **{key: value for key, value in switches.items() if key not in _COMMON}, **others}
    return ", ".join(f"{key} {value}" for key, value in shown.items()) or "no settings of note"


def _plain(value: Any) -> Any:
    sides = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    if sides is None:
        return value
    return ", ".join(f"{key}={side}" for key, side in sides.items() if side is not None)
