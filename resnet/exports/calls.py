"""The call with which torchvision or timm builds the same net, where one does."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from resnet.nets.blocks import BLOCKS
from resnet.nets.spec import NetSpec

_R18, _R34, _R50, _R101, _R152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_WIDTHS = (64, 128, 256, 512)

# torchvision's builders: block, blocks per stage, groups, width per group.
_TORCHVISION: dict[tuple[str, tuple[int, ...], int, int], str] = {
    ("basic", _R18, 1, 64): "resnet18",
    ("basic", _R34, 1, 64): "resnet34",
    ("bottleneck", _R50, 1, 64): "resnet50",
    ("bottleneck", _R101, 1, 64): "resnet101",
    ("bottleneck", _R152, 1, 64): "resnet152",
    ("bottleneck", _R50, 32, 4): "resnext50_32x4d",
    ("bottleneck", _R101, 32, 8): "resnext101_32x8d",
    ("bottleneck", _R101, 64, 4): "resnext101_64x4d",
    ("bottleneck", _R50, 1, 128): "wide_resnet50_2",
    ("bottleneck", _R101, 1, 128): "wide_resnet101_2",
}


_C: dict[str, object] = {"stem_width": 32, "stem_type": "deep"}
_D: dict[str, object] = {**_C, "avg_down": True}
_V2_D: dict[str, object] = {"stem_type": "deep", "avg_down": True}
_SE: dict[str, object] = {"block_args": {"attn_layer": "se"}}

# timm's names: block, and how the net differs from timm's defaults.
_TIMM: dict[str, tuple[str, dict[str, object]]] = {
    "resnet18": ("basic", {"layers": _R18}),
    "resnet18d": ("basic", {"layers": _R18, **_D}),
    "resnet34": ("basic", {"layers": _R34}),
    "resnet34d": ("basic", {"layers": _R34, **_D}),
    "resnet26": ("bottleneck", {"layers": _R18}),
    "resnet26d": ("bottleneck", {"layers": _R18, **_D}),
    "resnet50": ("bottleneck", {"layers": _R50}),
    "resnet50c": ("bottleneck", {"layers": _R50, **_C}),
    "resnet50d": ("bottleneck", {"layers": _R50, **_D}),
    "resnet50_gn": ("bottleneck", {"layers": _R50, "norm_layer": "groupnorm"}),
    "resnet101": ("bottleneck", {"layers": _R101}),
    "resnet101c": ("bottleneck", {"layers": _R101, **_C}),
    "resnet101d": ("bottleneck", {"layers": _R101, **_D}),
    "resnet152": ("bottleneck", {"layers": _R152}),
    "resnet152c": ("bottleneck", {"layers": _R152, **_C}),
    "resnet152d": ("bottleneck", {"layers": _R152, **_D}),
    "wide_resnet50_2": ("bottleneck", {"layers": _R50, "base_width": 128}),
    "wide_resnet101_2": ("bottleneck", {"layers": _R101, "base_width": 128}),
    "resnext50_32x4d": ("bottleneck", {"layers": _R50, "cardinality": 32, "base_width": 4}),
    "resnext50d_32x4d": ("bottleneck", {"layers": _R50, "cardinality": 32, "base_width": 4, **_D}),
    "resnext101_32x4d": ("bottleneck", {"layers": _R101, "cardinality": 32, "base_width": 4}),
    "resnext101_32x8d": ("bottleneck", {"layers": _R101, "cardinality": 32, "base_width": 8}),
    "resnext101_64x4d": ("bottleneck", {"layers": _R101, "cardinality": 64, "base_width": 4}),
    "seresnet18": ("basic", {"layers": _R18, **_SE}),
    "seresnet34": ("basic", {"layers": _R34, **_SE}),
    "seresnet50": ("bottleneck", {"layers": _R50, **_SE}),
    "seresnet101": ("bottleneck", {"layers": _R101, **_SE}),
    "seresnet152": ("bottleneck", {"layers": _R152, **_SE}),
    "seresnext50_32x4d": ("bottleneck", {"layers": _R50, "cardinality": 32, "base_width": 4, **_SE}),
    "resnetv2_18": ("preact-basic", {"layers": _R18}),
    "resnetv2_18d": ("preact-basic", {"layers": _R18, **_V2_D}),
    "resnetv2_34": ("preact-basic", {"layers": _R34}),
    "resnetv2_34d": ("preact-basic", {"layers": _R34, **_V2_D}),
    "resnetv2_50": ("preact-bottleneck", {"layers": _R50}),
    "resnetv2_50d": ("preact-bottleneck", {"layers": _R50, **_V2_D}),
    "resnetv2_101": ("preact-bottleneck", {"layers": _R101}),
    "resnetv2_101d": ("preact-bottleneck", {"layers": _R101, **_V2_D}),
    "resnetv2_152": ("preact-bottleneck", {"layers": _R152}),
    "resnetv2_152d": ("preact-bottleneck", {"layers": _R152, **_V2_D}),
}


def _blocks(spec: NetSpec) -> tuple[int, ...]:
    return tuple(stage.blocks for stage in spec.stages)


def _widths(spec: NetSpec) -> tuple[int, ...]:
    return tuple(stage.width for stage in spec.stages)


def _dilated(spec: NetSpec) -> list[bool] | None:
    """Which of the last three stages dilate where they would stride by 2; None where they do anything else."""
    dilation, dilated = 1, []
    if (spec.stages[0].stride, spec.stages[0].dilation) != (1, 1):
        return None
    for stage in spec.stages[1:]:
        dilated.append(stage.stride == 1)
        dilation *= 2 if dilated[-1] else 1
        if stage.stride > 2 or stage.dilation != dilation:
            return None
    return dilated


def _arguments(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _first(rules: Iterable[tuple[bool, str]]) -> str:
    """The reason of the first rule that is broken, "" where none is."""
    return next((reason for broken, reason in rules if broken), "")


def _common_rules(spec: NetSpec, library: str) -> Iterator[tuple[bool, str]]:
    yield spec.norm == "none", f"{library} has no nets without norms."
    yield spec.skip_init, f"{library} has no SkipInit."
    yield len(spec.stages) != 4, f"{library}'s nets have four stages; this one has {len(spec.stages)}."
    yield spec.stem_width != 64, f"{library}'s stems have 64 channels; this one has {spec.stem_width}."
    v1 = spec.stride_on == "1x1" and BLOCKS[spec.block].bottleneck and any(s.stride > 1 for s in spec.stages)
    yield v1, f"{library}'s bottlenecks stride on the 3x3; this net strides on the first 1x1."


# torchvision


def torchvision_reason(spec: NetSpec) -> str:
    """Why torchvision cannot build the net, "" where it can."""
    return _first(_torchvision_rules(spec))


def _torchvision_rules(spec: NetSpec) -> Iterator[tuple[bool, str]]:
    yield from _common_rules(spec, "torchvision")
    yield spec.block not in ("basic", "bottleneck"), "torchvision has no pre-activation nets."
    yield spec.activation != "relu", "torchvision's ResNets have only ReLU."
    yield bool(spec.se), "torchvision's ResNets have no squeeze-and-excitation."
    yield spec.stochastic_depth > 0, "torchvision's ResNets have no stochastic depth."
    yield spec.in_channels != 3, f"torchvision's ResNets read 3 channels; this net reads {spec.in_channels}."
    yield set(spec.shortcuts) != {"B"}, "torchvision's ResNets have shortcut B in every stage."
    yield _widths(spec) != _WIDTHS, "torchvision's stages are 64, 128, 256 and 512 wide."
    yield _dilated(spec) is None, "torchvision's stages stride by 1, 2, 2, 2, or dilate by 2 instead of a stride."
    yield spec.stem != ("3x7x7" if spec.frames else "7x7"), f"torchvision's ResNets do not have the {spec.stem} stem."
    yield spec.norm != "batch", "torchvision's builders have batch norm."
    dilated = any(_dilated(spec) or [])
    yield dilated and spec.block == "basic", "torchvision's basic block cannot dilate."
    grouped = (spec.cardinality, spec.base_width) != (1, 64)
    yield spec.dims == 3 and (dilated or grouped), "torchvision's video nets neither dilate nor have groups or widths."


def torchvision_call(spec: NetSpec) -> str:
    """A script that builds the net with torchvision; in 2-D with our state_dict's keys."""
    options: dict[str, object] = {"num_classes": spec.classes} if spec.classes != (400 if spec.frames else 1000) else {}
    options |= {"zero_init_residual": True} if spec.zero_init else {}
    if spec.frames:
        return _video_call(spec, options)
    if any(_dilated(spec) or []):
        options["replace_stride_with_dilation"] = _dilated(spec)
    name = _TORCHVISION.get((spec.block, _blocks(spec), spec.cardinality, spec.base_width))
    if name:
        return f"from torchvision.models import {name}\n\nmodel = {name}({_arguments(options)})\n"
    block = "BasicBlock" if spec.block == "basic" else "Bottleneck"
    grouped = {"groups": (spec.cardinality, 1), "width_per_group": (spec.base_width, 64)}
    options |= {name: value for name, (value, usual) in grouped.items() if value != usual}
    arguments = ", ".join(filter(None, [block, str(list(_blocks(spec))), _arguments(options)]))
    return f"from torchvision.models.resnet import {block}, ResNet\n\nmodel = ResNet({arguments})\n"


