"""The models of the papers, each against its formulas written out, and at the sizes they are for."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tests.suites.mil_contract import awake
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.clam import INSTANCE_WEIGHT, TOP
from wsi_pipeline.mil.models.mil_model import MilModel
from wsi_pipeline.mil.models.nystrom import NystromAttention
from wsi_pipeline.mil.models.zoo import MIL_MODELS, build_model

DIM, CLASSES = 6, 3


def model_of(name: str, **more) -> MilModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        spec = MilSpec(model=name, **{"hidden_dim": 16, "attention_dim": 5, **more})
        return awake(build_model(spec, DIM, CLASSES)).eval()


def instances(n: int, dim: int = DIM, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_max_takes_each_value_from_its_largest_instance() -> None:
    model, rows = model_of("max"), instances(9)
    h = model.network.projection(rows)
    torch.testing.assert_close(model(rows, torch.tensor([0, 9])).logits[0], model.network.head(h.amax(0)))


def test_abmil_is_equation_8() -> None:
    model, rows = model_of("abmil"), instances(7)
    net = model.network
    h = net.projection(rows)
    a = (torch.tanh(h @ net.attention.v.weight.T + net.attention.v.bias) @ net.attention.w.weight[0]).softmax(0)
    output = model(rows, torch.tensor([0, 7]))
    torch.testing.assert_close(output.attention, a)
    torch.testing.assert_close(output.logits[0], net.head(a @ h))


@pytest.mark.parametrize("n", [2, 7, 50])
def test_clam_teaches_the_ends_of_the_ranking(n: int) -> None:
    """Top and bottom min(TOP, n // 2) instances by attention, smooth SVM loss with tau and margin 1."""
    model, rows, target = model_of("clam-sb", dropout=0.0), instances(n), 1
    offsets, targets = torch.tensor([0, n]), torch.tensor([target])
    order = model(rows, offsets).attention.argsort(descending=True)
    k = min(TOP, n // 2)
    losses = []
    for place, row in [*enumerate(order[:k].tolist()), *((-1, row) for row in order[n - k :].tolist())]:
        scores = model.network.instances(model.network.pooling.projection(rows[row])).reshape(CLASSES, 2)
        asked = range(CLASSES) if place >= 0 else [target]
        each = []
        for c in asked:
            label = 1 if place >= 0 and c == target else 0
            each.append(torch.log(1 + torch.exp(1 + scores[c, 1 - label] - scores[c, label])))
        losses.append(torch.stack(each).mean())
    expected = INSTANCE_WEIGHT * torch.stack(losses).mean()
    torch.testing.assert_close(model.train()(rows, offsets, targets).auxiliary[0], expected)


def test_clam_without_targets_is_gated_abmil() -> None:
    clam, gated, rows = model_of("clam-sb"), model_of("gated-abmil"), instances(8)
    gated.network.load_state_dict(clam.network.pooling.state_dict())
    assert torch.equal(clam(rows, torch.tensor([0, 8])).logits, gated(rows, torch.tensor([0, 8])).logits)


def test_dsmil_is_the_mean_of_its_streams() -> None:
    model, rows = model_of("dsmil"), instances(8)
    net = model.network
    h = net.projection(rows)
    scores, q, v = net.instance(h), net.query(h), net.value(h)
    m = scores.argmax(0)
    u = torch.stack([(q @ q[m[c]] / math.sqrt(q.shape[1])).softmax(0) for c in range(CLASSES)], 1)
    b = torch.cat([u[:, c] @ v for c in range(CLASSES)])
    output = model(rows, torch.tensor([0, 8]))
    torch.testing.assert_close(output.logits[0], (scores.amax(0) + net.bag(b)) / 2)
    torch.testing.assert_close(output.attention, u.mean(1))


def test_nystrom_attention_is_plain_where_landmarks_suffice() -> None:
    """As many landmarks as tokens give softmax(QK^T)V both ways: without approximation and through the formula."""
    torch.manual_seed(0)
    layer, tokens = NystromAttention(8, 2, 12), instances(12, 8)
    q, k, v = layer.qkv(tokens).reshape(12, 3, 2, 4).permute(1, 2, 0, 3)
    plain = layer.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(0, 1).reshape(12, 8))
    torch.testing.assert_close(layer(tokens), plain)


def test_nystrom_attention_is_equation_13() -> None:
    torch.manual_seed(0)
    layer = NystromAttention(8, 2, 4)
    with torch.no_grad():  # four groups of tokens that differ, so that six steps reach the pseudo-inverse
        layer.qkv.weight[:16] = torch.eye(8).repeat(2, 1)
    tokens = 3 * torch.eye(4).repeat_interleave(5, 0).repeat(1, 2) + 0.3 * instances(20, 8)
    q, k, v = layer.qkv(tokens).reshape(20, 3, 2, 4).permute(1, 2, 0, 3)
    q_, k_ = (part.reshape(2, 4, 5, 4).mean(2) for part in (q, k))
    left, core, right = ((a @ b.mT / 2).softmax(-1) for a, b in ((q, k_), (q_, k_), (q_, k)))
    whole = left @ torch.linalg.pinv(core) @ right
    torch.testing.assert_close(layer(tokens), layer.out((whole @ v).transpose(0, 1).reshape(20, 8)), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.attention_of_first(tokens), whole.mean(0)[0], atol=1e-4, rtol=0)


def test_transmil_without_its_position_module_does_not_see_the_order() -> None:
    """A square number of instances, none repeated, and no more tokens than landmarks."""
    model, rows = model_of("transmil", hidden_dim=40), instances(16)
    offsets, order = torch.tensor([0, 16]), torch.randperm(16, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(model(rows, offsets).logits, model(rows[order], offsets).logits, rtol=1e-4)
    for convolution in model.network.position.convolutions:
        torch.nn.init.zeros_(convolution.weight)
    plain, shuffled = model(rows, offsets), model(rows[order], offsets)
    torch.testing.assert_close(shuffled.logits, plain.logits)
    torch.testing.assert_close(shuffled.attention, plain.attention[order])


def test_the_position_module_sees_a_square_image() -> None:
    network = model_of("transmil").network
    tokens = instances(9, 16)
    image = tokens.T.reshape(1, 16, 3, 3)
    expected = image.clone()
    for convolution in network.position.convolutions:
        size = convolution.weight.shape[-1]
        expected += functional.conv2d(image, convolution.weight, convolution.bias, padding=size // 2, groups=16)
    torch.testing.assert_close(network.position(tokens), expected.reshape(16, 9).T)


def test_first_order_contributions_are_the_slope() -> None:
    """TransMIL: scaling one projected instance a little moves the logit by its contribution."""
    model, rows = model_of("transmil"), instances(6)
    shares = model.contributions(rows, torch.tensor([0, 6]))
    net = model.network.double()
    h = net.projection(rows.double()).detach()
    for row in (0, 4):
        step = torch.ones(6, 1, dtype=torch.float64)
        step[row] += 1e-4
        ends = [net.head(net.norm(net.second(net._between(bag)))[0]) for bag in (h * step, h * (2 - step))]
        torch.testing.assert_close(((ends[0] - ends[1]) / 2e-4).float(), shares[row], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MIL_MODELS.names())
def test_a_bag_of_200_000_instances(name: str) -> None:
    """One step of training; a matrix of instances by instances would need 160 GB."""
    model = model_of(name, hidden_dim=8, attention_dim=4).train()
    output = model(instances(200_000), torch.tensor([0, 200_000]), torch.tensor([1]))
    functional.cross_entropy(output.logits, torch.tensor([1])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        attention = model.eval()(instances(200_000), torch.tensor([0, 200_000])).attention
    assert float(attention.double().sum()) == pytest.approx(1, abs=1e-4)
