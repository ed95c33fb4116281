"""Noisy linear imputation against the linear system, written out and solved densely."""

import pytest
import torch
from torch import Tensor

from resnet.seeds import generator
from resnet.trust import imputation
from resnet.trust.imputation import NOISE, imputed

BLANK = torch.tensor([0.5, -1.0]).view(2, 1, 1)


def picture() -> Tensor:
    return torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def solved(image: Tensor, missing: Tensor) -> Tensor:
    """One equation for each missing pixel: its weights' sum times itself is its neighbours' weighted sum."""
    _, height, width = image.shape
    places = [(int(r), int(c)) for r, c in missing.nonzero()]
    matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
    right = torch.zeros(len(places), len(image), dtype=torch.float64)
    for i, (r, c) in enumerate(places):
        for r2 in range(max(r - 1, 0), min(r + 2, height)):
            for c2 in range(max(c - 1, 0), min(c + 2, width)):
                weight = {0: 0.0, 1: 1 / 6, 2: 1 / 12}[abs(r2 - r) + abs(c2 - c)]
                matrix[i, i] += weight
                if missing[r2, c2]:
                    matrix[i, places.index((r2, c2))] -= weight
                else:
                    right[i] += weight * image[:, r2, c2]
    found = image.clone()
    for (r, c), value in zip(places, torch.linalg.solve(matrix, right), strict=True):
        found[:, r, c] = value
    return found


HOLES = {"corner": lambda r, c: (r < 4) & (c < 5), "middle": lambda r, c: (r > 1) & (r < 6) & (c > 2) & (c < 8),
         "chequered": lambda r, c: (r + c) % 2 == 0, "all but one": lambda r, c: (r != 3) | (c != 3),
         "none": lambda r, c: r < 0}  # fmt: skip


def hole(name: str) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij")
    found: Tensor = HOLES[name](rows, columns)
    return found


@pytest.mark.parametrize("name", HOLES)
def test_is_the_systems_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imputation, "TOLERANCE", 1e-12)
    found = imputed(picture()[None], hole(name)[None], BLANK)[0]
    torch.testing.assert_close(found, solved(picture(), hole(name)))


def test_is_close_at_the_usual_tolerance() -> None:
    images = torch.stack([picture()] * len(HOLES))
    found = imputed(images, torch.stack([hole(name) for name in HOLES]), BLANK)
    for name, one in zip(HOLES, found, strict=True):
        torch.testing.assert_close(one, solved(picture(), hole(name)), rtol=0, atol=0.01)


def test_a_picture_without_pixels_becomes_blank() -> None:
    found = imputed(picture()[None], torch.ones(1, 7, 9, dtype=torch.bool), BLANK)[0]
    torch.testing.assert_close(found, BLANK.double().expand(2, 7, 9))


def test_noise_is_added_to_what_is_filled_in_alone() -> None:
    images, missing = torch.zeros(1, 2, 90, 90), torch.zeros(1, 90, 90, dtype=torch.bool)
    missing[:, :, 45:] = True
    found = imputed(images, missing, BLANK, generator(3)) - imputed(images, missing, BLANK)
    assert found[..., :45].count_nonzero() == 0
    assert float(found[..., 45:].std()) == pytest.approx(NOISE, rel=0.05)
    assert torch.equal(found, imputed(images, missing, BLANK, generator(3)) - imputed(images, missing, BLANK))