def _video_call(spec: NetSpec, options: dict[str, object]) -> str:
    block = "BasicBlock" if spec.block == "basic" else "Bottleneck"
    if (block, _blocks(spec)) == ("BasicBlock", _R18):
        return f"from torchvision.models.video import r3d_18\n\nmodel = r3d_18({_arguments(options)})\n"
    arguments = [block, "[Conv3DSimple] * 4", str(list(_blocks(spec))), "BasicStem", _arguments(options)]
    names = ", ".join(sorted([block, "BasicStem", "Conv3DSimple", "VideoResNet"]))
    call = f"VideoResNet({', '.join(filter(None, arguments))})"
    return f"from torchvision.models.video.resnet import {names}\n\nmodel = {call}\n"


# timm


def timm_reason(spec: NetSpec) -> str:
    """Why timm cannot build the net, "" where it can."""
    return _first(_timm_rules(spec))


def _timm_rules(spec: NetSpec) -> Iterator[tuple[bool, str]]:
    yield spec.dims == 3, "timm's ResNets are for images."
    yield from _common_rules(spec, "timm")
    yield spec.stem not in ("7x7", "deep"), f"timm's ResNets do not have the {spec.stem} stem."
    yield set(spec.shortcuts) not in ({"B"}, {"D"}), "timm's ResNets have shortcut B or D, the same in every stage."
    dilated, strides = _dilated(spec), "timm's stages stride by 1, 2, 2, 2, or at the end dilate by 2 instead."
    yield dilated is None or sorted(dilated) != dilated or sum(dilated) > 2, strides
    yield bool(any(dilated or []) and "D" in spec.shortcuts), "With dilation, timm's shortcut D is different."
    yield spec.norm == "group" and not _groups_of_32(spec), "timm's group norm has 32 groups everywhere."
    yield bool(spec.se) and spec.activation != "relu", "timm's squeeze-and-excitation has ReLU."
    yield bool(spec.se) and not _squeeze_divisor(spec), "timm rounds the squeezed channels to another number."
    if BLOCKS[spec.block].preact:
        yield from _timm_preact_rules(spec)


