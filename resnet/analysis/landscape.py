"""The loss around a net's weights: along a line, over a plane, and in the plane of its training (Li 2018)."""

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.errors import Refused
from resnet.files import replace_file
from resnet.nets.borrow import borrowed
from resnet.nets.model import memory_format
from resnet.seeds import generator

BATCH = 100  # images at a time
PAPER = "Li et al. 2018, arXiv 1712.09913"
COLUMNS = ["a", "b", "loss", "accuracy"]

Direction = Mapping[str, Tensor]  # by the name of the parameter; those that are not in it stay as they are


def random_direction(model: nn.Module, seed: int = 0, number: int = 0) -> Direction:
    """Gaussian, and filter-normalised: each filter has the length of the net's own filter.

    A filter is a slice w[i] of a weight with two dimensions or more, in linear layers what leads to one neuron. Biases
    and the norms' parameters stay as they are, as in the paper. Each weight's numbers depend on the seed, the
    direction's number and the weight's name, so that twins move alike where they have the same layers.
    """
    moved = {name: weight.detach() for name, weight in model.named_parameters() if weight.dim() > 1}
    direction = {}
    for name, weight in moved.items():
        draws = generator(seed, number, zlib.crc32(name.encode()))
        step, inside = torch.randn(weight.shape, generator=draws).to(weight), tuple(range(1, weight.dim()))
        length, own = (torch.linalg.vector_norm(w, dim=inside, keepdim=True) for w in (step, weight))
        direction[name] = step * (own / length)
    return direction


def plane(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    directions: Sequence[Direction],
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
) -> Steps:
    """The loss at the weights plus a x directions[0] plus b x directions[1]: a, b, loss, accuracy, a row per point.

    Loss is the mean cross-entropy in nats over images (N, C, *S) with labels (N,), accuracy from 0 to 1, both in eval
    mode with the running statistics of the net as it is, as in the paper. The middle of the grid a x b comes first,
    then grids around it with spacings that halve; each point is a `Partial`. The weights are never written to.
    """
    weight = next(model.parameters())
    batches = images.to(weight).contiguous(memory_format=memory_format(model)).split(BATCH)
    labels = labels.to(weight.device)
    rows: list[tuple[float, float, float, float]] = []
    for i, j in coarse_to_fine(len(a), len(b)):
        with borrowed(model):
            rows.append((a[i], b[j], *_at(model, directions, (a[i], b[j]), batches, labels)))
        yield Partial(len(rows) / (len(a) * len(b)), pd.DataFrame(rows, columns=COLUMNS))


