"""One block of a net on one picture: the addition, the branch layer by layer, both paths back, and one SGD step.

A trained net sees the picture alone, with its running statistics. Those of an untrained net describe nothing yet: look
at it with `batch_statistics`, and at the picture `among_noise`, for batch norm divides by what a batch has. Stochastic
depth and dropout act as they do after training, so that nothing is random.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.gradients import Tap
from resnet.errors import Refused, choose
from resnet.nets import model as nets
from resnet.nets.blocks import Block
from resnet.nets.borrow import borrowed

X, BRANCH, SHORTCUT, SUM, Y = OUTER = ("x", "F(x)", "shortcut", "sum", "y")  # a block's tensors that are no layers
THROUGH_SHORTCUT, THROUGH_BRANCH = "x through shortcut", "x through branch"  # the two parts of dL/dx
MAPS, SIDE = 6, 32  # channels kept of each tensor, and the longest side of their maps in cells
COMPANY = 7  # noise images around a picture


@dataclass(frozen=True)
class Meeting:
    """Two tensors that add up, one of the shortcut and one of the branch: L2 norms of both and of their `total`.

    `cosine` is between the two, nan where one is 0. `share` is the branch's part of the total's squared norm,
    <branch, total> / <total, total>; the shortcut's is the rest, and either may be negative. `gap` is what rounding
    leaves of shortcut + branch - total, over the total.
    """

    shortcut: float
    branch: float
    total: float
    cosine: float
    share: float
    gap: float


@dataclass(frozen=True)
class View:
    """A block on one picture, forward and backward; L is the picture's cross-entropy in nats.

    probabilities: (classes,). layers: in running order x, the branch's layers, F(x), shortcut, sum (before the last
    activation) and y, each with name, module, role, shape (of one picture) and L2 norms: norm of the tensor, gradient
    of dL/d(tensor). A plain block has no shortcut and no sum. maps, gradients: of each name `MAPS` channels as float32
    (M, h, w), averaged down to `SIDE` cells where they are larger; gradients has the two parts of dL/dx as well.
    channels: which ones; tensors that add up show the same. forward: at the addition. backward: at x.
    """

    loss: float
    probabilities: np.ndarray
    layers: pd.DataFrame
    maps: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    channels: dict[str, list[int]]
    forward: Meeting
    backward: Meeting


@dataclass(frozen=True)
class Microscope:
    """A block `before` and `after` one step of SGD on the picture's loss; the net itself does not take it.

    shortcut: its kind in this block, "" for none. step: name, weight, gradient, update (L2 norms) and ratio (update /
    weight) of each weight layer of the net. Undoing the step is showing `before` again.
    """

    block: str
    shortcut: str
    lr: float
    before: View
    after: View
    step: pd.DataFrame

    @property
    def note(self) -> str:
        """What the block lacks, "" for nothing."""
        return "" if self.shortcut else "A plain block has no shortcut: y comes from F(x) alone, and so does dL/dx."


def among_noise(picture: Tensor, seed: int = 0) -> Tensor:
    """A prepared picture (1, C, *S) and `COMPANY` Gaussian images after it, to take batch statistics of."""
    noise = torch.randn(COMPANY, *picture.shape[1:], generator=torch.Generator().manual_seed(seed))
    return torch.cat([picture, noise.to(picture)])


def microscope(
    model: nn.Module, images: Tensor, label: int, block: str = "", lr: float = 0.1, batch_statistics: bool = False
) -> Microscope:
    """The block of that name, by default the middle one, on the first of the images (N, C, *S), whose class is `label`.

    The other images count in batch norm's statistics and nowhere else. The step is W - lr dL/dW for every parameter,
    SGD's first step whatever its momentum. The net is borrowed and left as it was. Refused for a net without such a
    block, and for a learning rate that is not above 0.
    """
    if not lr > 0:
        raise Refused("A learning rate must be above 0.", lr)
    if _reason(model):
        raise Refused(_reason(model))
    found = nets.blocks(model)
    block = block or list(found)[len(found) // 2]
    choose("block", block, found)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    before, gradients = _look(model, weights, images, label, block, batch_statistics, {})
    stepped = {name: weight - lr * gradients[name] for name, weight in weights.items()}
    after, _ = _look(model, stepped, images, label, block, batch_statistics, before.channels)
    step = pd.DataFrame({"name": list(nets.weight_layers(model))})
    for column, tensors in (("weight", weights), ("gradient", gradients)):
        step[column] = [_norm(tensors[f"{name}.weight"]) for name in step.name]
    step["update"] = lr * step.gradient
    step["ratio"] = step["update"] / step.weight
    return Microscope(block, found[block].shortcut_kind, lr, before, after, step)


def _look(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    images: Tensor,
    label: int,
    name: str,
    batch_statistics: bool,
    channels: Mapping[str, list[int]],
) -> tuple[View, dict[str, Tensor]]:
    """The block in the net with these weights, and dL/dW of each by name; `channels` says which to show, if known."""
    block = nets.blocks(model)[name]
    called = _called(name, block)
    with borrowed(model), torch.enable_grad():
        for module in model.modules():
            if batch_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        tap = Tap(model, list(called), [])
        leaves = {key: weight.detach().requires_grad_() for key, weight in weights.items()}
        logits = functional_call(model, leaves, (images.detach().to(next(iter(leaves.values()))),))
        tap.check()
        loss = F.cross_entropy(logits[:1], torch.tensor([label], device=logits.device))
        tensors = {called.get(row[0], X): tensor for row, tensor in zip(tap.rows, tap.tensors, strict=True)}
        wanted = [*tensors.values(), *leaves.values()]
        gradients = torch.autograd.grad(loss, wanted, retain_graph=True, materialize_grads=True)
        back = dict(zip([*tensors, *leaves], gradients, strict=True))
        arriving = back.get(SUM, back[BRANCH])  # at both sides of the addition
        back[BRANCH] = arriving
        back[THROUGH_BRANCH] = torch.autograd.grad(tensors[BRANCH], tensors[X], arriving, retain_graph=True)[0]
        back[THROUGH_SHORTCUT] = torch.zeros_like(back[X])
        if SHORTCUT in tensors:
            back[SHORTCUT] = arriving  # autograd has more where the shortcut is x itself, which the branch reads too
            back[THROUGH_SHORTCUT] = torch.autograd.grad(tensors[SHORTCUT], tensors[X], arriving)[0]
    order = [X, *(key for key in tensors if key not in OUTER), *OUTER[1:]]
    first = {key: tensors[key][0].detach() for key in order if key in tensors}
    first_back = {key: back[key][0] for key in (*first, THROUGH_SHORTCUT, THROUGH_BRANCH)}
    shown = dict(channels) or _channels(first)
    view = View(
        loss=loss.item(),
        probabilities=logits[0].detach().softmax(0).cpu().numpy(),
        layers=_layers(block, first, first_back),
        maps={key: _small(tensor[shown[key]]) for key, tensor in first.items()},
        gradients={key: _small(tensor[shown.get(key, shown[X])]) for key, tensor in first_back.items()},
        channels=shown,
        forward=_meeting(first.get(SHORTCUT), first[BRANCH], first.get(SUM, first[BRANCH])),
        backward=_meeting(first_back[THROUGH_SHORTCUT], first_back[THROUGH_BRANCH], first_back[X]),
    )
    return view, {key: back[key] for key in leaves}


def _called(name: str, block: Block) -> dict[str, str]:
    """The modules to look at by their names in the net, the block first, and how their outputs are called here."""
    called = {name: Y, f"{name}.drop": BRANCH}
    if block.downsample is not None:
        called |= {f"{name}.downsample": SHORTCUT, f"{name}.add": SUM}
    for inside, module in block.named_modules():
        leaf = not any(module.children()) and not isinstance(module, nn.Identity)
        if leaf and block.role(inside) in ("branch", "se"):
            called.setdefault(f"{name}.{inside}", inside)
    return called


def _layers(block: Block, first: Mapping[str, Tensor], back: Mapping[str, Tensor]) -> pd.DataFrame:
    modules = {name: module for name, module in block.named_modules() if name not in OUTER}
    rows = [
        {
            "name": key,
            "module": type(modules[key]).__name__ if key in modules else "",
            "role": block.role(key) if key in modules else "",
            "shape": "×".join(map(str, tensor.shape)),
            "norm": _norm(tensor),
            "gradient": _norm(back[key]),
        }
        for key, tensor in first.items()
    ]
    return pd.DataFrame(rows)


def _channels(first: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The strongest channels of each tensor in the order of their numbers; x, F(x), shortcut and sum have y's."""
    shown = {}
    for key, tensor in first.items():
        like = first[Y] if key in OUTER and len(tensor) == len(first[Y]) else tensor
        strongest = like.flatten(1).norm(dim=1).topk(min(MAPS, len(like))).indices
        shown[key] = sorted(strongest.tolist())
    return shown


