"""Build the net that a spec describes, with torchvision's parameter names."""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from resnet.nets.blocks import BLOCKS, Block, BlockPlan
from resnet.nets.kinds import STEMS
from resnet.nets.layers import Layers, SkipInit
from resnet.nets.spec import NetSpec

_CONV = nn.modules.conv._ConvNd


def parts(spec: NetSpec) -> Iterator[tuple[str, BlockPlan | nn.Module]]:
    """The net as a chain, input to output: names with the modules of stem and head, and the plans of the blocks."""
    make, preact = Layers(spec.dims, spec.norm, spec.activation), BLOCKS[spec.block].preact
    yield from STEMS[spec.stem].build(spec.in_channels, spec.stem_width, make, preact).items()
    c_in = spec.stem_width
    for name, plan in block_plans(spec):
        c_in = plan.c_out
        yield name, plan
    if preact:
        yield "bn_last", make.bn(c_in)
        yield "act_last", make.act()
    yield "avgpool", make.global_pool()
    yield "flatten", nn.Flatten()
    yield "fc", nn.Linear(c_in, spec.classes)


def block_plans(spec: NetSpec) -> Iterator[tuple[str, BlockPlan]]:
    """Every block's name (layer1.0, ...) and plan; drop rates grow linearly with depth (arXiv 1603.09382)."""
    c_in, dilation, done, total = spec.stem_width, 1, 0, sum(stage.blocks for stage in spec.stages)
    for index, stage in enumerate(spec.stages, 1):
        for position in range(stage.blocks):
            plan = BlockPlan(
                block=spec.block,
                c_in=c_in,
                width=stage.width,
                stride=stage.stride if position == 0 else 1,
                dilation=stage.dilation,
                first_dilation=dilation,
                shortcut=stage.shortcut or spec.shortcut,
                cardinality=spec.cardinality,
                base_width=spec.base_width,
                stride_on=spec.stride_on,
                se=spec.se,
                skip_init=spec.skip_init,
                drop=spec.stochastic_depth * done / max(1, total - 1),
                layers=Layers(spec.dims, spec.norm, spec.activation),
            )
            yield f"layer{index}.{position}", plan
            c_in, dilation, done = plan.c_out, stage.dilation, done + 1


class ResNet(nn.Sequential):
    """Stem, layer1..layerN, avgpool, flatten, fc: images (N, C, H, W), clips (N, C, T, H, W) -> logits (N, classes)."""

    fc: nn.Linear

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        for name, part in parts(spec):
            if isinstance(part, nn.Module):
                self.add_module(name, part)
                continue
            stage, _ = name.split(".")
            if stage not in self._modules:
                self.add_module(stage, nn.Sequential())
            self.get_submodule(stage).append(part.build())  # type: ignore[operator]

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
    kinds = (_CONV, nn.Linear)
    found = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    return {name: module for name, module in found.items() if ".downsample" not in name and ".se." not in name}


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last, in which convolutions of images run fastest, for weights and images; else contiguous.

    The CPU kernel of PyTorch 2.14 for channels_last writes past its memory in the backward pass of a strided 1x1
    convolution with 2 to 7 channels (seen with AVX2); nets with one below 16, the wider vectors' block, go without.
    """
    convs = [module for module in model.modules() if isinstance(module, _CONV)]
    strided = [conv for conv in convs if set(conv.kernel_size) == {1} and set(conv.stride) != {1}]
    if any(isinstance(conv, nn.Conv3d) for conv in convs) or any(c.in_channels // c.groups < 16 for c in strided):
        return torch.contiguous_format
    return torch.channels_last


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
        if isinstance(module, _CONV):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, SkipInit):
            nn.init.zeros_(module.alpha)
        if isinstance(module, _CONV | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if model.spec.zero_init:
        for block in blocks(model).values():
            normed = block.last_norm and model.spec.norm != "none"
            nn.init.zeros_(block.get_submodule(block.last_norm if normed else block.last_conv).get_parameter("weight"))
