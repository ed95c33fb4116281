"""Costs to the last digit: the published tables, torch's own counter, torchvision, and a count without folding."""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.costs.profiler import (
    FLOPS_PER_MAC,
    Profile,
    ProfileError,
    _by_torchvisions_names,
    profile,
    profile_module,
)
from resnet.costs.recorder import Row, shape_text
from resnet.nets.blocks import ZeroPad
from resnet.nets.kinds import STEMS
from resnet.nets.model import blocks, build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar, plain_twin
from tests.support.strategies import net_specs

TWINS = PRESETS | {f"twin of {name}": plain_twin(spec) for name, spec in PRESETS.items()}

cost = cache(profile)  # read only, so that the tests share what they measure

# Reference figures in the precision in which they are published.
IMAGENET = {
    "ResNeXt-50 32x4d": (25_028_904, "4.2305"),
    "ResNeXt-101 32x8d": (88_791_336, "16.4140"),
    "ResNeXt-101 64x4d": (83_455_272, "15.4603"),
    "Wide ResNet-50-2": (68_883_240, "11.3980"),
    "Wide ResNet-101-2": (126_886_696, "22.7531"),
    "ResNet-50 Keras listing": (25_557_032, "1.1106"),
    "ResNet3D-18": (33_371_472, "40.697"),
    "ResNet-18": (11_689_512, "1.8141"),
    "ResNet-34": (21_797_672, "3.6638"),
    "ResNet-50": (25_557_032, "4.0892"),
    "ResNet-50 v1": (25_557_032, "3.858"),
    "ResNet-101": (44_549_160, "7.8014"),
    "ResNet-101 v1": (44_549_160, "7.570"),
    "ResNet-152": (60_192_808, "11.5136"),
    "ResNet-152 v1": (60_192_808, "11.282"),
}
CIFAR = {
    20: (269_722, 272_474, "40.55", "40.81"),
    32: (464_154, 466_906, "68.86", "69.12"),
    44: (658_586, 661_338, "97.17", "97.44"),
    56: (853_018, 855_770, "125.49", "125.75"),
    110: (1_727_962, 1_730_714, "252.89", "253.15"),
    1202: (19_421_274, 19_424_026, "2829.24", "2829.50"),
}


@cache
def meta_net(spec: NetSpec) -> nn.Module:
    return build(spec, device="meta")


def printed(macs: int, like: str, unit: float) -> str:
    """The count in `unit`, with as many decimals as the table has."""
    return f"{macs / unit:.{len(like.partition('.')[2])}f}"


def meta_images(shape: tuple[int, ...], n: int = 1) -> Tensor:
    return torch.empty(n, *shape, device="meta")


