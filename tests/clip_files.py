"""A small CLIP or SigLIP as a folder: random weights, an image processor, and a tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.encoders.encoder_files import PROCESSOR, randomise

WORDS = ["<pad>", "<start>", "<end>", "<unk>", "an", "image", "of", "tumour", "adenocarcinoma", "normal", "mucosa", "."]
PROMPTS = {
    "classes": {"tumour": ["tumour", "adenocarcinoma"], "normal": "normal mucosa"},
    "templates": ["CLASSNAME .", "an image of CLASSNAME ."],
}


def write_clip(folder: Path, kind: str = "clip") -> Path:
    """A small model (clip, siglip) with random weights, its image processor and a tokenizer of a few words."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
        model_max_length=12, model_input_names=["input_ids", "attention_mask"] if kind == "clip" else ["input_ids"],
    ).save_pretrained(folder)  # fmt: skip
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vision = {**sizes, "image_size": 64, "patch_size": 16, "projection_dim": 24}
    text = {**sizes, "vocab_size": len(WORDS), "max_position_embeddings": 12, "projection_dim": 24,
            "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    if kind == "clip":
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
        network = randomise(transformers.CLIPModel(config), 0)
    else:
        text |= {"projection_size": 32}
        config = transformers.SiglipConfig(vision_config=vision, text_config=text)
        network = randomise(transformers.SiglipModel(config), 0)
    network.logit_scale.data.fill_(2.0)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder
