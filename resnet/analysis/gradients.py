"""How the loss's gradient changes along a net, measured on one batch; any nn.Module will do."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.errors import Refused

OUTPUT, WEIGHT = "block output", "weight"  # kinds of rows
COLUMNS = ["name", "kind", "depth", "norm"]


def gradient_norms(
    model: nn.Module, images: Tensor, labels: Tensor, blocks: Sequence[str], layers: Sequence[str]
) -> pd.DataFrame:
    """L2 norms of dL/dx after every block and of dL/dW of every layer, in running order: name, kind, depth, norm.

    L is the mean cross-entropy in nats over images (N, C, H, W) with labels (N,). `depth` counts the layers of
    `layers` that have run by then (1..L). The first "block output" is x_0, named "stem": what enters the first block.
    A copy is run, with batch statistics, so nothing in the model changes; Refused for a name that it lacks or does
    not run once.
    """
    tap = _Tap(model, layers)
    if blocks:
        tap.before("stem", blocks[0])
    for name in blocks:
        tap.after(name)
    return tap.measure(images, labels)


def activation_gradients(model: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    """L2 norm of dL/d(output) of each named module, by name; as `gradient_norms`."""
    tap = _Tap(model, ())
    for name in names:
        tap.after(name)
    return _by_name(tap.measure(images, labels), names)


def weight_gradients(model: nn.Module, images: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, float]:
    """L2 norm of dL/dW of each named layer, by name; as `gradient_norms`."""
    return _by_name(_Tap(model, names).measure(images, labels), names)


def _by_name(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    norms = dict(zip(frame["name"], frame["norm"], strict=True))
    return {name: norms[name] for name in names}


def end_ratio(norms: Sequence[float] | np.ndarray | pd.Series) -> float:
    """||dL/dx_0|| / ||dL/dx_last||, from norms in running order; > 1 where gradients grow towards the input.

    x_0 enters the first block and x_last leaves the last one, as in the "block output" rows of `gradient_norms`.
    """
    ends = np.asarray(norms, dtype=np.float64)[[0, -1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(ends[0] / ends[1])


def end_factor(depth: Sequence[int] | np.ndarray | pd.Series, norms: Sequence[float] | np.ndarray | pd.Series) -> float:
    """The end ratio spread evenly over the weight layers between its ends, end_ratio ** (1 / layers).

    Theory for a plain net with batch norm and He init: sqrt(pi / (pi - 1)) = 1.211 (Yang et al., arXiv 1902.08129).
    """
    depths = np.asarray(depth)
    return end_ratio(norms) ** (1 / float(depths[-1] - depths[0]))


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


class _Tap:
    """Hooks on a private copy of a net: which tensors to differentiate by, and how many layers ran before each."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.net = copy.deepcopy(model).train().requires_grad_(True)
        self.wanted: set[str] = set()  # names that have yet to run
        self.rows: list[tuple[str, str, int]] = []  # name, kind, depth
        self.tensors: list[Tensor] = []
        self.run = 0
        for name in layers:
            weight = getattr(self._module(name), "weight", None)
            if not isinstance(weight, Tensor):
                raise Refused("A layer must have a weight.", repr(name), "convolutions and linear layers")
            self._module(name).register_forward_hook(self._layer_hook(name, weight))

    def _module(self, name: str) -> nn.Module:
        modules = dict(self.net.named_modules())
        if name not in modules:
            choices = ", ".join(filter(None, modules))
            raise Refused("A name must be one of the model's modules.", repr(name), choices)
        return modules[name]

    def _take(self, name: str, kind: str, tensor: Tensor) -> None:
        self.rows.append((name, kind, self.run))
        self.tensors.append(tensor)

    def _layer_hook(self, name: str, weight: Tensor) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.run += 1
            self._take(name, WEIGHT, weight)

        self.wanted.add(name)
        return hook

    def before(self, label: str, name: str) -> None:
        """Take what enters the module `name`."""

        def hook(module: nn.Module, args: Any) -> Any:
            self._take(label, OUTPUT, args[0])
            return args[0].clone(), *args[1:]  # a copy, since a module may work in place

        self._module(name).register_forward_pre_hook(hook)

    def after(self, name: str) -> None:
        """Take what leaves the module `name`."""

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            self._take(name, OUTPUT, output)
            return output.clone()

        self._module(name).register_forward_hook(hook)
        self.wanted.add(name)

    def _check(self) -> None:
        ran = Counter((name, kind) for name, kind, _ in self.rows)
        odd = self.wanted - {name for name, _ in ran} | {name for (name, _), times in ran.items() if times > 1}
        if odd:
            rule = "Every named module must run exactly once per forward pass."
            raise Refused(rule, ", ".join(sorted(odd)), "modules that do")

    def measure(self, images: Tensor, labels: Tensor) -> pd.DataFrame:
        """One forward and one backward pass -> the rows of `gradient_norms`."""
        weight = next(self.net.parameters())
        with torch.enable_grad():
            x = images.detach().to(weight, copy=True).requires_grad_()  # so that every module's output has a gradient
            loss = F.cross_entropy(self.net(x), labels.to(weight.device))
            self._check()
            gradients = torch.autograd.grad(loss, self.tensors, materialize_grads=True)
        norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients]).tolist()
        rows = [(*row, norm) for row, norm in zip(self.rows, norms, strict=True)]
        return pd.DataFrame(rows, columns=COLUMNS)