def counted_flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    """torch's counter: the independent oracle."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(meta_images(shape))
    return counter.get_total_flops()


def torchvision_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return getattr(torchvision.models, name)(weights=None)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_table(name: str) -> None:
    params, gmacs = IMAGENET[name]
    result = cost(PRESETS[name])
    assert result.params == params
    assert printed(result.macs, gmacs, 1e9) == gmacs


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_table(depth: int) -> None:
    params_a, params_b, mmacs_a, mmacs_b = CIFAR[depth]
    a, b = cost(cifar(depth)), cost(replace(cifar(depth), shortcut="B"))
    assert (a.params, b.params) == (params_a, params_b)
    assert (printed(a.macs, mmacs_a, 1e6), printed(b.macs, mmacs_b, 1e6)) == (mmacs_a, mmacs_b)
    n = (depth - 2) // 6  # by hand: stem, three stages of 2n convolutions, head
    stages = sum(
        (2 * n * c * 9 * c - (c * 9 * c // 2 if c > 16 else 0)) * size**2 for c, size in ((16, 32), (32, 16), (64, 8))
    )
    assert a.macs == 32 * 32 * 27 * 16 + stages + 640
    assert b.macs - a.macs == 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64


@pytest.mark.parametrize("name", PRESETS)
def test_macs_and_params_against_torch(name: str) -> None:
    spec = PRESETS[name]
    model = meta_net(spec)
    result = cost(spec)
    assert result.params == sum(p.numel() for p in model.parameters())
    assert result.flops == FLOPS_PER_MAC * result.macs
    if len(result.rows) < 180:  # deeper ones repeat the same blocks, and torch's counter is slow
        assert result.flops == counted_flops(model, result.input_shape)


TORCHVISION = {
    **{f"ResNet-{depth}": f"ResNet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"ResNeXt-{name}": f"ResNeXt{name.replace('-', '').replace(' ', '_').upper()}" for name in
       ("50 32x4d", "101 32x8d", "101 64x4d")},
    **{f"Wide ResNet-{depth}-2": f"Wide_ResNet{depth}_2" for depth in (50, 101)},
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_nets_cost_the_same(name: str) -> None:
    result = cost(PRESETS[name])
    weights = getattr(torchvision.models, f"{TORCHVISION[name]}_Weights")
    published = next(iter(weights)).meta
    assert result.params == published["num_params"]
    assert round(result.macs / 1e9, 3) == published["_ops"]
    if name == "ResNet-18":
        assert result.flops == counted_flops(torchvision_on_meta("resnet18"), (3, 224, 224))


def test_the_video_net_of_torchvision_costs_the_same() -> None:
    result, published = cost(PRESETS["ResNet3D-18"]), torchvision.models.video.R3D_18_Weights.KINETICS400_V1.meta
    assert (result.params, round(result.macs / 1e9, 3)) == (published["num_params"], published["_ops"])


def test_the_keras_listing_has_a_smaller_last_map() -> None:
    maps = {name: cost(PRESETS[name]).stages().out_shape.iloc[-2] for name in ("ResNet-50 Keras listing", "ResNet-50")}
    assert maps == {"ResNet-50 Keras listing": "2048 x 4 x 4", "ResNet-50": "2048 x 7 x 7"}


def test_resnet_18_with_a_cifar_stem() -> None:
    result = cost(PRESETS["ResNet-18 CIFAR stem"])
    assert result.params == 11_173_962
    assert printed(result.macs, "0.56", 1e9) == "0.56"


# Training, and what a layer sees


@pytest.mark.parametrize(
    "name", ["ResNet-20", "ResNet-50-D", "Pre-ResNet-50", "ResNet3D-10 volume", "twin of ResNet-18"]
)
def test_training_macs_against_torch(name: str) -> None:
    """torch's counter is right where no convolution has groups."""
    spec = replace(TWINS[name], image_size=32, frames=32 if TWINS[name].frames else 0)
    model = build(spec, device="meta").train()
    with FlopCounterMode(display=False) as counter:
        model(meta_images(spec.input_shape, 2)).sum().backward()
    assert 2 * 2 * cost(spec).training_macs == counter.get_total_flops()


def test_training_macs_of_groups_are_those_of_their_parts() -> None:
    with torch.device("meta"):
        grouped = nn.Sequential(nn.Conv2d(6, 8, 1), nn.Conv2d(8, 12, 3, groups=4))
        part = nn.Sequential(nn.Conv2d(6, 8, 1), nn.Conv2d(2, 3, 3))
    whole, one = profile_module(grouped, (6, 9, 9)), profile_module(part[1:], (2, 9, 9))
    assert whole.training_macs == 2 * 6 * 8 * 81 + 3 * 4 * one.macs


@pytest.mark.parametrize(("name", "pixels"), [("ResNet-50 v1", 483), ("ResNet-101 v1", 1027), ("ResNet-152 v1", 1507)])
def test_published_receptive_fields(name: str, pixels: int) -> None:
    """Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019."""
    assert cost(PRESETS[name]).stages().receptive_field.iloc[-2] == f"{pixels} x {pixels}"
    assert cost(PRESETS[name]).stages().stride.iloc[-2] == "32 x 32"


