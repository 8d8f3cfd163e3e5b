"""What every model of MIL_MODELS must keep. A test module inherits `MilContract` and has all of it, for all models.

Two exceptions, both of the papers. TransMIL's position module, its repeated instances and its landmarks follow the
order of the instances. Max pooling gives a gradient only to the instances that hold a maximum.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.models.ragged import segment_sum
from wsi_pipeline.mil.models.zoo import MIL_MODELS, MilModel, MilOutput, build_model

DIM, CLASSES = 10, 3
LENGTHS = [5, 1, 0, 12, 3]
TARGETS = torch.tensor([0, 2, 1, 1, 0])

TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
"""float32 rounding of matrix products whose shapes differ."""

ORDER_MATTERS = {"transmil"}
FEW_GRADIENTS = {"max"}
FIRST_ORDER = {"transmil"}
"""Models whose contributions are the first-order term only."""


def awake(model: MilModel) -> MilModel:
    """The model as some steps of training leave it: attention that starts at zero looks somewhere."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("attention.w.weight"):
                assert not value.any()
                value.copy_(torch.randn(value.shape, generator=generator) / value.shape[1] ** 0.5)
    return model


class MilContract:
    """The contract of a slide-level model, on bags of 5, 1, 0, 12 and 3 instances."""

    @pytest.fixture(params=MIL_MODELS.names())
    def spec(self, request: pytest.FixtureRequest) -> MilSpec:
        return MilSpec(model=request.param, hidden_dim=16, attention_dim=8)

    @pytest.fixture
    def model(self, spec: MilSpec) -> MilModel:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = awake(build_model(spec, DIM, CLASSES))
        model.set_standardisation(torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))
        return model.eval()

    @pytest.fixture
    def features(self) -> Tensor:
        return torch.randn(sum(LENGTHS), DIM, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def offsets(self) -> Tensor:
        return torch.tensor([0, *LENGTHS]).cumsum(0)

    def test_shapes_and_types(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        output = model(features, offsets)
        assert isinstance(output, MilOutput)
        assert output.logits.shape == (len(LENGTHS), CLASSES)
        assert output.attention.shape == (sum(LENGTHS),)
        assert output.logits.dtype == output.attention.dtype == torch.float32

    def test_order_of_instances_does_not_matter(
        self, spec: MilSpec, model: MilModel, features: Tensor, offsets: Tensor
    ) -> None:
        if spec.model in ORDER_MATTERS:
            pytest.skip("the order matters in this model")
        generator = torch.Generator().manual_seed(1)
        shuffled = torch.cat(
            [
                start + torch.randperm(stop - start, generator=generator)
                for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
            ]
        )
        assert not torch.equal(shuffled, torch.arange(len(features)))
        plain, permuted = model(features, offsets), model(features[shuffled], offsets)
        torch.testing.assert_close(permuted.logits, plain.logits, **TOLERANCE)
        torch.testing.assert_close(permuted.attention, plain.attention[shuffled], **TOLERANCE)

    def test_a_batch_equals_its_bags_one_by_one(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        together = model(features, offsets)
        for bag, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            alone = model(features[start:stop], torch.tensor([0, stop - start]))
            torch.testing.assert_close(alone.logits[0], together.logits[bag], **TOLERANCE)
            torch.testing.assert_close(alone.attention, together.attention[start:stop], **TOLERANCE)

    def test_attention_sums_to_one_in_each_bag(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        attention = model(features, offsets).attention
        assert (attention >= 0).all()
        sums = [float(part.detach().sum()) for part in attention.split(LENGTHS)]
        assert sums == pytest.approx([1.0 if length else 0.0 for length in LENGTHS], abs=1e-5)

    def test_an_empty_bag_has_one_defined_answer(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        alone = model(torch.empty(0, DIM), torch.tensor([0, 0]))
        assert alone.logits.isfinite().all()
        assert alone.attention.shape == (0,)
        torch.testing.assert_close(alone.logits[0], model(features, offsets).logits[LENGTHS.index(0)], **TOLERANCE)

    def test_training_survives_empty_bags(self, model: MilModel) -> None:
        model.train()(torch.empty(0, DIM), torch.tensor([0, 0, 0])).logits.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    def test_a_single_instance_has_all_the_attention(self, model: MilModel, features: Tensor) -> None:
        output = model(features[:1], torch.tensor([0, 1]))
        assert output.logits.isfinite().all()
        assert output.attention.tolist() == pytest.approx([1.0])

    def test_gradients_reach_every_instance_and_weight(
        self, spec: MilSpec, model: MilModel, features: Tensor, offsets: Tensor
    ) -> None:
        """In training, with the loss of the network's own; dropout would hide some."""
        trained = build_model(dataclasses.replace(spec, dropout=0.0), DIM, CLASSES).train()
        trained.load_state_dict(model.state_dict())
        features.requires_grad_()
        output = trained(features, offsets, TARGETS)
        loss = (output.logits.square() * torch.linspace(0.5, 2, CLASSES)).sum()
        (loss if output.auxiliary is None else loss + output.auxiliary.sum()).backward()
        assert features.grad is not None
        touched = features.grad.abs().sum(1) > 0
        assert touched.any() if spec.model in FEW_GRADIENTS else touched.all()
        for name, parameter in trained.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0 or name.endswith("w.bias"), name

    def test_a_bag_gets_no_gradient_from_another(
        self, spec: MilSpec, model: MilModel, features: Tensor, offsets: Tensor
    ) -> None:
        features.requires_grad_()
        model(features, offsets).logits[3].square().sum().backward()
        assert features.grad is not None
        touched = features.grad.abs().sum(1) > 0
        inside = slice(int(offsets[3]), int(offsets[4]))
        assert touched[inside].any() if spec.model in FEW_GRADIENTS else touched[inside].all()
        assert touched[inside].sum() == touched.sum()

    def test_an_auxiliary_loss_is_one_number_a_bag_and_only_in_training(
        self, model: MilModel, features: Tensor, offsets: Tensor
    ) -> None:
        assert model(features, offsets, TARGETS).auxiliary is None
        assert model.train()(features, offsets).auxiliary is None
        together = model(features, offsets, TARGETS).auxiliary
        if together is not None:
            assert together.shape == (len(LENGTHS),)
            assert (together[torch.tensor(LENGTHS) < 2] == 0).all()
            alone = [
                model(features[start:stop], torch.tensor([0, stop - start]), TARGETS[bag : bag + 1]).auxiliary[0]
                for bag, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
            ]
            torch.testing.assert_close(torch.stack(alone), together, **TOLERANCE)

    def test_contributions_add_up_to_the_logits(
        self, spec: MilSpec, model: MilModel, features: Tensor, offsets: Tensor
    ) -> None:
        """An empty bag has the bias alone; what the others have beyond it is the sum over their instances."""
        shares = model.contributions(features, offsets)
        assert shares.shape == (len(features), CLASSES)
        assert shares.isfinite().all()
        logits = model(features, offsets).logits
        if spec.model not in FIRST_ORDER:
            expected = logits - logits[LENGTHS.index(0)]
            torch.testing.assert_close(segment_sum(shares, offsets), expected, rtol=1e-4, atol=1e-5)

    def test_half_precision_in(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        half = features.half()
        output = model(half, offsets)
        assert output.logits.dtype == torch.float32
        assert torch.equal(output.logits, model(half.float(), offsets).logits)

    def test_standardisation_is_applied(self, model: MilModel, features: Tensor, offsets: Tensor) -> None:
        expected = model(features, offsets).logits
        standard = (features - model.feature_mean) / model.feature_std
        model.set_standardisation(torch.zeros(DIM), torch.ones(DIM))
        torch.testing.assert_close(model(standard, offsets).logits, expected, **TOLERANCE)

    def test_same_seed_same_model(self, spec: MilSpec, features: Tensor, offsets: Tensor) -> None:
        outputs = []
        with torch.random.fork_rng():
            for seed in (5, 5, 6):
                torch.manual_seed(seed)
                outputs.append(build_model(spec, DIM, CLASSES).train()(features, offsets).logits)
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[0], outputs[2])

    def test_dropout_rests_in_eval_mode(self, spec: MilSpec, features: Tensor, offsets: Tensor) -> None:
        model = build_model(dataclasses.replace(spec, dropout=0.9), DIM, CLASSES).eval()
        assert torch.equal(model(features, offsets).logits, model(features, offsets).logits)
