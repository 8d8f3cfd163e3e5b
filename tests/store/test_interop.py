"""Our feature stores, read as the loaders of other tools read theirs: plain h5py, none of our code.

Each reader below was written from what the tool documents and does: TRIDENT's `read_coords` and feature files, CLAM's
bags of h5 files, torchmil's CLAM data set, Patho-Bench's patch embeddings. None of the tools is needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import pytest
import torch
from numpy.typing import NDArray

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.encoders.colour import ColourPlan
from wsi_pipeline.store.tables.feature_table import read_feature_table

PATCH_PX, OVERLAP_PX = 64, 16
TRIDENT_INTEGERS = ("patch_size", "patch_size_level0", "overlap", "level0_width", "level0_height")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on four slides at 0.5 mpp tiled at 1 mpp, and one blank slide."""
    folder = tmp_path_factory.mktemp("interop")
    slides, run = write_cohort(folder), folder / "wsi-run"
    tile = ["tile", str(slides), "--run", str(run), "--workers", "0", "--mpp", "1"]
    assert main([*tile, "--patch-px", str(PATCH_PX), "--overlap-px", str(OVERLAP_PX)]) == 3  # one slide is broken
    assert main(["embed", "--model", "colour", "--run", str(run)]) == 3
    return run


def trident_coords(path: Path) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """TRIDENT: all attributes of `coords` as a dict, and the coordinates."""
    with h5py.File(path, "r") as file:
        return dict(file["coords"].attrs), file["coords"][:]


def clam_bag(folder: Path, slide_id: str) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """CLAM with load_from_h5(True): features as a tensor, coords as an array, from <slide_id>.h5."""
    with h5py.File(folder / f"{slide_id}.h5", "r") as file:
        return torch.from_numpy(file["features"][:]), file["coords"][:]


def torchmil_bag(folder: Path, name: str, patch_size: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """torchmil: features X and, for its adjacency matrix, coordinates as columns and rows from 0."""
    with h5py.File(folder / f"{name}.h5", "r") as file:
        features, coords = np.asarray(file["features"][:]), file["coords"][:]
    cells = coords / patch_size
    return torch.from_numpy(features), (cells - cells.min(axis=0)).astype(int)


def patho_bench_sample(paths: list[Path]) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, Any]]]:
    """Patho-Bench: the slides of one patient end to end, each with the attributes of its coords."""
    features, coords, attrs = [], [], []
    for path in paths:
        with h5py.File(path, "r") as file:
            features.append(torch.from_numpy(file["features"][:]))
            coords.append(torch.from_numpy(file["coords"][:]))
            attrs.append(dict(file["coords"].attrs))
    return torch.cat(features), torch.cat(coords), attrs


@pytest.mark.parametrize("stage", ["tile", "embed/colour"])
def test_trident_finds_its_attributes_with_its_types(run: Path, stage: str) -> None:
    attrs, coords = trident_coords(run / stage / "s0.h5")
    assert coords.dtype == np.int64
    assert coords.shape[1] == 2
    assert {key: int(attrs[key]) for key in TRIDENT_INTEGERS} == {
        "patch_size": PATCH_PX, "patch_size_level0": 2 * PATCH_PX, "overlap": OVERLAP_PX,
        "level0_width": 1024, "level0_height": 1024,
    }  # fmt: skip
    assert all(np.issubdtype(type(attrs[key]), np.integer) for key in TRIDENT_INTEGERS)
    assert (attrs["level0_magnification"], attrs["target_magnification"]) == (20, 10)
    assert attrs["name"] == "s0"
    assert isinstance(attrs["name"], str)


