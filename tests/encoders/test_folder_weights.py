"""Weights in local folders: shards, pickles only, other names; and folders that are copies of published encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from encoder_files import randomise
from safetensors.torch import load_file, save_file
from suites.encoder_contract import assert_same_direction, tissue_patches
from test_timm_folders import CASES, SMALL_VIT, UNI_LIKE, VIRCHOW2, of_timm, sized, write_folder

from wsi_pipeline.encoders.folder_weights import SAFE_FILE, SAFE_INDEX
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.encoders.zoo.facts import preset_of_folder
from wsi_pipeline.errors import EncoderError

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]


def split(folder: Path) -> Path:
    """The weights of a folder in two shards and an index, as save_pretrained writes them."""
    tensors = load_file(folder / SAFE_FILE)
    (folder / SAFE_FILE).unlink()
    place = {name: SHARDS[i % 2] for i, name in enumerate(tensors)}
    for shard in SHARDS:
        save_file({name: tensors[name] for name in tensors if place[name] == shard}, folder / shard)
    (folder / SAFE_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def test_timm_shards_give_the_same_as_one_file(tmp_path: Path) -> None:
    folder, patches = write_folder(CASES["as UNI"], tmp_path), tissue_patches(3, 256)
    expected, whole = of_timm(folder, patches).numpy(), plan_encoder(str(folder)).fingerprint
    plan = plan_encoder(str(split(folder)))
    assert plan.fingerprint == whole
    assert_same_direction(plan.open("cpu", "fp32").encode(patches), expected, 0.9999)


@pytest.mark.parametrize("kind", ["timm", "transformers"])
@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pytorch_model.bin"], r"has pytorch_model\.bin but no .*pickled.*\n.*torch\.load\('pytorch_model\.bin', w"),
        (["tile_encoder.pth"], r"has tile_encoder\.pth but no .*\n.*torch\.load\('tile_encoder\.pth', weights_only"),
        (["open_clip_model.safetensors"], r"has open_clip_model\.s.*\n.*--weights .*/open_clip_model\.safetensors"),
        (SHARDS, r"but no model\.safetensors\.index\.json\n"),
        ([SAFE_INDEX, SHARDS[0]], r"lacks model-00002-of-00002\.safetensors of the 2 shards"),
        ([], r"has no model\.safetensors\n.*weights_only=True"),
    ],
)
def test_other_weights_are_refused_by_name(kind: str, files: list[str], said: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 1, "image_size": 56}
    if kind == "timm":
        facts = {"architecture": "test_vit", "pretrained_cfg": {**UNI_LIKE, **sized(160)}}
    (tmp_path / "config.json").write_text(json.dumps({**facts, "num_attention_heads": 2}))
    for name in files:
        (tmp_path / name).write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    with pytest.raises(EncoderError, match=said):
        _ = plan_encoder(str(tmp_path)).fingerprint


def test_a_downloaded_copy_is_completed_like_its_repository(tmp_path: Path) -> None:
    """Virchow2's config.json states neither SwiGLU nor the published feature, whatever way it was fetched."""
    layers: Any = timm.layers
    model, arguments = "vit_huge_patch14_224", {"mlp_layer": layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    network = randomise(timm.create_model(model, num_classes=0, **VIRCHOW2, **arguments), 0).eval()
    facts = {"architecture": model, "model_args": VIRCHOW2, "pretrained_cfg": {**UNI_LIKE, **sized(56)}}
    folder = tmp_path / "Virchow2"
    folder.mkdir()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / SAFE_FILE)
    (folder / "config.json").write_text(json.dumps(facts))
    patches = tissue_patches(3, 56)
    plan = plan_encoder(str(folder))
    pixels = torch.from_numpy((patches / 255.0 - UNI_LIKE["mean"]) / UNI_LIKE["std"]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        tokens = network(pixels)
    expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(dim=1)], dim=1).numpy()
    assert_same_direction(plan.open("cpu", "fp32").encode(patches), expected, 0.9999)
    hosted = plan_encoder("hf-hub:paige-ai/Virchow2", weights=folder)
    assert (plan.info.mpp, plan.fingerprint) == (hosted.info.mpp, hosted.fingerprint)
    folder.rename(tmp_path / "mine")
    with pytest.raises(EncoderError, match=r"does not fit .*\n.*published patch encoder"):
        plan_encoder(str(tmp_path / "mine")).open("cpu", "fp32")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("prov-gigapath", "gigapath"),
        ("models/MahmoodLab/UNI2-h", "uni2-h"),
        ("bioptimus_H-optimus-1", "h-optimus-1"),
        ("hub/models--paige-ai--Virchow/snapshots/0123abc", "virchow"),
        ("virchow2", "virchow2"),
        ("my-virchow2", None),
        ("snapshots/0123abc", None),
    ],
)
def test_copies_are_known_by_the_name_of_their_folder(folder: str, name: str | None) -> None:
    found = preset_of_folder(Path("/data") / folder)
    assert (None if found is None else found.name) == name


def test_gigapath_is_cut_as_its_authors_cut_from_a_folder_too(tmp_path: Path) -> None:
    for name, resize_px in (("prov-gigapath", 109), ("another", None)):
        folder = tmp_path / name
        folder.mkdir()
        facts = {"architecture": "vit_giant_patch14_dinov2", "model_args": SMALL_VIT}
        (folder / "config.json").write_text(json.dumps({**facts, "pretrained_cfg": {**UNI_LIKE, **sized(96)}}))
        assert plan_encoder(str(folder)).info.resize_px == resize_px


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("hibou-b", {"model_type": "hibou", "auto_map": {"AutoConfig": "a.B"}}, "--model hibou-b --weights"),
        ("CONCH", None, "--model conch --weights"),
        ("CONCH", {"architectures": ["CoCa"]}, "--model conch --weights"),
        ("some", None, "short name"),
    ],
)
def test_a_copy_that_transformers_cannot_read_has_a_short_name(
    name: str, config: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError) as caught:
        plan_encoder(str(folder))
    assert said in str(caught.value.todo)
