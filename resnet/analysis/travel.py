"""Where the loss's gradient travels at each addition: through the shortcut, or through the branch."""

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.errors import Refused
from resnet.nets.borrow import borrowed
from resnet.nets.model import blocks

COLUMNS = ["name", "block", "shortcut", "branch", "cosine", "both"]


class Addition(NamedTuple):
    """Tensors of one block's run: what it read (N, C, H, W), the two parts of its sum, and the sum (N, C', H', W')."""

    name: str
    x: Tensor
    shortcut: Tensor
    branch: Tensor
    total: Tensor


def no_additions(model: nn.Module) -> str:
    """Why an analysis of additions does not apply to a net, "" where it does."""
    adding = (block.downsample is not None and block.mode == "both" for block in blocks(model).values())
    return "" if any(adding) else "This net adds no shortcut to a branch, so its gradient has only one way to go."


def additions(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Addition]]:
    """The mean cross-entropy of images (N, C, H, W) with labels (N,), and the additions that ran, in running order.

    All tensors are in one graph. Call it on a borrowed net with gradients enabled. Refused where nothing is added.
    """
    if reason := no_additions(model):
        raise Refused(reason)
    found: list[Addition] = []

    def watch(name: str, block: nn.Module, add: nn.Module) -> None:
        read: list[Tensor] = []
        block.register_forward_pre_hook(lambda module, args: read.append(args[0]))
        add.register_forward_hook(
            lambda module, parts, total: found.append(Addition(name, read[0], parts[0], parts[1], total))
        )

    for name, block in blocks(model).items():
        if block.downsample is not None:
            watch(name, block, block.add)
    weight = next(model.parameters())
    x = images.detach().to(weight, copy=True).requires_grad_()
    return F.cross_entropy(model(x), labels.to(weight.device)), found


def pull_back(gradient: Tensor, output: Tensor, x: Tensor) -> Tensor:
    """What dL/d(output) adds to dL/dx. The graph stays for further calls."""
    return torch.autograd.grad(output, x, gradient, retain_graph=True)[0]


def travel(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    """How dL/dx of each block's input x is put together: name, block (1..n), shortcut, branch, cosine, both.

    `shortcut` and `branch` are the L2 norms of the parts of dL/dx that come through them, `cosine` is that between
    these parts (nan where one is 0), and `both` the norm of their sum, which is dL/dx.
    L is the mean cross-entropy in nats over images (N, C, H, W) with labels (N,), with batch statistics. Where a
    pre-activation block's shortcut is no identity, both parts pass the block's first norm and activation.
    Refused where nothing is added.
    """
    rows = []
    with borrowed(model, train=True), torch.enable_grad():
        loss, found = additions(model, images, labels)
        output, gradient = loss, torch.ones_like(loss)
        for number, here in reversed([*enumerate(found, 1)]):
            gradient = pull_back(gradient, output, here.total)  # dL/d(sum)
            shortcut, branch = (pull_back(gradient, part, here.x) for part in (here.shortcut, here.branch))
            output, gradient = here.x, shortcut + branch
            norms = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in (shortcut, branch, gradient)]
            cosine = torch.sum(shortcut.double() * branch) / (norms[0] * norms[1])
            rows.append((here.name, number, *map(float, (norms[0], norms[1], cosine, norms[2]))))
    return pd.DataFrame(rows[::-1], columns=COLUMNS)


def _steps(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    yield Partial(1.0, travel(model, images, labels))


TRAVEL = Analysis(
    title="Where the gradient travels",
    question="Does the gradient go back through the shortcuts or through the branches?",
    function=_steps,
    formula=r"$\partial L / \partial x_l = J_{\text{shortcut}}^\top g_l + J_{\text{branch}}^\top g_l$ with $g_l$ the "
    r"gradient at block $l$'s addition; the figure has the norms of both terms and the cosine between them",
    paper="He et al. 2016, arXiv 1603.05027",
    look="In an untrained net both parts are at right angles (cosine near 0), so their squares add up. With batch norm "
    "the branch brings more in the first blocks and the shortcut in the later ones: ResNet-56 goes from a ratio of 2 "
    "to 0.4. Without a norm the branch brings more in every block, and the gradient explodes.",
    expect="Each addition passes its whole gradient to both ways. Through which of them does more of it reach the "
    "input, in an untrained net? Think of how large a branch is beside its shortcut.",
    reason=no_additions,
)
