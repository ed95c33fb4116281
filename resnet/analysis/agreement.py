"""Do the mini-batches of a step agree: cosines between their gradients."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.pairs import pair_table
from resnet.errors import Refused
from resnet.nets.borrow import borrowed
from resnet.nets.model import weight_layers

MOST = 2**22  # numbers of a gradient that are kept as they are; of a larger net's, a sketch of so many


def agreement(model: nn.Module, images: Tensor, labels: Tensor, batches: int = 16) -> Steps:
    """Cosines between the gradients of mini-batches, in long form: row, column (batch numbers), cosine.

    Images (N, C, *S) and labels (N,) are split, in their order, into `batches` mini-batches as equal as can be, or
    one image each where there are fewer. A gradient is that of the mean cross-entropy, with batch statistics, by the
    weights of the convolutions and linear layers on the main path, all in one vector. A `Partial` after each
    mini-batch, from the second on, has the square of those done. Refused for fewer than two mini-batches.

    A net with more than `MOST` weights has its gradients folded to that size with random signs, a count sketch
    (Charikar et al. 2002), which moves a cosine by about 1 / sqrt(MOST) = 0.0005.
    """
    count = min(batches, len(images))
    if count < 2:
        raise Refused("To agree takes at least two mini-batches.", f"{len(images)} images in {batches} batches")
    weights = [layer.get_parameter("weight") for layer in weight_layers(model).values()]
    splits = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
    directions: list[Tensor] = []
    with borrowed(model, train=True, grad=True), torch.enable_grad():
        for done, (x, y) in enumerate(splits, 1):
            loss = F.cross_entropy(model(x.to(weights[0])), y.to(weights[0].device))
            gradient = _flat(torch.autograd.grad(loss, weights, materialize_grads=True))
            directions.append(F.normalize(gradient, dim=0))
            if done > 1:
                held = torch.stack(directions)
                yield Partial(done / count, pair_table("cosine", held @ held.T, range(done), range(done)))


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    """All of them in one vector, or its sketch; the signs are the same each time."""
    if sum(gradient.numel() for gradient in gradients) <= MOST:
        return torch.cat([gradient.flatten() for gradient in gradients])
    signs = torch.Generator().manual_seed(0)
    sketch = gradients[0].new_zeros(MOST)
    for piece in (piece for gradient in gradients for piece in gradient.flatten().split(MOST)):
        sign = torch.randint(0, 2, piece.shape, generator=signs, dtype=torch.int8).to(piece) * 2 - 1
        sketch[: len(piece)] += piece * sign
    return sketch


def mean_cosine(table: pd.DataFrame) -> float:
    """The mean cosine of two different mini-batches."""
    return float(table.cosine[table.row != table.column].mean())


AGREEMENT = Analysis(
    title="Do mini-batches agree?",
    question="Do two mini-batches ask for the same step?",
    function=agreement,
    formula=r"$\cos(g_i, g_j) = g_i \cdot g_j \, / \, (\lVert g_i \rVert \lVert g_j \rVert)$, where $g_i$ is the "
    r"gradient of mini-batch $i$ by all weights of the main path",
    paper="Sankararaman et al. 2020, arXiv 1904.06963",
    look="Off the diagonal: at initialisation a residual net's mini-batches point nearly the same way, while those of "
    "a deep plain net are orthogonal, so that a step which helps one does nothing for the others.",
    expect="Sixteen mini-batches of the same images at initialisation: how alike are the directions in which they "
    "would move the weights? Think of what depth does to it, with shortcuts and without.",
    options={"batches": 16},
    images=1024,
    together=64,
)
