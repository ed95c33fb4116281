"""Shattered gradients: how a net's gradient changes along a straight line of inputs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.errors import Refused
from resnet.nets.borrow import borrowed

LAGS = 15  # of an autocorrelation, at most
POINTS, END, WIDTH = 256, 2.0, 200  # of the grid, which runs from -END to END, and of its nets (Balduzzi 2017, 2.1)
GRADIENT, AUTOCORRELATION = "gradient", "autocorrelation"  # kinds of rows


def line_gradients(model: nn.Module, start: Tensor, end: Tensor, points: int, output: int = 0) -> Tensor:
    """df/dt at `points` inputs x(t) = start + t (end - start), t from 0 to 1: (points,).

    start, end: one input each, without a batch axis; f is the sum of that `output` over the points, which run as one
    batch with its statistics.
    """
    weight = next(model.parameters())
    start, end = start.to(weight), end.to(weight)
    with borrowed(model, train=True), torch.enable_grad():
        t = torch.linspace(0, 1, points).to(weight).requires_grad_()
        x = start + t.view(-1, *[1] * start.dim()) * (end - start)  # (points, ...)
        [gradients] = torch.autograd.grad(model(x)[:, output].sum(), t)
    return gradients.cpu()


def autocorrelation(values: np.ndarray) -> np.ndarray:
    """sum((v_i - m)(v_{i+k} - m)) / sum((v_i - m)^2) of a series (N,) with mean m, for lags k = 0 to min(15, N - 1)."""
    v = np.asarray(values, dtype=np.float64)
    v = v - v.mean()
    return np.array([v[: len(v) - lag] @ v[lag:] for lag in range(min(LAGS + 1, len(v)))]) / (v @ v)


def shattered(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    """Any net's gradient along the line from the first image to the last, and its autocorrelation: kind, x, value.

    Of images (N, C, *S) and labels (N,) only these two images and the first label count: the gradient is that of the
    label's logit, at N points of the line. x is t (0 to 1) in rows of kind "gradient", where the values have been
    divided by the largest magnitude, and the lag in those of kind "autocorrelation". Refused for fewer than 3 images.
    """
    if len(images) < 3:
        raise Refused("A line needs as many points as there are images.", len(images), "3 images or more")
    values = line_gradients(model, images[0], images[-1], len(images), int(labels[0])).numpy()
    yield Partial(1.0, _rows(np.linspace(0, 1, len(images)), values, autocorrelation(values)))


def on_a_grid(
    plain: Sequence[int] = (2, 10, 24, 50),
    residual: Sequence[int] = (10, 24, 50),
    beta: float = 1.0,
    seeds: Sequence[int] = range(5),
) -> Steps:
    """The paper's nets of one number, plain and residual ones of so many layers, between white and brown noise.

    Columns net, plain (None for noise), layers (0 for noise), kind, x, value, as in `shattered`: df/dx on 256 points
    from -2 to 2 for the first seed, and the autocorrelation as the mean over the seeds. A `Partial` after each net.
    """
    wanted: list[tuple[str, int, float | None]] = [(f"plain, {n} layers", n, None) for n in plain]
    wanted += [(f"residual, {n} blocks", n, beta) for n in residual]
    frames = _noise(len(seeds))
    for done, (name, layers, scale) in enumerate(wanted, 1):
        ends = torch.tensor([-END]), torch.tensor([END])
        nets = [fully_connected(layers, scale, seed) for seed in seeds]
        series = np.array([line_gradients(net, *ends, POINTS).numpy() for net in nets])
        frames.append(_curves(series, name, scale is None, layers))
        yield Partial(done / len(wanted), pd.concat(frames, ignore_index=True))


def fully_connected(layers: int, beta: float | None = None, seed: int = 0) -> nn.Sequential:
    """A net from one number to one, 200 wide: a linear layer, `layers` times batch norm, ReLU, linear, and the output.

    With a `beta` each of these layers is the branch of a block x + beta * branch(x). Weights are He normal (fan-in),
    biases standard normal: without biases all kinks of the first ReLU would lie at one place.
    """
    body: list[nn.Module] = [_layer() for _ in range(layers)]
    body = body if beta is None else [_Residual(branch, beta) for branch in body]
    net = nn.Sequential(nn.Linear(1, WIDTH), *body, nn.Linear(WIDTH, 1))
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Linear | nn.BatchNorm1d):
            nn.init.normal_(module.bias, generator=generator)
    return net


def _layer() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module, beta: float) -> None:
        super().__init__()
        self.branch, self.beta = branch, beta

    def forward(self, x: Tensor) -> Tensor:
        return x + self.beta * self.branch(x)


def _noise(seeds: int) -> list[pd.DataFrame]:
    """White noise, and brown noise, its running sum."""
    white = np.random.default_rng(0).standard_normal((seeds, POINTS))
    return [_curves(white, "white noise"), _curves(white.cumsum(1), "brown noise")]


def _curves(series: np.ndarray, net: str, plain: bool | None = None, layers: int = 0) -> pd.DataFrame:
    """The first of the series (seeds, N), and their mean autocorrelation."""
    mean = np.mean([autocorrelation(values) for values in series], 0)
    table = _rows(np.linspace(-END, END, POINTS), series[0], mean)
    return table.assign(net=net, plain=plain, layers=layers)


def _rows(places: np.ndarray, values: np.ndarray, correlations: np.ndarray) -> pd.DataFrame:
    curve = pd.DataFrame({"kind": GRADIENT, "x": places, "value": values / np.abs(values).max()})
    lags = pd.DataFrame({"kind": AUTOCORRELATION, "x": np.arange(len(correlations)), "value": correlations})
    return pd.concat([curve, lags], ignore_index=True)


SHATTERED = Analysis(
    title="Shattered gradients",
    question="Does a step in the input leave the gradient nearly the same?",
    function=shattered,
    formula=r"$r_k = \sum_i (g_i - \bar g)(g_{i+k} - \bar g) \, / \, \sum_i (g_i - \bar g)^2$ of "
    r"$g_i = df/dt$ at the points $x(t_i)$ of a line, one batch with its statistics",
    paper="Balduzzi et al. 2017, arXiv 1702.08591",
    look="A deep plain net's gradient jumps from point to point like white noise: its autocorrelation is near 0 at "
    "lag 1. That of a residual net of the same depth changes by small steps, more like brown noise.",
    expect="Two inputs that hardly differ: how alike are the gradients there? Think of a net with 2 layers, with 50, "
    "and with 50 and shortcuts.",
)
