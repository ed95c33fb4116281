"""How alike two maps are."""

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet.trust.contract import Case, Spread
from resnet.trust.control import DRAWS, random_maps

NO_ORDER = "The map is the same everywhere, so it has no order to compare."
WINDOW, DEVIATION = 11, 1.5  # of SSIM's Gaussian, in pixels (Wang et al. 2004)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation (N,) of maps `a` (N, *S) with `b`, equal values sharing their mean rank.

    NaN where `a` is constant, as it has no order; 0 where `b` alone is.
    """
    x, y = (_ranks(maps) for maps in (a, b))  # (N, P), of mean 0
    own, other = x.square().sum(1), y.square().sum(1)
    alike = (x * y).sum(1) / (own * other).sqrt().clamp_min(1e-12)
    return alike.masked_fill(own == 0, torch.nan).float()


def _ranks(maps: Tensor) -> Tensor:
    table = pd.DataFrame(maps.flatten(1).T.cpu().numpy())
    ranks = torch.from_numpy(table.rank().to_numpy(copy=True)).T
    return ranks - ranks.mean(1, keepdim=True)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity (N,) of maps (N, *S) >= 0, each scaled to a maximum of 1 (Wang et al. 2004)."""
    x, y = (_scaled(maps) for maps in (a, b))
    means = _blurred(torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 1)).unflatten(0, (5, -1))
    mx, my, xx, yy, xy = means  # each (N k, 1, h, w)
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    alike = alike / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2))
    return alike.reshape(len(a), -1).mean(1).cpu()


def _scaled(maps: Tensor) -> Tensor:
    """(N, *S) -> (N k, 1, H, W): the k frames of a volume are pictures of their own."""
    top = maps.flatten(1).amax(1).clamp_min(1e-30).view(-1, *[1] * (maps.dim() - 1))
    return (maps / top).double().reshape(-1, 1, *maps.shape[-2:])


def _blurred(x: Tensor) -> Tensor:
    size = min(WINDOW, *x.shape[-2:])
    size -= 1 - size % 2  # odd
    at = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    bell = (-at.square() / (2 * DEVIATION**2)).exp()
    bell = bell / bell.sum()
    return F.conv2d(F.conv2d(x, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))


def by_chance(case: Case, maps: Tensor) -> Spread:
    """Rank correlation of maps (N, *S) with random ones, the mean over the images, over several draws."""
    draws = [spearman(maps, random_maps(case, draw)).nanmean() for draw in range(DRAWS)]
    return Spread.of(torch.stack(draws))