def _small(tensor: Tensor) -> np.ndarray:
    """(M, *S) as maps (M, h, w); a clip's are the means over its frames."""
    flat = tensor.flatten(1, -3).mean(1) if tensor.dim() > 3 else tensor
    height, width = (min(SIDE, side) for side in flat.shape[1:])
    return F.adaptive_avg_pool2d(flat, (height, width)).float().cpu().numpy()


def _meeting(shortcut: Tensor | None, branch: Tensor, total: Tensor) -> Meeting:
    b, y = branch.double().flatten(), total.double().flatten()
    s = torch.zeros_like(b) if shortcut is None else shortcut.double().flatten()
    cosine, share, gap = s @ b / (s.norm() * b.norm()), b @ y / (y @ y), (s + b - y).norm() / y.norm()
    return Meeting(*(value.item() for value in (s.norm(), b.norm(), y.norm(), cosine, share, gap)))


def _norm(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()


def _reason(model: nn.Module) -> str:
    return "" if nets.blocks(model) else "Only the nets that this program builds have blocks to look into."


def _steps(model: nn.Module, images: Tensor, labels: Tensor, block: str) -> Steps:
    yield Partial(1.0, microscope(model, images, int(labels[0]), block, batch_statistics=True).before.layers)


BLOCK = Analysis(
    title="One block",
    question="What does one block add to what it is given?",
    function=_steps,
    formula=r"$y = F(x) + x$, and on the way back "
    r"$\partial L / \partial x = \partial L / \partial y + (\partial F / \partial x)^\top \, \partial L / \partial y$, "
    r"both up to the last activation",
    paper="He et al. 2016, arXiv 1603.05027, equations 3 to 5",
    look="Compare F(x) with the shortcut, forward and back. The two stand almost at right angles, so squared norms add "
    "up. In an untrained ResNet-56 on noise the branch has 67 % of the sum's squared norm in the first block, 13 % in "
    "the middle one, 8 % in the last; of the gradient's, on the way back, 80 %, 30 % and 14 %.",
    expect="In the middle block of a deep residual net, how much of y comes from F(x): most of it, half, or little? "
    "And how much of the gradient goes back through the branch?",
    options={"block": ""},
    passes=lambda blocks, options: 6,
    reason=_reason,
)
