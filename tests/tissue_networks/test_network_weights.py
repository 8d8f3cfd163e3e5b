"""Weights of networks: read from three kinds of file, refused by name where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tissue_networks.network_files import fill, save, save_onnx
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.tissue_networks.open_network import build, open_network
from wsi_pipeline.tissue_networks.plan_networks import plan_networks
from wsi_pipeline.tissue_networks.published import GRANDQC, HEST, artefact_network

WINDOWS = np.random.default_rng(0).integers(0, 256, (2, 512, 512, 3), dtype=np.uint8)
SMALL = WINDOWS[:1, :128, :128]
"""A window that the networks of PyTorch take as well, in a sixteenth of the time."""


@pytest.fixture(scope="module")
def network():
    return fill(build(GRANDQC))


def test_safetensors_checkpoint_and_lightning_file_give_the_same_classes(tmp_path, network):
    files = [save(network, tmp_path / "a.safetensors"), tmp_path / "b.pth", tmp_path / "c.ckpt"]
    torch.save(network.state_dict(), files[1])
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, files[2])
    first, *others = [open_network(GRANDQC, file)(SMALL) for file in files]
    assert first.shape == (1, 128, 128)
    assert first.dtype == np.uint8
    assert 0 < first.mean() < 1
    assert all(np.array_equal(first, other) for other in others)


def test_hest_is_read_with_the_names_of_its_checkpoint(tmp_path):
    network = fill(build(HEST))
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    tensors["model.aux_classifier.0.weight"] = torch.zeros(3)
    torch.save({"state_dict": tensors}, tmp_path / "hest.ckpt")
    found = open_network(HEST, tmp_path / "hest.ckpt")(SMALL)
    with torch.inference_mode():
        images = torch.from_numpy(SMALL / 255).float()
        images = (images - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        logits = network(images.permute(0, 3, 1, 2))["out"]
    assert (found == logits.argmax(1).numpy()).mean() > 0.9999


def test_the_first_tensors_that_do_not_fit_are_named_with_their_shapes(tmp_path, network):
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    tensors["segmentation_head.0.weight"] = torch.zeros(8, 16, 3, 3)
    tensors["extra"] = torch.zeros(2)
    del tensors["encoder.conv_stem.weight"]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(EncoderError) as fault:
        open_network(GRANDQC, tmp_path / "x.safetensors")
    assert "does not fit GrandQC's tissue network: 1 tensor missing (encoder.conv_stem.weight (32, 3, 3, 3)); " in str(
        fault.value
    )
    assert "1 of another shape (segmentation_head.0.weight (8, 16, 3, 3) instead of (2, 16, 3, 3))" in fault.value.what
    assert fault.value.what.endswith("1 not in the network (extra (2,))")
    assert "https://zenodo.org/records/14507273" in str(fault.value.todo)


def test_weights_of_another_network_are_refused_with_few_names(tmp_path, network):
    save(network, tmp_path / "tissue.safetensors")
    with pytest.raises(EncoderError, match="does not fit GrandQC's artefact network for 2 mpp") as fault:
        open_network(artefact_network(2.0), tmp_path / "tissue.safetensors")
    assert len(fault.value.what) < 900


def test_pickled_networks_and_damaged_files_are_refused(tmp_path):
    torch.save(torch.nn.Conv2d(3, 8, 3), tmp_path / "whole.pth")
    with pytest.raises(EncoderError, match=r"whole.pth cannot be read as tensors alone") as fault:
        open_network(artefact_network(1.5), tmp_path / "whole.pth")
    assert "state_dict()" in str(fault.value.todo)
    assert "other objects, or is not a PyTorch checkpoint" in fault.value.what
    assert "weights_only" not in fault.value.what, "PyTorch's advice to load without the safeguard"
    for name in ("torn.pth", "torn.onnx", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not weights")
        with pytest.raises(EncoderError, match="torn"):
            open_network(GRANDQC, tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(EncoderError, match="holds no tensors"):
        open_network(GRANDQC, tmp_path / "empty.pt")


def _onnx(file, classes, side=512):
    """A graph whose class 1 wins where the sum of the channels is below 0."""
    weight = np.zeros((classes, 3, 1, 1), np.float32)
    weight[1] = -1
    return save_onnx(weight, np.zeros(classes, np.float32), file, side)


def test_onnx_is_run_on_every_window_and_refused_in_another_shape(tmp_path):
    found = open_network(GRANDQC, _onnx(tmp_path / "a.onnx", 2))(WINDOWS)
    scaled = (WINDOWS / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert (found == (scaled.sum(axis=3) < 0)).mean() > 0.9999
    with pytest.raises(EncoderError, match=r"first output is \(1, 8, 512, 512\) instead of \(1, 2, 512, 512\)"):
        open_network(GRANDQC, _onnx(tmp_path / "b.onnx", 8))
    with pytest.raises(EncoderError, match=r"takes images \(1, 3, 256, 256\) instead of \(1, 3, 512, 512\)"):
        open_network(GRANDQC, _onnx(tmp_path / "c.onnx", 2, side=256))


def test_missing_weights_are_refused_before_any_slide(tmp_path):
    with pytest.raises(UsageError, match="--method hest needs --weights FILE") as fault:
        plan_networks("hest", TissueNetworks())
    assert "huggingface.co/MahmoodLab/hest-tissue-seg" in str(fault.value.todo)
    with pytest.raises(UsageError, match=r"gone.pth of GrandQC's tissue network does not exist"):
        plan_networks("grandqc", TissueNetworks(weights=str(tmp_path / "gone.pth")))
    with pytest.raises(UsageError, match="--method otsu has no weights"):
        plan_networks("otsu", TissueNetworks(weights=str(tmp_path / "gone.pth")))
    with pytest.raises(UsageError, match=r"artefact_mpp must be 1, 1\.5 or 2, got 3"):
        TissueNetworks(artefact_mpp=3.0)
    assert not plan_networks("hybrid", TissueNetworks())


def test_weights_that_change_while_a_command_runs_are_noticed(tmp_path, network):
    file = save(network, tmp_path / "a.safetensors")
    plan = plan_networks("grandqc", TissueNetworks(weights=str(file), device="cpu"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="has changed since this command began"):
        plan.open()