def coarse_to_fine(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """All cells of a grid: its middle, then those in between on grids around the middle whose spacing halves."""
    middle, seen = (rows // 2, columns // 2), set[tuple[int, int]]()
    spacing = 1 << max(rows, columns).bit_length()
    while spacing:
        lines = [range(half % spacing, size, spacing) for half, size in zip(middle, (rows, columns), strict=True)]
        new = [(i, j) for i in lines[0] for j in lines[1] if (i, j) not in seen]
        seen.update(new)
        yield from new
        spacing //= 2


@torch.no_grad()
def _at(
    model: nn.Module, directions: Sequence[Direction], at: Sequence[float], batches: Sequence[Tensor], labels: Tensor
) -> tuple[float, float]:
    """Loss and accuracy."""
    weights: dict[str, Tensor] = dict(model.named_parameters())
    for step, direction in zip(at, directions, strict=True):
        weights |= {name: weights[name] + step * moved.to(weights[name]) for name, moved in direction.items()}
    logits = torch.cat([functional_call(model, weights, x) for x in batches]).double()
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def line(model: nn.Module, images: Tensor, labels: Tensor, points: int = 9, span: float = 1.0, seed: int = 0) -> Steps:
    """As `plane` along one random direction, b = 0: an odd number of points from -span to span."""
    yield from plane(model, images, labels, [random_direction(model, seed), {}], around(points, span), [0.0])


def surface(
    model: nn.Module, images: Tensor, labels: Tensor, points: int = 17, span: float = 1.0, seed: int = 0
) -> Steps:
    """As `plane` over two random directions: points x points, an odd number, from -span to span; b = 0 is the line."""
    axis = around(points, span)
    yield from plane(model, images, labels, [random_direction(model, seed, number) for number in (0, 1)], axis, axis)


def around(points: int, span: float) -> np.ndarray:
    """An odd number of evenly spaced points from -span to span, of which the middle one is 0; Refused."""
    if points < 3 or points % 2 == 0:
        raise Refused("The net itself must be the middle point.", points, "an odd number of points, 3 or more")
    half = points // 2
    return span * np.arange(-half, half + 1) / half


class Trajectory(NamedTuple):
    """Where the epochs of a training lie in the plane that shows most of it."""

    directions: tuple[Direction, Direction]  # of length 1, at right angles
    coordinates: pd.DataFrame  # a, b of each epoch; the last one is 0, 0
    explained: tuple[float, float]  # each direction's share of the variance of the epochs' weights

    def axes(self, points: int, margin: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
        """Evenly spaced a and b that reach beyond all epochs by a share of their extent."""
        low, high = self.coordinates.min(), self.coordinates.max()
        beyond = margin * (high - low)
        a, b = (np.linspace(low[c] - beyond[c], high[c] + beyond[c], points) for c in ("a", "b"))
        return a, b


def trajectory(states: Sequence[Mapping[str, Tensor]]) -> Trajectory:
    """The first two principal components of a training's weights: a state dict per kept epoch, the last one last.

    Of the weights with two dimensions or more, as in `random_direction`: give `plane` the net of the last epoch, whose
    biases, norms and running statistics hold everywhere. The paper leaves the last epoch out of the components.
    Refused for fewer than three epochs.
    """
    if len(states) < 3:
        raise Refused("A plane takes the weights of three epochs or more.", len(states))
    names = [name for name, value in states[-1].items() if value.dim() > 1]
    weights = torch.stack([torch.cat([state[name].double().flatten() for name in names]) for state in states])
    _, lengths, components = torch.linalg.svd(weights - weights.mean(0), full_matrices=False)
    flat = components[:2]  # (2, weights)
    coordinates = (weights - weights[-1]) @ flat.T
    sizes = [states[-1][name].numel() for name in names]
    first, second = (
        {name: part.view_as(states[-1][name]) for name, part in zip(names, each.split(sizes), strict=True)}
        for each in flat
    )
    share = lengths.square() / lengths.square().sum()
    frame = pd.DataFrame(coordinates.cpu().numpy(), columns=["a", "b"])
    return Trajectory((first, second), frame, (float(share[0]), float(share[1])))


def keep(path: Path, table: pd.DataFrame) -> None:
    """Write a surface's table (.npz, float32 columns), for `read`; the folder is made."""
    content = io.BytesIO()
    np.savez_compressed(content, **{name: table[name].to_numpy(np.float32) for name in COLUMNS})  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())


def read(path: Path) -> pd.DataFrame | None:
    """The table that `keep` wrote; None where there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as columns:
            return pd.DataFrame({name: columns[name] for name in COLUMNS})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


LINE = Analysis(
    title="Loss along a line",
    question="How does the loss rise as one leaves the weights that were found?",
    function=line,
    formula=r"$L(\theta + a\,d)$, with $d_{ij} \leftarrow d_{ij} \lVert \theta_{ij} \rVert / \lVert d_{ij} \rVert$ for "
    r"each filter $j$ of layer $i$",
    paper=PAPER,
    look="The valley of a deep residual net is wide and that of its plain twin narrow. On 250 test images, with every "
    "filter moved by a quarter of its length, the loss of the recorded ResNet-56 rises from 0.36 to 0.38 one way and "
    "0.45 the other, and that of plain-56 from 1.03 to 1.70 and 2.14. Batch norm's weights and statistics stay.",
    expect="If every filter is moved at random by half its own length, is a trained net's accuracy lost?",
    images=1000,
    together=BATCH,
    options={"points": 17, "span": 1.0, "seed": 0},
    passes=lambda blocks, options: options["points"],
    kept=True,
)
SURFACE = Analysis(
    title="Loss over a plane",
    question="Do shortcuts make the loss around a trained net smoother?",
    function=surface,
    formula=r"$L(\theta + a\,d + b\,e)$, $d$ and $e$ random, each filter as long as the net's own",
    paper=PAPER,
    look="Look near the middle: with the filters of the recorded ResNet-56 moved by half their length along d or e, "
    "72 % to 80 % of 250 test images are still right, of 88 %; of plain-56, 17 % to 54 %, of 66 %. In the "
    "corners both nets guess, and either loss may be the higher one. A coarse grid hides bumps: give it more points.",
    expect="Both twins are trained alike. Which one stands in a wider valley, and by how much is the other narrower?",
    images=1000,
    together=BATCH,
    options={"points": 17, "span": 1.0, "seed": 0},
    passes=lambda blocks, options: options["points"] ** 2,
    kept=True,
)
