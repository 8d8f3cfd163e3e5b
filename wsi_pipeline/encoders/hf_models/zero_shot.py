"""Zero-shot classification of patches: an image-text model compares each patch with sentences about each class.

The vector of a class is the mean of the text features of its sentences, each scaled to length 1, and scaled to length 1
again. The logit of a class is the cosine of patch and class times the model's own temperature (Radford and others 2021,
https://arxiv.org/abs/2103.00020, section 3.1.4); probabilities are their softmax.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.encoder import EncoderPlan
from wsi_pipeline.encoders.hf_models.hf_network import build, is_image_text
from wsi_pipeline.encoders.hf_models.hf_processor import quiet
from wsi_pipeline.encoders.hf_models.plan_hf import HuggingFacePlan
from wsi_pipeline.encoders.hf_models.prompts import Prompts
from wsi_pipeline.encoders.patch_classifier import PatchClassifier
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.errors import EncoderError

auto: Any = transformers
"""transformers types only a part of its functions."""

TOKENIZER = "tokenizer_config.json"
_TOKENIZER_FILES = (
    TOKENIZER, "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "special_tokens_map.json",
)  # fmt: skip
_FAULTS = (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, RuntimeError)


class Cosine(torch.nn.Module):
    """Logits (B, C): cosine of features (B, D) and class vectors (C, D) of length 1, times a temperature."""

    def __init__(self, vectors: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self._scale = scale

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, C)."""
        return self._scale * torch.nn.functional.normalize(features, dim=-1) @ self.get_buffer("vectors").T


class ZeroShotPlan(EncoderPlan):
    """An image-text model with prompts, ready to be opened as a classifier."""

    def __init__(self, model: EncoderPlan, prompts: Prompts) -> None:
        if not isinstance(model, HuggingFacePlan) or not _reads_text(model):
            raise EncoderError(
                f"{model.info.name} cannot compare patches with prompts: it is not an image-text model of transformers",
                todo="Use a CLIP or SigLIP model, such as --model plip or --model ./folder.",
            )
        self._model = model
        self.prompts = prompts
        self.info = model.info

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the prompts."""
        return self.prompts.labels

    @cached_property
    def _tokenizer_folder(self) -> Path:
        home = self._model.files.home
        if home is not None and any((home / name).is_file() for name in _TOKENIZER_FILES):
            return home
        if not self._model.files.repo:
            raise EncoderError(
                f"{home} has no tokenizer ({TOKENIZER})", todo="Copy the model's tokenizer files into the folder."
            )
        files = [hub.find_cached(hub.HubFile(self._model.files.repo, name)) for name in _TOKENIZER_FILES]
        if not any(files):
            files = [hub.fetch_if_there(hub.HubFile(self._model.files.repo, name)) for name in _TOKENIZER_FILES]
        found = [file for file in files if file is not None]
        if not found:
            raise EncoderError(f"{self._model.files.repo} has no tokenizer on the Hugging Face hub")
        return found[0].parent

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the model's fingerprint, the prompts and the tokenizer's files."""
        folder = self._tokenizer_folder
        files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                 for name in _TOKENIZER_FILES if (folder / name).is_file()}  # fmt: skip
        return digest_of(model=self._model.fingerprint, prompts=self.prompts.facts(), tokenizer=files)

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """The image tower alone, as `embed` opens it."""
        return self._model.open(device, precision)

    def open_classifier(self, device: str = "auto", precision: str = "auto") -> PatchClassifier:
        """Load the model and turn the prompts into class vectors, in fp32 on the CPU.

        Raises EncoderError for weights that are missing, and for a sentence that is too long for the model.
        """
        network, use_pooler = self._model.load_network()
        vectors = self._vectors(network)
        logit_scale = getattr(network, "logit_scale", None)
        scale = float(logit_scale.detach().exp()) if logit_scale is not None else 1.0
        encoder = self._model.encoder_of(network, use_pooler, device, precision)
        return PatchClassifier(encoder, Cosine(vectors, scale), self.classes)

    def about(self) -> tuple[str, ...]:
        """Lines for the user: the model, and the number of sentences per class."""
        counts = ", ".join(f"{label} {len(texts)}" for label, texts in self.prompts.sentences())
        return (*self._model.about(), f"sentences per class: {counts}")

    def remember(self) -> dict[str, Any]:
        """The prompts."""
        return {"prompts": self.prompts.facts()}

    def _vectors(self, network: Any) -> torch.Tensor:
        """Class vectors (C, D) of length 1."""
        tokenizer = self._tokenizer()
        longest = _longest(network, tokenizer)
        rows = []
        for label, texts in self.prompts.sentences():
            for text in texts:
                length = len(tokenizer(text)["input_ids"])
                if length > longest:
                    raise EncoderError(
                        f"class {label}: the prompt {text!r} has {length} tokens, the model takes {longest}"
                    )
            tokens = tokenizer(list(texts), padding="max_length", max_length=longest, return_tensors="pt")
            given = {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
            with torch.inference_mode():
                output = network.get_text_features(**given)
            features = output if isinstance(output, torch.Tensor) else output.pooler_output
            rows.append(torch.nn.functional.normalize(features.float(), dim=-1).mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1).clone()

    def _tokenizer(self) -> Any:
        folder = self._tokenizer_folder
        try:
            with quiet():
                return auto.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except _FAULTS as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EncoderError(f"{folder}: transformers cannot build its tokenizer: {reason}") from None


def _reads_text(model: HuggingFacePlan) -> bool:
    network = build(model.config)
    return is_image_text(network) and callable(getattr(network, "get_text_features", None))


def _longest(network: Any, tokenizer: Any) -> int:
    """Most tokens that the text tower and the tokenizer allow."""
    text = getattr(network.config, "text_config", network.config)
    return min(int(getattr(text, "max_position_embeddings", 77)), int(tokenizer.model_max_length))
