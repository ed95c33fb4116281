"""The analyses of why residual connections work, behind one contract: (model, images, labels) -> tables.

A new analysis is a module with its `Analysis`, and a line in `ANALYSES`.
"""

from resnet.analysis.contract import Analysis
from resnet.analysis.gradients import GRADIENTS

ANALYSES: dict[str, Analysis] = {
    "gradients": GRADIENTS,
}