SEEN = {
    "A": NetSpec((StageSpec(1, 4), StageSpec(2, 8, 2)), shortcut="A", stem="3x3", stem_width=4, norm="none"),
    "D and dilation": NetSpec(
        (StageSpec(1, 4, 2), StageSpec(2, 4, 1, 3), StageSpec(1, 4, 3)), shortcut="D", stem="deep", stem_width=4,
        norm="none",
    ),
    "one wide": NetSpec((StageSpec(1, 4), StageSpec(1, 4, 2)), "bottleneck", "B", stem="7x7", stem_width=4, norm="none",
                        stride_on="1x1", in_channels=1),
    "before": NetSpec((StageSpec(2, 4, 3), StageSpec(1, 4, 2)), "preact-basic", "C", stem="3x3", stem_width=4,
                      norm="none"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_receptive_fields_are_where_the_gradient_is_not_zero(name: str) -> None:
    spec = replace(SEEN[name], image_size=384, classes=2)
    model = build(spec).double()
    if hasattr(model, "maxpool"):
        model.maxpool = nn.AvgPool2d(3, 2, 1)  # a maximum passes its gradient to one pixel alone
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1e-3)  # positive, so that nothing cancels
    x = torch.ones(1, *spec.input_shape, dtype=torch.double, requires_grad=True)
    rows = {row.name: row for row in cost(spec).rows}
    features = model.features(x)
    last = {"stem": "stem"} | {f"stage{i}": f"layer{i}" for i in range(1, len(spec.stages) + 1)}
    for feature, prefix in last.items():
        inside = [row for key, row in rows.items() if row.stage == feature and key.startswith(prefix[:5])]
        row = (inside or [row for row in rows.values() if row.stage == feature])[-1]
        y = features[feature]
        middle = y.shape[-1] // 2
        (gradient,) = torch.autograd.grad(y[0, :, middle, middle].sum(), x, retain_graph=True)
        seen = gradient[0].abs().sum(0).nonzero()
        sides = (seen.amax(0) - seen.amin(0) + 1).tolist()
        assert sides == list(row.receptive_field), feature
        edges = zip(seen.amin(0).tolist(), seen.amax(0).tolist(), strict=True)
        assert row.window((middle, middle)) == list(edges), feature
        (beside,) = torch.autograd.grad(y[0, :, middle, middle + 1].sum(), x, retain_graph=True)
        step = beside[0].abs().sum(0).nonzero().amin(0)[1] - seen.amin(0)[1]
        assert step == row.stride[1], feature


@pytest.mark.parametrize("name", PRESETS)
def test_plain_twins_cost_what_the_main_path_costs(name: str) -> None:
    residual, twin = cost(PRESETS[name]), cost(plain_twin(PRESETS[name]))
    projections = [row for row in residual.rows if ".downsample." in row.name]
    assert twin.params == residual.params - sum(row.params for row in projections)
    assert twin.macs == residual.macs - sum(row.macs for row in projections)
    assert bool(projections) == (PRESETS[name].shortcut in "BD")


@pytest.mark.parametrize("name", ["ResNet-20", "ResNet-50"])
def test_shapes_are_those_of_a_real_forward(name: str) -> None:
    spec = replace(PRESETS[name], image_size=64)
    model = build(spec).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for key, module in model.named_modules():
        if not any(module.children()):
            module.register_forward_hook(lambda m, _, out, key=key: shapes.__setitem__(key, tuple(out.shape[1:])))
    with torch.no_grad():
        model(torch.zeros(2, 3, 64, 64))
    result = cost(spec)
    assert result.input_shape == (3, 64, 64)
    for row in result.rows:
        assert row.out_shape == shapes[row.name], row.name
        assert row.activations == math.prod(row.out_shape)


# Folding


def known(rows: Iterable[Row]) -> list[tuple]:
    """What `count_unfolded` gives for a layer."""
    return [(r.name, r.stage, r.kind, r.kernel, r.out_shape, r.params, r.macs, r.activations) for r in rows]


def count_unfolded(spec: NetSpec) -> list[tuple]:
    """Every block run, one hook on every leaf, costs from kernel sizes and channels."""
    rows: list[tuple] = []

    def hook(name: str) -> Any:
        def see(module: nn.Module, _: Any, out: Tensor) -> None:
            shape, macs, kernel = tuple(out.shape[1:]), 0, ""
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                macs = math.prod(shape) * module.in_channels // module.groups * math.prod(module.kernel_size)
                kernel = shape_text(module.kernel_size)
            elif isinstance(module, nn.Linear):
                macs = module.in_features * module.out_features
            elif isinstance(module, nn.MaxPool2d | nn.MaxPool3d):
                kernel = "3 x 3" + " x 3" * isinstance(module, nn.MaxPool3d)
            elif isinstance(module, nn.AvgPool2d | nn.AvgPool3d):
                kernel = shape_text([module.kernel_size] * (len(shape) - 1))  # type: ignore[list-item]
            params = sum(p.numel() for p in module.parameters())
            part = name.split(".")[0]
            stage = part.replace("layer", "stage") if part.startswith("layer") else "head"
            stem = part in ("act", "maxpool") or re.fullmatch(r"(conv|bn|act)[123]", part)
            row = (
                name,
                "stem" if stem else stage,
                type(module).__name__,
                kernel,
                shape,
                params,
                macs,
                math.prod(shape),
            )
            rows.append(row)

        return see

    model = meta_net(spec).eval()
    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children()) and not isinstance(m, nn.Identity)]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    with torch.no_grad():
        model(meta_images(spec.input_shape))
    for handle in handles:
        handle.remove()
    return rows


