"""The model: equal to the bare backbone without prompts, gradients and changes only where declared."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pathotune.backbone import count_parameters
from pathotune.config import PathoTuneConfig, TaskText
from pathotune.errors import BackboneError, ConfigError
from pathotune.model import PathoTune
from pathotune.refine import LayerRefineModule
from tests.pathotune.vits import DIM, KINDS, LAYERS, OFF, images, small_vit, states

CLASSES = ("benign", "malignant", "stroma")
BUDGET = 0.059

choices = st.fixed_dictionaries(
    {
        "tvp_tokens": st.integers(0, 3),
        "tvp_depth": st.sampled_from(["deep", "shallow"]),
        "ttp": st.booleans(),
        "ttp_tokens": st.integers(1, 3),
        "ttp_depth": st.sampled_from(["deep", "shallow"]),
        "ivp_tokens": st.integers(0, 3),
        "ivp_depth": st.sampled_from(["deep", "shallow"]),
        "vrm_input": st.sampled_from(["pixels", "patches", "layers"]),
        "entry": st.sampled_from([0.0, 0.34, 0.9]),
        "start": st.sampled_from(["random", "tokens"]),
        "feature": st.sampled_from(["cls", "cls_mean"]),
        "ivp_read": st.booleans(),
        "head": st.sampled_from(["linear", "mlp"]),
        "head_dropout": st.sampled_from([0.0, 0.3]),
        "prompt_dropout": st.sampled_from([0.0, 0.3]),
    }
)


def make(kind: str = "plain", **options: Any) -> PathoTune:
    """A small model with random text states; `vrm_width` 8 unless named."""
    config = PathoTuneConfig(**{"classes": CLASSES, "vrm_width": 8, **options})
    torch.manual_seed(3)
    return PathoTune(config, small_vit(kind), states(config) if config.ttp else None).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_without_prompts_features_equal_the_backbone_bit_for_bit(kind: str) -> None:
    vit, bare = make(kind, **OFF), small_vit(kind)
    with torch.inference_mode():
        assert torch.equal(vit.features(images()), bare(images()))
        assert torch.equal(vit.tokens(images()), bare.forward_features(images()))


def test_without_prompts_another_image_size_equals_the_backbone_too() -> None:
    with torch.inference_mode():
        assert torch.equal(make("dynamic", **OFF).features(images(side=48)), small_vit("dynamic")(images(side=48)))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_without_prompts_timm_models_equal_themselves(name: str) -> None:
    bare = timm.create_model(name, num_classes=0, depth=2, img_size=56 if "patch14" in name else 64).eval()
    batch = images(2, 56 if "patch14" in name else 64)
    with torch.inference_mode():
        expected = bare(batch)
        assert torch.equal(PathoTune(PathoTuneConfig(**OFF), bare).features(batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_first_layer_sees_the_backbone_tokens_unmoved_around_the_prompts(kind: str) -> None:
    model, bare = make(kind, vrm_input="patches", ttp_depth="shallow"), small_vit(kind)
    seen: dict[str, Tensor] = {}
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, given: seen.update(model=given[0]))
    bare.blocks[0].register_forward_pre_hook(lambda _, given: seen.update(bare=given[0]))
    with torch.inference_mode():
        model.features(images())
        bare(images())
        prompts = model.prompts(images(), model.backbone.patch_embed(images()))[0]
    layout = model.layout
    assert layout.registers == (4 if kind == "registers" else 0)
    assert torch.equal(layout.remove(seen["model"]), seen["bare"])
    for name in ("tvp", "ttp", "ivp"):
        assert torch.equal(seen["model"][:, layout.place(name)], prompts[name])


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_later_layers_see_new_prompts_only_where_deep(depth: str) -> None:
    model = make(tvp_depth=depth, ttp_depth=depth, ivp_depth=depth, vrm_input="pixels", start="random")
    before: list[Tensor] = []
    after: list[Tensor] = []
    for block in model.backbone.blocks:
        block.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        block.register_forward_hook(lambda _, given, out: after.append(out))
    with torch.inference_mode():
        model.features(images())
        expected = model.prompts(images(), model.backbone.patch_embed(images()))
    for layer in range(1, LAYERS):
        assert torch.equal(model.layout.remove(before[layer]), model.layout.remove(after[layer - 1]))
        for kind in ("ttp", "ivp"):
            place = model.layout.place(kind)
            wanted = expected[layer][kind] if depth == "deep" else after[layer - 1][:, place]
            assert torch.equal(before[layer][:, place], wanted)
        tvp = before[layer][:, model.layout.place("tvp")]
        wanted = model.tvp.tokens[layer].expand_as(tvp) if depth == "deep" else after[layer - 1][:, 1 : 1 + 10]
        assert torch.equal(tvp, wanted)


@settings(max_examples=25, deadline=None)
@given(choices, st.sampled_from(KINDS))
def test_gradients_and_changes_only_where_declared(options: dict[str, Any], kind: str) -> None:
    model = make(kind, **options).train()
    declared = model.trained_parameters()
    assert {name for name, value in model.named_parameters() if value.requires_grad} == set(declared)
    assert not any(module.training for module in model.backbone.modules())
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name not in declared}
    before = {name: value.detach().clone() for name, value in declared.items()}
    optimiser = torch.optim.RAdam(declared.values(), lr=0.1)
    for seed in range(6):  # RAdam takes plain steps at first; all of them move
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images(seed=seed)), torch.tensor([0, 1, 2])).backward()
        optimiser.step()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == set(declared)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    still = [name for name, value in before.items() if torch.equal(value, declared[name])]
    assert not still, still


@settings(max_examples=25, deadline=None)
@given(choices, st.sampled_from(KINDS))
def test_an_image_is_the_same_alone_and_in_a_batch(options: dict[str, Any], kind: str) -> None:
    model = make(kind, **options)
    with torch.inference_mode():
        together = model.features(images())
        alone = torch.cat([model.features(image.unsqueeze(0)) for image in images()])
    assert together.shape == (3, model.feature_dim)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "vit_base_patch16_224"])
@pytest.mark.parametrize("text_width", [384, 768])
def test_default_configuration_trains_at_most_the_papers_share(name: str, text_width: int) -> None:
    config = PathoTuneConfig(classes=tuple(f"class {number}" for number in range(9)))
    with torch.device("meta"):
        vit = timm.create_model(name, num_classes=1000)
        model = PathoTune(config, vit, torch.empty(1, config.ttp_tokens, text_width))
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    without_head = sum(value.numel() for key, value in vit.named_parameters() if not key.startswith("head."))
    assert 0 < trained <= BUDGET * without_head
    assert f"{trained:,}" in model.summary()
    assert f"{trained / without_head:.2%}" in model.summary()


def test_summary_counts_tokens_and_parameters_of_each_part() -> None:
    model = make(tvp_tokens=4, ivp_tokens=1, ttp_tokens=2)
    lines = {line.split()[0]: line.split()[1:] for line in model.summary().splitlines()}
    assert lines["tvp"] == ["4", str(LAYERS * 4 * DIM)]
    assert lines["ttp"][0] == "2"
    assert lines["ivp"][0] == "1"
    assert lines["head"] == ["-", str(2 * DIM * 3 + 3)]
    assert lines["all"][0] == "7"
    assert count_parameters(model.backbone) == sum(value.numel() for value in model.backbone.parameters())


def test_cls_mean_is_cls_beside_the_mean_of_image_tokens_only() -> None:
    model = make("registers", feature="cls_mean", classes=(), ivp_read=False, vrm_input="patches")
    with torch.inference_mode():
        sequence = model.tokens(images())
        found = model.features(images())
    assert torch.equal(found[:, :DIM], sequence[:, 0])
    torch.testing.assert_close(found[:, DIM:], sequence[:, -16:].mean(dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_below_the_entry_are_those_of_the_bare_backbone(kind: str) -> None:
    model, bare = make(kind, vrm_input="layers", entry=0.67), small_vit(kind)
    assert model.entry == 2
    before: dict[str, list[Tensor]] = {"model": [], "bare": []}
    for name, vit in (("model", model.backbone), ("bare", bare)):
        for block in vit.blocks:
            block.norm1.register_forward_pre_hook(lambda _, given, seen=before[name]: seen.append(given[0]))
    model.features(images())
    bare(images())
    # An untrained refine module corrects nothing, so what it reads in the first layer with prompts is the bare one's.
    for ours, theirs in zip(before["model"], before["bare"], strict=False):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad
    assert before["model"][3].requires_grad
    assert model.tvp.layers == len(model.ivp.refine) == 1


@pytest.mark.parametrize("feature", ["cls", "cls_mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("off", [{}, {"ttp": False, "ivp_tokens": 0}, {"tvp_tokens": 0, "ivp_tokens": 0}])
def test_prompts_as_keys_alone_give_the_features_of_the_whole_sequence(
    kind: str, feature: str, off: dict[str, Any]
) -> None:
    model = make(kind, vrm_input="layers", ttp_depth="deep", feature=feature, entry=0.34, ivp_read=True, **off)
    for value in model.trained_parameters().values():
        nn.init.normal_(value, std=0.3)
    assert model.keyed
    with torch.inference_mode():
        sequence, found = model.tokens(images()), model.features(images())
        torch.testing.assert_close(found[:, :DIM], sequence[:, 0], rtol=1e-4, atol=1e-5)
        if feature == "cls_mean":
            mean = sequence[:, model.layout.place("image")].mean(dim=1)
            torch.testing.assert_close(found[:, DIM : 2 * DIM], mean, rtol=1e-4, atol=1e-5)
        if model.config.reads_instances:
            assert found.shape == (3, model.feature_dim)
            assert not torch.allclose(found[0, -DIM:], found[1, -DIM:])
        for block in model.backbone.blocks:
            block.attn.fused_attn = False
        torch.testing.assert_close(model.features(images()), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (2, 4)])
def test_the_refine_module_of_a_layer_is_a_convolution_over_the_patch_grid(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    refine, count = LayerRefineModule(DIM, 5, 2, 0.1), grid[0] * grid[1]
    nn.init.normal_(refine.near.weight)
    nn.init.normal_(refine.up.weight)
    tokens = torch.randn(3, 1 + count, DIM)
    with torch.inference_mode():
        prompts, correction = refine(tokens, 1, grid)
        narrow = nn.functional.gelu(refine.down(tokens))
        near = refine.near(narrow[:, 1:].transpose(1, 2).reshape(3, 5, *grid)).flatten(2).transpose(1, 2)
        expected = refine.up(nn.functional.gelu(near))
    torch.testing.assert_close(correction[:, 1:], expected)
    assert prompts.shape == (3, 2, DIM)
    assert not torch.allclose(prompts[0], prompts[1])


def test_prompts_that_start_as_tokens_have_the_scale_of_prompts() -> None:
    model = make(start="tokens", ttp_depth="deep", vrm_input="layers", entry=0.34)

    def starts() -> list[Tensor]:
        return [model.tvp.tokens.clone(), model.ttp.tokens.clone(), *(one.start.clone() for one in model.ivp.refine)]

    before = starts()
    model.calibrate(images())
    after = starts()
    scale = model._bound() / 3**0.5
    for old, new in zip(before, after, strict=True):
        assert not torch.allclose(old, new)
        torch.testing.assert_close(new.std(-1), torch.full(new.shape[:-1], scale), rtol=0.1, atol=0)
    model.calibrate(images())
    assert all(torch.equal(old, new) for old, new in zip(after, starts(), strict=True))


def test_the_refine_module_sees_patches_in_their_places_in_images_of_any_shape() -> None:
    config = PathoTuneConfig(vrm_width=8, vrm_input="patches", ttp=False)
    batch = images()[:, :, :16]
    found = []
    for dynamic in (False, True):
        torch.manual_seed(3)
        model = PathoTune(config, small_vit(img_size=(16, 32), dynamic_img_size=dynamic))
        with torch.inference_mode():
            found.append(model.prompts(batch, model.backbone.patch_embed(batch))[0]["ivp"])
    assert torch.equal(found[0], found[1])


def test_mixed_precision_trains_the_same_parameters() -> None:
    model = make().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images()), torch.tensor([0, 1, 2]))
    loss.backward()
    grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert set(grads) == set(model.trained_parameters())
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads.values())


def test_the_text_tells_tasks_apart_image_by_image() -> None:
    tasks = (TaskText(organ="colon"), TaskText(organ="breast"))
    model = make(tasks=tasks)
    with torch.inference_mode():
        colon, breast = (model.features(images(), torch.full((3,), number)) for number in (0, 1))
        mixed = model.features(images(), torch.tensor([0, 1, 0]))
    assert not torch.allclose(colon, breast)
    torch.testing.assert_close(mixed, torch.stack([colon[0], breast[1], colon[2]]))
    with pytest.raises(ConfigError, match="2 tasks"):
        model.features(images())


def test_dropout_acts_while_training_only() -> None:
    model = make(prompt_dropout=0.5, head_dropout=0.5)
    with torch.inference_mode():
        assert torch.equal(model(images()), model(images()))
        model.train()
        assert not torch.equal(model(images()), model(images()))


def test_without_classes_there_are_features_but_no_logits() -> None:
    model = make(classes=())
    assert model.features(images()).shape == (3, model.feature_dim) == (3, 2 * DIM)
    with pytest.raises(ConfigError, match="no classes"):
        model(images())


def test_text_states_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"text_states must be of shape \(1, 8, H\)"):
        PathoTune(PathoTuneConfig(), small_vit(), torch.zeros(1, 7, 20))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: nn.Linear(2, 2), "VisionTransformer, got Linear"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1), "VisionTransformerDistilled"),
        (lambda: timm.create_model("vit_tiny_r_s16_p8_224", depth=1), "HybridEmbed"),
        (lambda: VisionTransformer(depth=1, embed_dim=24, num_heads=2, class_token=False, global_pool=""), "none"),
        (lambda: VisionTransformer(depth=1, embed_dim=24, num_heads=2, global_pool="avg"), "'avg'"),
    ],
)
def test_networks_that_are_no_plain_vit_are_refused(network: Any, reason: str) -> None:
    with pytest.raises(BackboneError, match=reason):
        PathoTune(PathoTuneConfig(**OFF), network())