def _timm_preact_rules(spec: NetSpec) -> Iterator[tuple[bool, str]]:
    yield bool(spec.se), "timm's pre-activation nets have no squeeze-and-excitation."
    grouped = (spec.cardinality, spec.base_width) != (1, 64)
    yield grouped, "timm's pre-activation nets have no groups and no other base width."
    narrow = any(width % 8 for width in _widths(spec))
    yield narrow, "timm rounds the widths of pre-activation nets to multiples of 8."
    projects = spec.block == "preact-bottleneck" or any(_dilated(spec) or [])
    same = projects and _keeps_a_shape(spec)
    yield same, "timm's pre-activation nets have a projection where this one's stage begins with the identity."


def _keeps_a_shape(spec: NetSpec) -> bool:
    """Whether a stage begins with a block that keeps its input's shape."""
    channels = [spec.stem_width, *(width * spec.expansion for width in _widths(spec))]
    return any(
        s.stride == 1 and before == after for s, (before, after) in zip(spec.stages, pairwise(channels), strict=True)
    )


def _groups_of_32(spec: NetSpec) -> bool:
    """Whether all norms have 32 groups."""
    inner = [int(width * spec.base_width / 64) * spec.cardinality for width in _widths(spec)]
    return spec.stem != "deep" and all(channels % 64 == 0 for channels in [*_widths(spec), *inner])


