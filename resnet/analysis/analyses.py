"""The analyses of why residual connections work, behind one contract: (model, images, labels) -> tables.

A new analysis is a module with its `Analysis`, and a line in `ANALYSES`.
"""

from resnet.analysis.agreement import AGREEMENT
from resnet.analysis.cka import CKA
from resnet.analysis.contract import Analysis
from resnet.analysis.fields import RECEPTIVE
from resnet.analysis.gradients import GRADIENTS
from resnet.analysis.shattered import SHATTERED

ANALYSES: dict[str, Analysis] = {
    "gradients": GRADIENTS,
    "agreement": AGREEMENT,
    "shattered": SHATTERED,
    "cka": CKA,
    "receptive": RECEPTIVE,
}
