"""Build the net that a spec describes, with torchvision's parameter names."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from resnet.blocks import BLOCKS, STEMS, Block
from resnet.spec import NetSpec


class ResNet(nn.Sequential):
    """Stem, layer1..layerN, avgpool, flatten, fc: images (N, in_channels, H, W) -> logits (N, classes)."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        for name, module in STEMS[spec.stem](spec.in_channels, spec.stem_width, spec.norm).items():
            self.add_module(name, module)
        make, c_in = BLOCKS[spec.block], spec.stem_width
        for index, stage in enumerate(spec.stages, 1):
            blocks = nn.Sequential()
            for position in range(stage.blocks):
                stride = stage.stride if position == 0 else 1
                blocks.append(make(c_in, stage.width, stride, spec.shortcut, spec.norm, spec.stride_on))
                c_in = stage.width * make.expansion
            self.add_module(f"layer{index}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(c_in, spec.classes)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The named intermediates: stem, stage1..stageN (N, C, H, W), pre_logits (N, C), logits (N, classes)."""
        children = list(self.named_children())
        named = {}
        for (name, module), (following, _) in pairwise([*children, ("", nn.Identity())]):
            x = module(x)
            if following == "layer1":
                named["stem"] = x
            elif name.startswith("layer"):
                named[name.replace("layer", "stage")] = x
            elif name in ("flatten", "fc"):
                named[{"flatten": "pre_logits", "fc": "logits"}[name]] = x
        return named


def blocks(model: nn.Module) -> dict[str, Block]:
    """The residual (or plain) blocks by name, from the input to the output."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Block)}


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers on the main path by name, input to output: a net's depth counts these."""
    kinds = (nn.Conv2d, nn.Linear)
    return {n: m for n, m in model.named_modules() if isinstance(m, kinds) and ".downsample" not in n}


def build(spec: NetSpec, seed: int = 0, device: str | torch.device = "cpu") -> ResNet:
    """The net with weights drawn from `seed`, equal in both twins wherever both have a layer.

    Device "meta" gives shapes without memory.
    """
    with torch.device("meta"):
        model = ResNet(spec)
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device="cpu")
    initialise(model, seed)
    return model.to(device)


@torch.no_grad()
def initialise(model: ResNet, seed: int) -> None:
    """He normal for convolutions (fan-in, arXiv 1502.01852), uniform +-1/sqrt(fan-in) for the head, norms at 1 and 0.

    One generator draws all weights on the main path first and the projections last, so that leaving the
    shortcuts out changes no other weight.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, module in sorted(model.named_modules(), key=lambda item: ".downsample" in item[0]):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if model.spec.zero_init:
        for block in blocks(model).values():
            nn.init.zeros_(block.get_submodule(block.last_norm).get_parameter("weight"))
