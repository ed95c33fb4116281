"""How the loss's gradient changes along a net, measured on one batch; any nn.Module will do."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.outputs import module_named
from resnet.errors import Refused
from resnet.nets import model as nets
from resnet.nets.borrow import borrowed

THEORY = math.sqrt(math.pi / (math.pi - 1))  # per layer of a plain net: 1.211 (Yang et al. 2019, arXiv 1902.08129)
OUTPUT, WEIGHT = "block output", "weight"  # kinds of rows
COLUMNS = ["name", "kind", "depth", "norm"]


def gradient_norms(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    blocks: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """L2 norms of dL/dx after every block and of dL/dW of every layer, in running order: name, kind, depth, norm.

    L is the mean cross-entropy in nats over images (N, C, H, W) with labels (N,). `blocks` and `layers` are names of
    modules, by default our nets' blocks and the weight layers on the main path; `depth` counts the layers that have
    run by then (1..L). The first "block output" is x_0, named "stem": what enters the first block.
    The net is borrowed and run with batch statistics: nothing in it changes, but nobody else may use it meanwhile.
    Refused for a name that it lacks or does not run once.
    """
    blocks = list(nets.blocks(model) if blocks is None else blocks)
    layers = list(nets.weight_layers(model) if layers is None else layers)
    with borrowed(model, train=True, grad=True), torch.enable_grad():
        tap = Tap(model, blocks, layers)
        weight = next(model.parameters())
        x = images.detach().to(weight, copy=True).requires_grad_()  # so that every module's output has a gradient
        loss = F.cross_entropy(model(x), labels.to(weight.device))
        tap.check()
        gradients = torch.autograd.grad(loss, tap.tensors, materialize_grads=True)
    norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients]).tolist()
    return pd.DataFrame([(*row, norm) for row, norm in zip(tap.rows, norms, strict=True)], columns=COLUMNS)


@dataclass(frozen=True)
class Trend:
    """How norms change on the way back to the input.

    `factor`: per layer, fitted (`fit_factor`), None where fewer than two norms are left to fit; `ratio`: the first
    norm over the last (`end_ratio`); `left_out`: of `norms` norms, those that are 0 or not finite, as neither number
    counts them.
    """

    factor: float | None
    ratio: float | None
    left_out: int
    norms: int


def trend(frame: pd.DataFrame, kind: str) -> Trend:
    """The trend of one net's norms of that kind; stem and head are no part of it."""
    ends = np.flatnonzero(frame.kind == OUTPUT)
    inside = frame.iloc[ends[0] : ends[-1] + 1] if len(ends) else frame
    rows = inside[inside.kind == kind]
    drawn = rows[(rows.norm > 0) & np.isfinite(rows.norm)]
    left_out = len(rows) - len(drawn)
    if drawn.depth.nunique() < 2:
        return Trend(None, None, left_out, len(rows))
    return Trend(fit_factor(drawn.depth, drawn.norm), end_ratio(drawn.norm), left_out, len(rows))


def end_ratio(norms: Sequence[float] | np.ndarray | pd.Series) -> float:
    """||dL/dx_0|| / ||dL/dx_last||, from norms in running order; > 1 where gradients grow towards the input.

    x_0 enters the first block and x_last leaves the last one, as in the "block output" rows of `gradient_norms`.
    """
    ends = np.asarray(norms, dtype=np.float64)[[0, -1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(ends[0] / ends[1])


def fit_factor(depth: Sequence[int] | np.ndarray | pd.Series, norm: Sequence[float] | np.ndarray | pd.Series) -> float:
    """The factor per layer by which norms grow towards the input: least squares of log(norm) on depth.

    Norms that are 0 or not finite have no logarithm and are left out; Refused where fewer than two depths remain.
    """
    x, y = np.asarray(depth, dtype=np.float64), np.asarray(norm, dtype=np.float64)
    usable = np.isfinite(y) & (y > 0)
    if len(np.unique(x[usable])) < 2:
        raise Refused(f"A factor needs positive, finite norms at two depths. Received {y.tolist()}.")
    slope = np.polyfit(x[usable], np.log(y[usable]), 1)[0]
    return float(np.exp(-slope))


class Tap:
    """Hooks on a net: which tensors to differentiate by, and how many layers ran before each."""

    def __init__(self, model: nn.Module, blocks: Sequence[str], layers: Sequence[str]) -> None:
        self.model = model
        self.wanted = {*blocks, *layers}  # each is to run once
        self.rows: list[tuple[str, str, int]] = []  # name, kind, depth
        self.tensors: list[Tensor] = []
        self.run = 0
        for name in layers:
            self._layer(name)
        if blocks:
            self._before("stem", blocks[0])
        for name in blocks:
            self._after(name)

    def _take(self, name: str, kind: str, tensor: Tensor) -> None:
        self.rows.append((name, kind, self.run))
        self.tensors.append(tensor)

    def _layer(self, name: str) -> None:
        """Take the layer's weight once it runs."""
        weight = getattr(module_named(self.model, name), "weight", None)
        if not isinstance(weight, Tensor):
            raise Refused("A layer must have a weight.", repr(name), "convolutions and linear layers")

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.run += 1
            self._take(name, WEIGHT, weight)

        module_named(self.model, name).register_forward_hook(hook)

    def _before(self, label: str, name: str) -> None:
        """Take what enters the module `name`."""

        def hook(module: nn.Module, args: Any) -> Any:
            self._take(label, OUTPUT, args[0])
            return args[0].clone(), *args[1:]  # a copy, since a module may work in place

        module_named(self.model, name).register_forward_pre_hook(hook)

    def _after(self, name: str) -> None:
        """Take what leaves the module `name`."""

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            self._take(name, OUTPUT, output)
            return output.clone()

        module_named(self.model, name).register_forward_hook(hook)

    def check(self) -> None:
        """Refused unless every named module has run once."""
        ran = Counter((name, kind) for name, kind, _ in self.rows)
        odd = self.wanted - {name for name, _ in ran} | self.wanted & {name for (name, _), n in ran.items() if n > 1}
        if odd:
            rule = "Every named module must run exactly once per forward pass."
            raise Refused(rule, ", ".join(sorted(odd)), "modules that do")


def _steps(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    yield Partial(1.0, gradient_norms(model, images, labels))


GRADIENTS = Analysis(
    title="Gradient flow",
    question="Do the gradients of a deep plain net vanish?",
    function=_steps,
    formula=r"$\lVert \partial L / \partial x_l \rVert_2$ after every block, "
    r"$\lVert \partial L / \partial W_l \rVert_2$ of every layer. "
    r"In theory a plain net with batch norm has $\sqrt{\pi / (\pi - 1)} = 1.211$ per layer",
    paper="Yang et al. 2019, arXiv 1902.08129",
    look="With batch norm an untrained plain net's gradients grow towards the input: they explode, and do not vanish "
    "(He et al. 2015, section 4.1, found “healthy norms with BN”). The residual net's grow far less. Without a norm it "
    "is the other way round: the residual net's explode, unless its branches start at zero.",
    expect="Textbooks say that a deep plain net's gradients vanish towards the input. Will the line fall or rise?",
)
