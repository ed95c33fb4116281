"""Rank correlation and SSIM against their definitions, by loops."""

import math

import pytest
import torch
from torch import Tensor

from resnet.trust.similarity import spearman, ssim


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rank(values: list[float], value: float) -> float:
    """The mean place of those that are equal."""
    return sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2


def correlation(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    both = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return both / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 2, 4, 3)])
def test_spearman_correlates_ranks(shape: tuple[int, ...]) -> None:
    a, b = maps(1, *shape).round(), maps(1, *shape) + maps(2, *shape).round()  # with ties
    for found, one, other in zip(spearman(a, b), a.flatten(1).tolist(), b.flatten(1).tolist(), strict=True):
        wanted = correlation([rank(one, v) for v in one], [rank(other, v) for v in other])
        assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_spearman_of_monotone_and_constant_maps() -> None:
    a, flat = maps(1, 2, 5, 5), torch.full((2, 5, 5), 3.0)
    assert spearman(a, a.exp()).tolist() == pytest.approx([1, 1])
    assert spearman(a, -(a**3)).tolist() == pytest.approx([-1, -1])
    assert spearman(a, flat).tolist() == [0, 0]
    assert spearman(flat, a).isnan().all()
    assert spearman(flat, flat).isnan().all()


def wang(x: Tensor, y: Tensor, size: int) -> float:
    """Mean over all windows that fit of SSIM, with Gaussian weights of deviation 1.5."""
    at = torch.arange(size) - size // 2
    weights = torch.exp(-(at[:, None] ** 2 + at[None] ** 2) / 4.5).double()
    weights /= weights.sum()
    found = []
    for r in range(x.shape[0] - size + 1):
        for c in range(x.shape[1] - size + 1):
            a, b = (m[r : r + size, c : c + size].double() for m in (x, y))
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            both = (weights * (a - ma) * (b - mb)).sum()
            alike = (2 * ma * mb + 1e-4) * (2 * both + 9e-4)
            found.append(float(alike / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))))
    return sum(found) / len(found)


@pytest.mark.parametrize(("shape", "window"), [((14, 12), 11), ((6, 8), 5)])
def test_ssim_is_the_mean_over_windows(shape: tuple[int, int], window: int) -> None:
    a, b = maps(1, 2, *shape).abs(), (maps(1, 2, *shape) + maps(2, 2, *shape)).abs()
    for found, x, y in zip(ssim(5 * a, b), a, b, strict=True):
        assert float(found) == pytest.approx(wang(x / x.max(), y / y.max(), window), abs=1e-6)
    assert ssim(a, 3 * a).tolist() == pytest.approx([1, 1])
    assert ssim(0 * a, 0 * a).tolist() == pytest.approx([1, 1])
