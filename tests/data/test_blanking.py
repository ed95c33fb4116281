"""Patches of an image: a partition into equal squares, blanked one at a time."""

import pytest
import torch

from resnet.data.blanking import GRID, blank, draw_patches, patches_of


def test_patches_are_squares_counted_by_rows() -> None:
    assert patches_of((4, 4), 2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_patches_of_clips_are_counted_by_frames_then_rows() -> None:
    found = patches_of((2, 4, 6), 2)
    assert found.shape == (2, 4, 6)
    assert [found[0, 0, 0], found[0, 0, 3], found[0, 3, 0], found[1, 0, 0], found[1, 3, 5]] == [0, 1, 2, 4, 7]


@pytest.mark.parametrize("size", [8, 28, 30, 33, 224])
def test_every_pixel_is_in_one_patch_and_patches_differ_by_a_row_at_most(size: int) -> None:
    counts = patches_of((size, size)).flatten().bincount()
    assert counts.sum() == size * size
    assert len(counts) == GRID**2
    assert set(counts.tolist()) <= {a * b for a in (size // 4, -(-size // 4)) for b in (size // 4, -(-size // 4))}


def test_a_patch_becomes_0_and_all_else_stays() -> None:
    images = torch.rand(3, 2, 8, 8) + 1
    out = blank(images, torch.tensor([0, 7, 16]))
    expected = images.clone()
    expected[0, :, :2, :2] = 0
    expected[1, :, 2:4, 6:8] = 0
    assert torch.equal(out, expected), "16 is no patch"


def test_half_of_the_images_lose_a_patch_and_every_patch_has_its_turn() -> None:
    drawn = draw_patches(32_000, torch.Generator().manual_seed(0))
    counts = drawn[drawn < GRID**2].bincount()
    assert len(counts) == GRID**2
    assert counts.min() > 850  # 1,000 less five deviations
    assert counts.max() < 1150
    assert 15_500 < counts.sum() < 16_500