def check_frames(result: Profile) -> None:
    layers, stages = result.layers(), result.stages()
    assert list(layers.name) == [row.name for row in result.rows]
    assert list(layers.columns) == list(Row._fields)
    for column, total in {"params": result.params, "macs": result.macs, "activations": result.activations}.items():
        assert stages[column].sum() == layers[column].sum() == total
    assert stages.layers.sum() == sum(row.kind in ("Conv2d", "Conv3d", "Linear") for row in result.rows)


@pytest.mark.parametrize("name", [name for name in TWINS if name in PRESETS or TWINS[name].depth <= 20])
def test_folded_rows_are_the_unfolded_ones(name: str) -> None:
    spec = TWINS[name]
    result = cost(spec)
    assert known(result.rows) == count_unfolded(spec)
    check_frames(result)
    assert list(result.stages().stage) == ["stem", *(f"stage{i + 1}" for i in range(len(spec.stages))), "head"]
    aside = sum(row.op == "conv" and re.search(r"\.(downsample|se)\.", row.name) is not None for row in result.rows)
    assert result.stages().layers.sum() == spec.depth + aside + len(STEMS[spec.stem].convs) - 1


@pytest.mark.parametrize("name", TWINS)
def test_rows_are_the_leaf_modules(name: str) -> None:
    spec = TWINS[name]
    leaves = {n for n, m in meta_net(spec).named_modules() if not any(m.children()) and not isinstance(m, nn.Identity)}
    names = [row.name for row in cost(spec).rows]
    assert len(names) == len(set(names))
    assert set(names) == leaves


@given(net_specs(max_width=32))
@settings(max_examples=40, deadline=None)
def test_folding_keeps_unlike_blocks_apart(spec: NetSpec) -> None:
    assert known(cost(spec).rows) == count_unfolded(spec)


# Other people's nets


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_torchvision_modules(name: str) -> None:
    model = torchvision_on_meta(name)
    result = profile_module(model, (3, 224, 224))
    weights = {"resnet18": "ResNet18_Weights", "vgg11": "VGG11_Weights"}[name]
    published = getattr(torchvision.models, weights).IMAGENET1K_V1.meta
    assert result.params == sum(p.numel() for p in model.parameters()) == published["num_params"]
    assert result.flops == counted_flops(model, (3, 224, 224))
    assert round(result.macs / 1e9, 3) == published["_ops"]
    check_frames(result)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_net_that_cannot_run_says_where_and_gives_the_rows_before() -> None:
    model = torchvision_on_meta("vgg11").train()
    with pytest.raises(ProfileError, match=r"stops at features\.20") as caught:
        profile_module(model, (3, 16, 16))
    assert caught.value.layer == "features.20"
    assert [row.name for row in caught.value.rows] == [f"features.{index}" for index in range(20)]
    assert caught.value.rows[-1].out_shape == (512, 1, 1)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_operations_outside_of_modules_have_rows() -> None:
    result = profile_module(torchvision_on_meta("resnet18"), (3, 64, 64))
    added = [row for row in result.rows if row.op == "add"]
    assert [row.name for row in added] == [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert all((row.kind, row.macs, row.params) == ("add", 0, 0) for row in added)


def test_parameters_of_a_module_with_children_are_counted_once() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(3, 1, 1))
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x) * self.gain)

    with torch.device("meta"):
        result = profile_module(Gain(), (3, 8, 8))
    assert [(row.name, row.op, row.params) for row in result.rows] == [
        ("conv", "conv", 12), ("", "multiply", 3), ("conv", "conv", 0)
    ]  # fmt: skip
    assert result.macs == 2 * 9 * 64


