"""What can be measured on a net with one batch, behind one contract: (model, images, labels) -> DataFrame.

A new analysis is a module with its function and a line in `ANALYSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from torch import Tensor, nn

from resnet.analysis.gradients import gradient_norms


@dataclass(frozen=True)
class Analysis:
    """`function(model, images, labels)`: any nn.Module, images (N, C, H, W) and labels (N,) in, a table out.

    It borrows the net and leaves it as it was; Refused where the net cannot be measured.
    """

    title: str
    function: Callable[[nn.Module, Tensor, Tensor], pd.DataFrame]
    formula: str
    paper: str


ANALYSES: dict[str, Analysis] = {
    "gradient-norms": Analysis(
        title="Gradient norms",
        function=gradient_norms,
        formula="||dL/dx|| after every block and ||dL/dW|| of every layer, L2, L the mean cross-entropy of a batch",
        paper="Yang et al. 2019, arXiv 1902.08129",
    ),
}