def _squeeze_divisor(spec: NetSpec) -> int:
    """To what multiples timm's squeezed channels have to be rounded to be ours: 8, its default, or 1; 0 for neither."""
    channels = [width * spec.expansion for width in _widths(spec)]
    for divisor in (8, 1) if spec.se == 16 else (1,):
        theirs = [max(divisor, int(c * (1 / spec.se) + divisor / 2) // divisor * divisor) for c in channels]
        if theirs == [max(1, c // spec.se) for c in channels]:
            return divisor
    return 0


def timm_call(spec: NetSpec) -> str:
    """A script that builds the net with timm: the nearest of its names, and what differs."""
    wanted, options = _timm_net(spec), _timm_options(spec)
    fitting = {name: net for name, (block, net) in _TIMM.items() if block == spec.block and set(net) <= set(wanted)}
    name = min(fitting, key=lambda name: sum(fitting[name].get(key) != value for key, value in wanted.items()))
    differing = {key: repr(value) for key, value in wanted.items() if fitting[name].get(key) != value}
    imports = ["import timm"]
    if "block_args" in differing:
        differing["block_args"] = '{"attn_layer": "se"}'
        if _squeeze_divisor(spec) == 1:
            imports = ["from functools import partial", "", "import timm", "from timm.layers import SEModule"]
            attention = f"partial(SEModule, rd_ratio=1 / {spec.se}, rd_divisor=1)"
            differing["block_args"] = f'{{"attn_layer": {attention}}}'
    arguments = ", ".join(filter(None, [f'"{name}"', _arguments(differing | options)])).replace("'", '"')
    return "\n".join(imports) + f"\n\nmodel = timm.create_model({arguments})\n"


def _timm_net(spec: NetSpec) -> dict[str, object]:
    """What one of timm's names may stand for."""
    net: dict[str, object] = {"layers": _blocks(spec)}
    net |= {"cardinality": spec.cardinality} if spec.cardinality != 1 else {}
    net |= {"base_width": spec.base_width} if spec.base_width != 64 else {}
    if spec.stem == "deep":
        net |= {"stem_type": "deep"} if BLOCKS[spec.block].preact else _C
    net |= {"avg_down": True} if "D" in spec.shortcuts else {}
    net |= {"norm_layer": "groupnorm"} if spec.norm == "group" else {}
    return net | ({"block_args": {"attn_layer": "se" if _squeeze_divisor(spec) == 8 else spec.se}} if spec.se else {})


def _timm_options(spec: NetSpec) -> dict[str, object]:
    """What no name stands for."""
    preact = BLOCKS[spec.block].preact
    options: dict[str, object] = {}
    if _widths(spec) != _WIDTHS:
        options["channels"] = tuple(width * (spec.expansion if preact else 1) for width in _widths(spec))
    options |= {"act_layer": f'"{spec.activation}"'} if spec.activation != "relu" else {}
    options |= {"output_stride": spec.output_stride} if any(_dilated(spec) or []) else {}
    options |= {"drop_path_rate": spec.stochastic_depth} if spec.stochastic_depth else {}
    options |= {"zero_init_last": spec.zero_init} if spec.zero_init == preact else {}
    options |= {"in_chans": spec.in_channels} if spec.in_channels != 3 else {}
    return options | ({"num_classes": spec.classes} if spec.classes != 1000 else {})