def test_grouped_and_dilated_convolutions() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(8, 12, (3, 5), 2, 1, 2, groups=4), nn.Flatten(), nn.Linear(12 * 7 * 6, 3))
    result = profile_module(model, (8, 16, 17))
    assert result.flops == counted_flops(model, (8, 16, 17))
    assert [row.kernel for row in result.rows] == ["3 x 5", "", ""]


def test_stage_names() -> None:
    names = ["conv1", "bn1", "maxpool", "layer1.0.conv1", "layer12.3", "avgpool", "flatten", "fc", "classifier.6"]
    want = ["stem", "stem", "stem", "stage1", "stage12", "head", "head", "head", "head"]
    found = [_by_torchvisions_names(name) for name in names]
    assert [stage for stage, _, _ in found] == want
    assert [block for _, block, _ in found] == ["", "", "", "layer1.0", "layer12.3", "", "", "", ""]


@pytest.mark.parametrize("name", [name for name, spec in TWINS.items() if spec.depth <= 50])
def test_a_row_says_its_place(name: str) -> None:
    """Against the modules of the built net: which of them a shortcut or a gate contains, and what the shortcut is."""
    places = {"": ("", "")}
    for key, block in blocks(meta_net(TWINS[name])).items():
        kinds = {type(module) for module in (block.downsample or nn.ModuleList()).modules()}
        known = {nn.ModuleList: "", nn.AvgPool2d: "D", nn.Conv2d: "B", nn.Conv3d: "B", ZeroPad: "A"}
        way = next((key for kind, key in known.items() if kind in kinds), "identity")
        inside = {"downsample": "shortcut", "se": "se", "add": "sum", block.last_act: "sum"}
        for member, module in block.named_children():
            role = inside.get(member, "branch")
            places |= {f"{key}.{n}".removesuffix("."): (f"{key} {role}", way) for n in
                       (f"{member}.{leaf}".removesuffix(".") for leaf, _ in module.named_modules())}  # fmt: skip
    for row in cost(TWINS[name]).rows:
        assert (f"{row.block} {row.role}", row.shortcut) == places.get(row.name, (f" {row.stage}", "")), row.name
    boxes = cost(TWINS[name]).blocks()
    assert list(boxes.name) == ["stem", *blocks(meta_net(TWINS[name])), "head"]


def test_a_block_inside_of_another_net_says_its_place() -> None:
    with torch.device("meta"):
        net = nn.ModuleDict({"backbone": build(PRESETS["ResNet-20"], device="meta")})
        net.forward = net["backbone"].forward
    rows = {row.name: row for row in profile_module(net, (3, 32, 32)).rows}
    last = rows["backbone.layer2.0.downsample"]
    assert (last.role, last.shortcut, last.block) == ("shortcut", "A", "")
    assert {row.role for name, row in rows.items() if ".downsample" not in name} == {"branch", "sum", "stem"}


def test_other_peoples_blocks_are_read_from_torchvisions_names() -> None:
    boxes = profile_module(torchvision_on_meta("resnet18"), (3, 64, 64)).blocks()
    assert list(boxes.name) == ["stem", *(f"layer{i}.{j}" for i in range(1, 5) for j in range(2)), "head"]
    assert list(boxes.kernels[1:9]) == ["3 x 3, 3 x 3"] * 8  # without the projections
    assert set(boxes.shortcut) == {""}
