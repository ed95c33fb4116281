"""A residual net as a sum of paths: how many there are of each length, and how much gradient comes through them."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import product

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.travel import Addition, additions, no_additions, pull_back
from resnet.errors import Refused
from resnet.nets.borrow import borrowed

MOST_BLOCKS = 12  # whose paths `sum_of_paths` walks, all of them

Path = tuple[bool, ...]  # of each block, input to output: through the branch, else through the shortcut


def path_lengths(model: nn.Module, images: Tensor, labels: Tensor, samples: int = 8, seed: int = 0) -> Steps:
    """Paths by length, after each sample: length, paths, walked, gradient, total.

    A path goes back from the loss to x_0, which enters the first block, and takes in each of n blocks the branch or
    the shortcut; its `length` is the number of branches, 0..n. There are `paths` of that length, C(n, length);
    `gradient` is the mean L2 norm of the part of dL/dx_0 that comes through one of them, over those `walked`, and
    `total` is paths times gradient. One forward pass fixes what all of them go through, so that the parts of all 2^n
    paths add up to dL/dx_0. L is the mean cross-entropy in nats over images (N, C, H, W) with labels (N,), with batch
    statistics.
    A sample is a random order of the blocks, drawn from `seed`, in which their gradient moves from the shortcut to
    the branch: one path of each length, drawn uniformly, and much shared work. Where 2^n paths are no more than all
    samples have, all are walked instead.
    Source: Veit et al. 2016, arXiv 1605.06431. Refused where nothing is added.
    """
    with borrowed(model, train=True), torch.enable_grad():
        loss, found = additions(model, images, labels)
        rounds = _rounds(len(found), samples, seed)
        norms: list[list[float]] = [[] for _ in range(len(found) + 1)]
        for done, paths in enumerate(rounds, 1):
            for path, gradient in _walk(loss, found, paths):
                norms[sum(path)].append(float(torch.linalg.vector_norm(gradient, dtype=torch.float64)))
            yield Partial(done / len(rounds), _table(norms))


def mean_length(table: pd.DataFrame) -> float:
    """The mean length of the paths of `path_lengths`, weighted by their gradients."""
    return float((table.length * table.total).sum() / table.total.sum())


def sum_of_paths(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How far the sum over all 2^n paths is from dL/dx_0: the norm of the difference over that of dL/dx_0.

    L as in `path_lengths`. Refused above `MOST_BLOCKS` blocks, or where nothing is added.
    """
    with borrowed(model, train=True), torch.enable_grad():
        loss, found = additions(model, images, labels)
        if len(found) > MOST_BLOCKS:
            raise Refused("All 2^n paths are walked only in a small net.", len(found), f"1 to {MOST_BLOCKS} blocks")
        [whole] = torch.autograd.grad(loss, found[0].x, retain_graph=True)
        summed = torch.zeros_like(whole)
        for _, gradient in _walk(loss, found, _every(len(found))):
            summed += gradient
        return float(torch.linalg.vector_norm(summed - whole) / torch.linalg.vector_norm(whole))


def _every(n: int) -> list[Path]:
    return list(product((False, True), repeat=n))


def _rounds(n: int, samples: int, seed: int) -> list[list[Path]]:
    """The paths of each sample, or all paths at once where those are no more."""
    if 2**n <= samples * (n + 1):
        return [_every(n)]
    draw = random.Random(seed)
    orders = [draw.sample(range(n), n) for _ in range(samples)]
    return [[tuple(turn < length for turn in order) for length in range(n + 1)] for order in orders]


def _walk(loss: Tensor, found: Sequence[Addition], paths: list[Path]) -> Iterator[tuple[Path, Tensor]]:
    """Each path with its part of dL/dx_0; what several have in common, seen from the loss, is run once."""
    stack = [(loss, torch.ones_like(loss), len(found), paths)]
    while stack:
        output, gradient, left, paths = stack.pop()
        if not left:
            yield from ((path, gradient) for path in paths)
            continue
        here = found[left - 1]
        gradient = pull_back(gradient, output, here.total)
        for branch, part in ((False, here.shortcut), (True, here.branch)):
            if chosen := [path for path in paths if path[left - 1] == branch]:
                stack.append((here.x, pull_back(gradient, part, here.x), left - 1, chosen))


def _table(norms: Sequence[Sequence[float]]) -> pd.DataFrame:
    n = len(norms) - 1
    table = pd.DataFrame({
        "length": range(n + 1),
        "paths": [float(math.comb(n, length)) for length in range(n + 1)],
        "walked": [len(each) for each in norms],
        "gradient": [sum(each) / len(each) for each in norms],
    })  # fmt: skip
    return table.assign(total=table.paths * table.gradient)


PATHS = Analysis(
    title="Path lengths",
    question="How deep is the net that the gradient sees?",
    function=path_lengths,
    formula=r"A net of $n$ blocks has $\binom{n}{k}$ paths with $k$ branches. The figure has their number, the mean "
    r"norm of the part of $\partial L / \partial x_0$ that comes through one, and the product of the two",
    paper="Veit et al. 2016, arXiv 1605.06431",
    look="The gradient of one path falls by a factor with each branch, while the number of paths peaks at half of the "
    "blocks. Their product peaks at shorter paths: in ResNet-56 as drawn most of it comes through 7 to 15 of 27 "
    "branches, on average through 11, where the commonest paths have 13 or 14.",
    expect="Half of the branches are on a path of the commonest length. Does most of the gradient come through paths "
    "of that length, through shorter or through longer ones?",
    options={"samples": 8, "seed": 0},
    passes=lambda blocks, options: 1 + options["samples"] * (blocks + 3) / 4,
    reason=no_additions,
)
