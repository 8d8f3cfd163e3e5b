"""The layouts equal the published ones: names and shapes of tensors, and outputs for given weights.

The expected values are those of segmentation_models_pytorch 0.6.0 (`UnetPlusPlus` and `Unet`, encoder
`timm-efficientnet-b0`) with the same weights; where it is installed, the outputs are compared directly.
"""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from tests.tissue_networks.network_files import fill, image
from wsi_pipeline.tissue_networks.open_network import build
from wsi_pipeline.tissue_networks.published import GRANDQC, HEST, artefact_network

TISSUE_VALUES = (
    [-0.34366, -2.24848, -2.26867, -0.99713, -0.00937, 0.09551, 0.1014, -0.01007,
     -0.00986, -0.00975, -0.0145, -0.00993, -0.64251, -1.48463, -1.49162, -0.74223],
    [-0.19493, -2.12524, -2.14003, -0.94398, 0.07343, 0.15626, 0.16274, 0.0731,
     0.0731, 0.07748, 0.0722, 0.07397, -0.66914, -1.98415, -1.99249, -1.01675],
)  # fmt: skip
ARTEFACT_VALUES = (
    [0.39959, 2.4785, 2.47627, 1.64813, -0.0236, -0.0378, -0.0374, -0.02129,
     -0.02381, -0.08711, -0.08282, -0.02714, 1.14241, 3.74694, 3.81334, 1.67006],
    [-0.44629, -1.1664, -1.14204, -0.58294, 0.1227, 0.10783, 0.11114, 0.11543,
     0.11783, 0.00705, -0.02416, 0.10759, 0.22137, 2.45954, 2.52473, 1.48039],
)  # fmt: skip
NAMES = {
    "unet++": (492, "f7b0ba369672c31e2b3b800f931982903e69ec8ebe866711521c573da2f820c2"),
    "unet": (420, "c020c9723e603c165d3709975dc84d5b641d924b54876ec2453d5e5156ec4bc2"),
}


@pytest.mark.parametrize(("published", "values"), [(GRANDQC, TISSUE_VALUES), (artefact_network(1.5), ARTEFACT_VALUES)])
def test_outputs_are_those_of_the_published_layout(published, values):
    network = fill(build(published))
    names = json.dumps([[name, list(value.shape)] for name, value in sorted(network.state_dict().items())])
    assert (len(network.state_dict()), hashlib.sha256(names.encode()).hexdigest()) == NAMES[published.layout]
    with torch.inference_mode():
        found = network(image(64, 96))
    assert found.shape == (1, len(published.classes), 64, 96)
    for row, number in zip(values, (0, -1), strict=True):
        assert found[0, number, ::21, ::31].flatten().tolist() == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize(("published", "name"), [(GRANDQC, "UnetPlusPlus"), (artefact_network(1.0), "Unet")])
def test_random_weights_give_the_outputs_of_segmentation_models_pytorch(published, name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(3)
    other = getattr(smp, name)(
        encoder_name="timm-efficientnet-b0", encoder_weights=None, classes=len(published.classes), activation=None
    ).eval()
    network = build(published)
    network.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        assert torch.allclose(network(images), other(images), atol=1e-5)


def test_hest_is_torchvisions_deeplab_with_two_classes_and_no_auxiliary_head():
    tensors = build(HEST).state_dict()
    assert tensors["classifier.4.weight"].shape == (2, 256, 1, 1)
    assert tensors["backbone.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert not any(name.startswith("aux") for name in tensors)
