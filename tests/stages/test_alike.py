"""Which settings of two sets of features are compared: what a patch looks like, and which patches there are."""

from __future__ import annotations

from typing import Any

import pytest

from wsi_pipeline.config.specs import EmbedSpec, SegmentSpec, TileSpec
from wsi_pipeline.stages.inputs.alike import differing_patches, differing_tissue, tissue_warnings

NETWORK = {"network": "GrandQC's tissue network", "mpp": 10.0, "sha256": "ab" * 32}


def specs(**changed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings as stores name them, with changes by stage."""
    found = {"segment": vars(SegmentSpec()), "tile": TileSpec().facts(), "embed": EmbedSpec().facts()}
    return {stage: {**found.get(stage, {}), **changed.get(stage, {})} for stage in {*found, *changed}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tile": {"patch_px": 512}}, ["patch_px 512, not 256"]),
        ({"tile": {"mpp": 1.0}}, ["mpp 1.0, not 0.5"]),
        ({"embed": {"input_px": 448}}, ["input_px 448, not 0"]),
        ({"embed": {"whole_patch": True}}, ["whole_patch True, not False"]),
        ({"embed": {"stain_norm": "macenko", "stain_target": "k"}}, ["stain_norm macenko, not none"]),
        ({"embed": {"precision": "bf16", "dtype": "float32"}}, []),
        ({"segment": {"method": "otsu"}, "tile": {"overlap_px": 64}}, []),
    ],
)
def test_what_a_patch_looks_like_is_refused(changed: dict[str, Any], said: list[str]) -> None:
    assert differing_patches(specs(**changed), specs()) == said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"segment": {"method": "otsu"}}, ["method otsu, not hybrid"]),
        ({"segment": {"mask_mpp": 4.0}}, ["mask_mpp 4.0, not 8.0"]),
        ({"segment": {"max_hole_um2": 0.0}}, ["max_hole_um2 0.0, not 50000.0"]),
        ({"tile": {"overlap_px": 64, "min_coverage": 0.5}}, ["overlap_px 64, not 0", "min_coverage 0.5, not 0.25"]),
        ({"tile": {"drop_artefacts": True}}, ["drop_artefacts True, not False"]),
        (
            {"networks": {"artefacts": NETWORK}},
            ["network for artefacts: GrandQC's tissue network (weights abababababab), not none"],
        ),
        ({"tile": {"pixels": "jpeg", "jpeg_quality": 80}}, []),
        ({}, []),
    ],
)
def test_which_patches_there_are_is_told_with_both_values(changed: dict[str, Any], said: list[str]) -> None:
    assert differing_tissue(specs(**changed), specs()) == said
    warnings = tissue_warnings(specs(**changed), specs())
    assert len(warnings) == bool(said)
    assert all(one in warnings[0] for one in said)


def test_the_same_network_with_other_weights_is_told() -> None:
    mine, its = specs(networks={"tissue": NETWORK}), specs(networks={"tissue": {**NETWORK, "sha256": "cd" * 32}})
    (said,) = differing_tissue(mine, its)
    assert "weights abababababab" in said
    assert "weights cdcdcdcdcdcd" in said


def test_an_older_store_that_lacks_a_setting_is_not_said_to_differ() -> None:
    old = specs()
    del old["segment"]["max_hole_um2"]
    assert differing_tissue(specs(), old) == []
    imported = {"import": {"tool": "clam", "patch_px": 256}}
    assert differing_tissue(specs(), imported) == []
