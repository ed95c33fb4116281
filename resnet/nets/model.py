"""Build the net that a spec describes, with torchvision's parameter names."""

import math
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from resnet.nets.blocks import BLOCKS, Block, BlockPlan
from resnet.nets.kinds import STEMS
from resnet.nets.layers import Gate, Layers, SkipInit
from resnet.nets.spec import NetSpec

_CONV = nn.modules.conv._ConvNd
_FEATURES = {"flatten": "pre_logits", "fc": "logits"}  # of the head's layers


class Part(NamedTuple):
    """A link of the chain that a net is: its name there, its stage (stem, stage1..stageN, head), and how it is made."""

    name: str
    stage: str
    made: BlockPlan | nn.Module

    @property
    def block(self) -> str:
        """The block's name, "" for a layer of stem or head."""
        return self.name if isinstance(self.made, BlockPlan) else ""

    @property
    def key(self) -> Hashable:
        """Equal for parts whose layers and costs are equal."""
        return self.made.key if isinstance(self.made, BlockPlan) else repr(self.made)

    def build(self) -> nn.Module:
        return self.made.build() if isinstance(self.made, BlockPlan) else self.made


def parts(spec: NetSpec) -> Iterator[Part]:
    """The net as a chain, input to output: the modules of stem and head, and the plans of the blocks."""
    make, preact = Layers(spec.dims, spec.norm, spec.activation), BLOCKS[spec.block].preact
    for name, module in STEMS[spec.stem].build(spec.in_channels, spec.stem_width, make, preact).items():
        yield Part(name, "stem", module)
    c_in = spec.stem_width
    for stage, position, plan in block_plans(spec):
        c_in = plan.c_out
        yield Part(f"layer{stage}.{position}", f"stage{stage}", plan)
    if preact:
        yield Part("bn_last", "head", make.norm(c_in))
        yield Part("act_last", "head", make.act())
    yield Part("avgpool", "head", make.global_pool())
    yield Part("flatten", "head", nn.Flatten())
    yield Part("fc", "head", nn.Linear(c_in, spec.classes))


def stage_names(spec: NetSpec) -> dict[str, str]:
    """The stage of each of the net's children by name, as {"conv1": "stem", "layer1": "stage1", "fc": "head"}."""
    with torch.device("meta"):
        return {part.name.partition(".")[0]: part.stage for part in parts(spec)}


def block_plans(spec: NetSpec) -> Iterator[tuple[int, int, BlockPlan]]:
    """Every block's stage, from 1, position in it, and plan; drop rates grow linearly with depth (arXiv 1603.09382)."""
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
            yield index, position, plan
            c_in, dilation, done = plan.c_out, stage.dilation, done + 1


class ResNet(nn.Sequential):
    """Stem, layer1..layerN, avgpool, flatten, fc: images (N, C, H, W), clips (N, C, T, H, W) -> logits (N, classes)."""

    fc: nn.Linear

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stages: dict[str, str] = {}  # of the children, by name
        for part in parts(spec):
            child, dot, _ = part.name.partition(".")
            if dot and child not in self.stages:
                self.add_module(child, nn.Sequential())
            self.stages[child] = part.stage
            if dot:
                self.get_submodule(child).append(part.build())  # type: ignore[operator]
            else:
                self.add_module(child, part.build())

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The named intermediates: stem, stage1..stageN (N, C, H, W), pre_logits (N, C), logits (N, classes)."""
        named = {}
        for name, module in self.named_children():
            x = module(x)
            if self.stages[name] != "head":
                named[self.stages[name]] = x
            elif name in _FEATURES:
                named[_FEATURES[name]] = x
        return named


def blocks(model: nn.Module) -> dict[str, Block]:
    """The residual (or plain) blocks by name, from the input to the output."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Block)}


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers on the main path by name, input to output: a net's depth counts these."""
    aside = _members(model, "shortcut", "se")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _CONV | nn.Linear)}
    return {name: layer for name, layer in layers.items() if layer not in aside}


def _members(model: nn.Module, *roles: str) -> set[nn.Module]:
    """The modules inside the blocks that have one of these roles."""
    inside = ((block.role(name), module) for block in blocks(model).values() for name, module in block.named_modules())
    return {module for role, module in inside if role in roles}


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
    shortcuts = _members(model, "shortcut")
    for module in sorted(model.modules(), key=shortcuts.__contains__):
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
    for module in model.modules():
        if isinstance(module, Gate):
            nn.init.constant_(module.conv.get_parameter("bias"), Gate.BIAS)
    if model.spec.zero_init:
        for block in blocks(model).values():
            normed = block.last_norm and model.spec.norm != "none"
            nn.init.zeros_(block.get_submodule(block.last_norm if normed else block.last_conv).get_parameter("weight"))
