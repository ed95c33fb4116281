"""The analyses of why residual connections work, behind one contract: (model, images, labels) -> tables.

A new analysis is a module with its `Analysis`, and a line in `ANALYSES`.
"""

from resnet.analysis.agreement import AGREEMENT
from resnet.analysis.cka import CKA
from resnet.analysis.contract import Analysis
from resnet.analysis.fields import RECEPTIVE
from resnet.analysis.gradients import GRADIENTS
from resnet.analysis.landscape import LINE, SURFACE
from resnet.analysis.lesions import DROPS, LESIONS, SHUFFLES
from resnet.analysis.microscope import BLOCK
from resnet.analysis.paths import PATHS
from resnet.analysis.shattered import SHATTERED
from resnet.analysis.signal import RESPONSES, SIGNAL
from resnet.analysis.travel import TRAVEL

ANALYSES: dict[str, Analysis] = {
    "block": BLOCK,
    "gradients": GRADIENTS,
    "signal": SIGNAL,
    "responses": RESPONSES,
    "travel": TRAVEL,
    "paths": PATHS,
    "agreement": AGREEMENT,
    "shattered": SHATTERED,
    "lesions": LESIONS,
    "drops": DROPS,
    "shuffles": SHUFFLES,
    "line": LINE,
    "surface": SURFACE,
    "cka": CKA,
    "receptive": RECEPTIVE,
}
