"""Changes of training images: nothing is invented, chance is seeded."""

from __future__ import annotations

import pytest
import torch

from pathotune.training.augment import jitter_stains, turn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symmetries(image: torch.Tensor) -> list[torch.Tensor]:
    return [torch.rot90(side, quarter, (1, 2)) for side in (image, image.flip(2)) for quarter in range(4)]


@pytest.mark.parametrize(("flips", "rotations", "ways"), [(True, True, 8), (False, True, 4), (True, False, 2)])
def test_images_are_turned_into_all_their_symmetries_and_no_others(flips: bool, rotations: bool, ways: int) -> None:
    image = torch.arange(3 * 16.0).reshape(3, 4, 4)
    many = turn(image.expand(400, -1, -1, -1), seeded(), flips=flips, rotations=rotations)
    counts = [int(sum(torch.equal(one, way) for one in many)) for way in symmetries(image)]
    assert sum(counts) == 400
    assert sum(count > 0 for count in counts) == ways
    assert min(count for count in counts if count) > 400 / ways / 2


def test_no_turning_leaves_images_alone() -> None:
    images = torch.rand(3, 3, 4, 4)
    assert torch.equal(turn(images, seeded(), flips=False, rotations=False), images)


def test_stain_jitter_keeps_white_nearly_white_and_changes_stained_tissue() -> None:
    white, tissue = (
        torch.full((64, 3, 2, 2), 255.0),
        torch.tensor([150.0, 90.0, 160.0]).view(1, 3, 1, 1).expand(64, 3, 2, 2),
    )
    assert float((jitter_stains(white, 0.2, seeded()) - white).abs().max()) < 20
    changed = jitter_stains(tissue, 0.2, seeded())
    assert float((changed - tissue).abs().mean()) > 3
    assert float(changed.std(dim=0).mean()) > 3
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 255


def test_stain_jitter_of_strength_zero_is_none() -> None:
    images = 255 * torch.rand(3, 3, 4, 4)
    assert jitter_stains(images, 0.0, seeded()) is images


def test_a_small_jitter_is_a_small_change() -> None:
    images = 255 * torch.rand(8, 3, 4, 4)
    torch.testing.assert_close(jitter_stains(images, 1e-6, seeded()), images, atol=0.05, rtol=0)
