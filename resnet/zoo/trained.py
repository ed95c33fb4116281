"""Detectors and segmenters with torchvision's weights."""

from torch import nn
from torchvision.models import WeightsEnum, get_model_weights

from resnet.errors import choose
from resnet.zoo.hub import load_torchvision
from resnet.zoo.systems import SYSTEMS, build_system

# Trained on COCO: 80 kinds of objects in boxes, or the 20 classes of Pascal VOC by pixel.
TRAINED: dict[str, WeightsEnum] = {
    name: get_model_weights(entry.builder).DEFAULT
    for name, entry in SYSTEMS.items()
    if entry.builder and entry.task in ("detection", "segmentation")
}


def class_names(name: str) -> tuple[str, ...]:
    """Of such a system; the first is the background. Refused for an unknown name."""
    return tuple(choose("system with weights", name, TRAINED).meta["categories"])


def load_trained(name: str) -> nn.Module:
    """The system in eval mode on the CPU; Refused for an unknown name, or where its weights are not downloaded.

    `TRAINED[name].transforms()` prepares its photos.
    """
    weights = choose("system with weights", name, TRAINED)
    file = load_torchvision(weights)
    model = build_system(name, device="cpu")
    model.load_state_dict(file.tensors)
    return model
