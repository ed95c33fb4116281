"""How alike the representations of layers are: linear centred kernel alignment (CKA)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.outputs import block_modules, tap
from resnet.analysis.pairs import pair_table
from resnet.errors import Refused
from resnet.nets.borrow import borrowed

LEAST = 4  # images: the unbiased estimator divides by n - 3


def cka(
    first: nn.Module,
    second: nn.Module,
    images: Tensor,
    layers: tuple[Sequence[str], Sequence[str]] | None = None,
    batch: int = 64,
) -> Steps:
    """Linear CKA between layers of two nets (or of one, given twice), in long form: row, column, cka.

    Rows are layers of `first` and columns of `second`, by default the stem and the blocks; the nets run as they
    predict. Images (N, C, *S) are split into mini-batches of at least `batch`, or one where there are fewer; HSIC is
    the mean of the unbiased estimator over them (Nguyen 2021, arXiv 2010.15327), so that no batch size pulls CKA up,
    and unlike layers come out near 0, or a little below. A `Partial` after each mini-batch. Refused for fewer than 4
    images.
    """
    if len(images) < LEAST:
        raise Refused("CKA needs a few images.", len(images), f"{LEAST} or more")
    rows, columns = layers or (block_modules(first), block_modules(second))
    splits = images.tensor_split(max(1, len(images) // max(batch, LEAST)))
    across, down, right = (torch.zeros((), dtype=torch.float64),) * 3
    for done, x in enumerate(splits, 1):
        a, b = _kernels(first, rows, x), _kernels(second, columns, x)
        across, down, right = across + a @ b.T, down + a.square().sum(1), right + b.square().sum(1)
        table = pair_table("cka", across / (down[:, None] * right).sqrt(), rows, columns)
        yield Partial(done / len(splits), table)


@torch.no_grad()
def _kernels(model: nn.Module, names: Sequence[str], x: Tensor) -> Tensor:
    """The centred kernels of the layers on images (n, C, *S), (layers, n * n) float64: products of two are HSIC."""
    with borrowed(model):
        held = tap(model, names, lambda output: centred_kernel(output.flatten(1)).flatten().cpu())
        model(x.to(next(model.parameters())))
        return torch.stack([held[name] for name in names])


def centred_kernel(features: Tensor) -> Tensor:
    """X X^T of features (n, D), without its diagonal and centred so that sum(K * L) is the unbiased HSIC of X and Y.

    (n, n) float64. This is the U-centring of Szekely and Rizzo (2014), scaled by 1 / sqrt(n (n - 3)).
    """
    n = len(features)
    x = features - features.mean(0)  # changes nothing but rounding
    kernel = (x @ x.T).double().fill_diagonal_(0)
    rows = kernel.sum(1) / (n - 2)
    kernel = kernel - rows - rows[:, None] + kernel.sum() / ((n - 1) * (n - 2))
    return kernel.fill_diagonal_(0) / (n * (n - 3)) ** 0.5


def _steps(model: nn.Module, images: Tensor, labels: Tensor, batch: int) -> Steps:
    return cka(model, model, images, batch=batch)


CKA = Analysis(
    title="Which layers are alike?",
    question="Does every block make something new of its input?",
    function=_steps,
    formula=r"$\mathrm{CKA}(X, Y) = \mathrm{HSIC}(X, Y) / \sqrt{\mathrm{HSIC}(X, X)\,\mathrm{HSIC}(Y, Y)}$, with "
    r"$\mathrm{HSIC}$ of the kernels $X X^\top$ and $Y Y^\top$, unbiased and averaged over mini-batches",
    paper="Kornblith et al. 2019, arXiv 1905.00414; Nguyen et al. 2021, arXiv 2010.15327",
    look="Bright squares are runs of layers that hardly change the representation. At initialisation the layers of a "
    "residual net are more alike than those of its plain twin.",
    expect="A residual block adds to its input, a plain block replaces it. In which net will neighbouring layers be "
    "more alike, and will the last layer still be like the first?",
    options={"batch": 64},
    passes=lambda blocks, options: 1,
)