def test_trident_would_read_the_same_patches(run: Path) -> None:
    """It derives the level-0 side from the two magnifications; what it reads there has the features we stored.

    Its pixels and ours, shrunk in different ways, differ by less than 1 grey value on average. Features of other
    patches of the same tissue may differ by as little, so the pixels say which patch is which.
    """
    attrs, coords = trident_coords(run / "embed/colour" / "s1.h5")
    side = int(attrs["patch_size"] * attrs["level0_magnification"] / attrs["target_magnification"])
    assert side == attrs["patch_size_level0"]
    shrink = side // int(attrs["patch_size"])
    with openslide.OpenSlide(run.parent / "s1.svs") as slide:
        regions = [slide.read_region((int(x), int(y)), 0, (side, side)).convert("RGB") for x, y in coords]
    theirs = np.stack([np.asarray(region.reduce(shrink)) for region in regions]).astype(np.int16)
    ours = kept_pixels(run.parent, "s1")
    apart = np.stack([np.abs(theirs - patch).mean(axis=(1, 2, 3)) for patch in ours])
    own, others = np.diag(apart), apart[~np.eye(len(apart), dtype=bool)]
    assert own.max() < 1
    assert others.min() > 10
    stored, _ = clam_bag(run / "embed" / "colour", "s1")
    np.testing.assert_allclose(stored.numpy(), ColourPlan().open().encode(ours), rtol=2e-3, atol=2e-3)


def kept_pixels(folder: Path, slide_id: str) -> NDArray[np.uint8]:
    """The patches of a slide of the run above, as they are read for the encoder."""
    again = folder / "pixels"
    tile = ["tile", str(folder / "slides.csv"), "--run", str(again), "--workers", "0", "--mpp", "1", "--pixels", "raw"]
    assert main([*tile, "--patch-px", str(PATCH_PX), "--overlap-px", str(OVERLAP_PX), "--only", slide_id]) == 0
    with h5py.File(again / "tile" / f"{slide_id}.h5", "r") as file:
        images: NDArray[np.uint8] = file["images"][:]
    return images


def test_overlap_gives_the_stride_as_trident_has_it(run: Path) -> None:
    attrs, coords = trident_coords(run / "embed/colour" / "s0.h5")
    step = attrs["patch_size_level0"] * (attrs["patch_size"] - attrs["overlap"]) // attrs["patch_size"]
    assert (coords % step == 0).all()
    assert step in np.diff(np.unique(coords[:, 0]))


def test_clam_gets_a_row_for_every_coordinate(run: Path) -> None:
    features, coords = clam_bag(run / "embed" / "colour", "s0")
    assert features.shape == (len(coords), 133)
    assert features.dtype == torch.float16
    linear = torch.nn.Linear(133, 4)
    assert linear(features.float()).isfinite().all()
    ours = read_feature_table(run / "embed" / "colour" / "s0.h5")
    np.testing.assert_array_equal(features.numpy(), ours.features)
    np.testing.assert_array_equal(coords, ours.coords)


def test_torchmil_builds_a_grid_of_whole_cells(run: Path) -> None:
    stride = 2 * (PATCH_PX - OVERLAP_PX)
    features, cells = torchmil_bag(run / "embed" / "colour", "s2", patch_size=stride)
    assert features.ndim == 2
    assert len(features) == len(cells)
    assert cells.min(axis=0).tolist() == [0, 0]
    assert len(np.unique(cells, axis=0)) == len(cells)  # no two patches fall into one cell
    distances = np.linalg.norm(cells[:, None] - cells[None], axis=2)
    neighbours = (distances <= np.sqrt(2)).sum(axis=1) - 1
    assert neighbours.min() >= 1
    assert neighbours.max() == 8


def test_patho_bench_puts_the_slides_of_a_patient_together(run: Path) -> None:
    paths = [run / "embed" / "colour" / f"s{k}.h5" for k in (0, 2)]
    features, coords, attrs = patho_bench_sample(paths)
    assert features.shape == (len(coords), 133)
    assert [item["name"] for item in attrs] == ["s0", "s2"]
    assert {int(item["patch_size_level0"]) for item in attrs} == {2 * PATCH_PX}


def test_a_slide_without_patches_is_an_empty_bag_everywhere(run: Path) -> None:
    features, coords = clam_bag(run / "embed" / "colour", "blank")
    assert features.shape == (0, 133)
    assert coords.shape == (0, 2)
    attrs, _ = trident_coords(run / "tile" / "blank.h5")
    assert attrs["patch_size"] == PATCH_PX


def test_float32_features_for_tools_that_do_not_cast(run: Path) -> None:
    assert main(["embed", "--model", "colour", "--dtype", "float32", "--only", "s0", "--run", str(run)]) == 0
    features, _ = clam_bag(run / "embed" / "colour", "s0")
    assert features.dtype == torch.float32
    assert torch.nn.Linear(133, 4)(features).isfinite().all()
