"""How large the signal is on its way forward: after every block, in the parts of its sum, and after every layer."""

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.nets.blocks import Block
from resnet.nets.borrow import borrowed
from resnet.nets.model import blocks, weight_layers

_NORMS = nn.modules.batchnorm._BatchNorm | nn.GroupNorm
_NONE = float("nan")


def signal(model: nn.Module, images: Tensor) -> pd.DataFrame:
    """Variances of every block, in running order: name, block (1..n), output, shortcut, branch, share, theory.

    `output` is the variance of what the block returns, over all its elements; `shortcut` and `branch` are those of
    the two parts of its sum, and `share` is branch / shortcut. `theory` is the share 1/l of pre-activation with batch
    norm, where l counts blocks, anew from each one whose shortcut is no identity. All four are nan where nothing is
    added. The net is borrowed and run on images (N, C, H, W) with batch statistics.
    Source: De and Smith 2020, arXiv 2002.10444.
    """
    rows: list[tuple] = []

    counted = 0  # blocks since the sum began

    def watch(name: str, block: Block) -> None:
        parts = [_NONE] * 3

        def at_sum(module: nn.Module, args: tuple[Tensor, Tensor]) -> None:
            nonlocal counted
            counted = counted + 1 if block.shortcut_kind == "identity" else 1
            parts[:] = [*(float(part.var()) for part in args), 1 / counted]

        def at_end(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            rows.append((name, len(rows) + 1, float(output.var()), *parts))

        if block.downsample is not None:
            block.add.register_forward_pre_hook(at_sum)
        block.register_forward_hook(at_end)

    with borrowed(model, train=True), torch.no_grad():
        for name, block in blocks(model).items():
            watch(name, block)
        model(images.to(next(model.parameters())))
    table = pd.DataFrame(rows, columns=["name", "block", "output", "shortcut", "branch", "theory"])
    table.insert(5, "share", table.branch / table.shortcut)
    return table


def responses(model: nn.Module, images: Tensor) -> pd.DataFrame:
    """Standard deviations of the convolutions' responses: name, layer (1..n, in running order), std, rank (1..n).

    A response is what a convolution on the main path gives, after the norm that reads it, if one does, and before the
    activation or the addition; `std` is over all its elements. Rank 1 has the largest.
    The net is borrowed and run on images (N, C, H, W) with batch statistics.
    Source: He et al. 2015, arXiv 1512.03385, Fig. 7.
    """
    rows: list[tuple[str, float]] = []
    read: list[Tensor] = []  # the last convolution's output

    def watch(name: str, layer: nn.Module) -> None:
        def at_end(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            rows.append((name, float(output.std())))
            read[:] = [output]

        layer.register_forward_hook(at_end)

    def at_norm(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if read and args[0] is read[0]:
            rows[-1] = rows[-1][0], float(output.std())

    with borrowed(model, train=True), torch.no_grad():
        for name, layer in weight_layers(model).items():
            if not isinstance(layer, nn.Linear):
                watch(name, layer)
        for module in model.modules():
            if isinstance(module, _NORMS):
                module.register_forward_hook(at_norm)
        model(images.to(next(model.parameters())))
    table = pd.DataFrame(rows, columns=["name", "std"])
    table.insert(1, "layer", range(1, len(table) + 1))
    return table.assign(rank=table["std"].rank(method="first", ascending=False, na_option="bottom").astype(int))


def _signal(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    yield Partial(1.0, signal(model, images))


def _responses(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    yield Partial(1.0, responses(model, images))


SIGNAL = Analysis(
    title="Signal forward",
    question="How much does each block add to what it is given?",
    function=_signal,
    formula=r"$\operatorname{Var}(F_l) / \operatorname{Var}(x_l)$ of branch and shortcut at block $l$'s addition. "
    r"Where each branch adds a variance of 1 to a sum that began at 1, this is $1/l$",
    paper="De and Smith 2020, arXiv 2002.10444",
    look="With pre-activation and batch norm the share falls as 1/l: each branch adds about the same to a growing sum, "
    "so late blocks are nearly the identity. It begins anew where a shortcut is no identity. With the activation after "
    "the addition it falls more slowly, and a plain net's variance stays where it is. Without a norm the branches "
    "grow with the sum, and every block multiplies the variance.",
    expect="Each branch ends with about the same variance, because its norm begins anew. What is its share of the sum "
    "after ten blocks?",
    passes=lambda blocks, options: 1,
)
RESPONSES = Analysis(
    title="Layer responses",
    question="Do a residual net's layers change the signal less than a plain net's?",
    function=_responses,
    formula=r"The standard deviation of $\operatorname{BN}(W_l * x)$ of every convolution $l$ on the main path, before "
    r"the activation or the addition",
    paper="He et al. 2015, arXiv 1512.03385, Fig. 7",
    look="Compare trained nets: as drawn, a net with a norm after each convolution has 1 everywhere. The paper finds "
    "smaller responses in residual nets, the smaller the deeper. In the recorded runs ResNet-20 has 0.46 on average, "
    "plain-20 0.50, ResNet-56 has 0.29, and plain-56, which reached 64 % where ResNet-56 reached 88 %, has 0.28: "
    "there the comparison does not hold.",
    expect="A residual layer only corrects what the shortcut carries, a plain layer makes all of its output. In which "
    "of the two trained nets will the responses be larger?",
    passes=lambda blocks, options: 1,
)
