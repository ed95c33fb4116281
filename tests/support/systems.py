"""Small detectors and segmenters of torchvision's classes, with random weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops.misc import FrozenBatchNorm2d


def photo(height: int = 50, width: int = 75) -> Tensor:
    """Noise (3, H, W); a `detector` makes 96 x 144 pixels of 50 x 75, and pads them to 96 x 160."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(3))


def detector(kind: type[FasterRCNN] = MaskRCNN, classes: int = 5, lowest: float = 0.0, seed: int = 0) -> FasterRCNN:
    """On a feature pyramid over a ResNet-18; it finds 20 objects in anything, unless their scores must be higher."""
    torch.manual_seed(seed)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d)
    few: Any = {"rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 40, "box_detections_per_img": 20}
    return kind(backbone, classes, min_size=96, max_size=160, box_score_thresh=lowest, **few).eval()


def segmenter(classes: int = 5) -> nn.Module:
    """A fully convolutional net over a ResNet-18, with batch statistics of its own."""
    torch.manual_seed(1)
    net = FCN(IntermediateLayerGetter(resnet18(weights=None), {"layer4": "out"}), FCNHead(512, classes)).train()
    with torch.no_grad():
        net(torch.randn(4, 3, 64, 64))
    return net.eval()
