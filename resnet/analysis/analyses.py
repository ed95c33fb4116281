"""The analyses of why residual connections work, behind one contract: (model, images, labels) -> tables.

A new analysis is a module with its `Analysis`, and a line in `ANALYSES`.
"""

from resnet.analysis.contract import Analysis
from resnet.analysis.gradients import GRADIENTS
from resnet.analysis.landscape import LINE, SURFACE
from resnet.analysis.lesions import DROPS, LESIONS, SHUFFLES
from resnet.analysis.microscope import BLOCK

ANALYSES: dict[str, Analysis] = {
    "gradients": GRADIENTS,
    "block": BLOCK,
    "lesions": LESIONS,
    "drops": DROPS,
    "shuffles": SHUFFLES,
    "line": LINE,
    "surface": SURFACE,
}
