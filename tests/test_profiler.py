"""Costs to the last digit: the published tables, torch's own counter, torchvision, and a count without folding."""

import math
import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.blocks import BLOCKS, NORMS, SHORTCUTS, STEMS
from resnet.model import build
from resnet.profiler import FLOPS_PER_MAC, Profile, Row, profile, profile_module, shape_text, stage_of
from resnet.spec import PRESETS, NetSpec, StageSpec, cifar, plain_twin

TWINS = PRESETS | {f"twin of {name}": plain_twin(spec) for name, spec in PRESETS.items()}

cost = cache(profile)  # read only, so that the tests share what they measure

# Reference figures in the precision in which they are published.
IMAGENET = {
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
    preset, _, v1 = name.partition(" ")
    spec = replace(PRESETS[preset], stride_on="1x1" if v1 else "3x3")
    params, gmacs = IMAGENET[name]
    result = cost(spec)
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


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_torchvisions_nets_cost_the_same(depth: int) -> None:
    result = cost(PRESETS[f"ResNet-{depth}"])
    published = getattr(torchvision.models, f"ResNet{depth}_Weights").IMAGENET1K_V1.meta
    assert result.params == published["num_params"]
    assert round(result.macs / 1e9, 3) == published["_ops"]
    if depth == 18:
        theirs = torchvision_on_meta(f"resnet{depth}")
        assert result.flops == counted_flops(theirs, (3, 224, 224))


def test_the_keras_listing_of_resnet_50() -> None:
    spec = PRESETS["ResNet-50"]
    result = cost(replace(spec, stages=tuple(replace(s, stride=2) for s in spec.stages), stride_on="1x1"))
    assert result.params == 25_557_032
    assert printed(result.macs, "1.1106", 1e9) == "1.1106"
    maps = dict(zip(result.stages().stage, result.stages().out_shape, strict=True))
    assert maps["stage4"] == "2048 x 4 x 4"
    assert cost(spec).stages().out_shape.iloc[-2] == "2048 x 7 x 7"


def test_resnet_18_with_a_cifar_stem() -> None:
    result = cost(replace(PRESETS["ResNet-18"], stem="3x3", classes=10, image_size=32))
    assert result.params == 11_173_962
    assert printed(result.macs, "0.56", 1e9) == "0.56"


@pytest.mark.parametrize("name", PRESETS)
def test_plain_twins_cost_what_the_main_path_costs(name: str) -> None:
    residual, twin = cost(PRESETS[name]), cost(plain_twin(PRESETS[name]))
    projections = [row for row in residual.rows if ".downsample." in row.name]
    assert twin.params == residual.params - sum(row.params for row in projections)
    assert twin.macs == residual.macs - sum(row.macs for row in projections)
    assert bool(projections) == (PRESETS[name].shortcut == "B")


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


def count_unfolded(spec: NetSpec) -> list[Row]:
    """Every block run, one hook on every leaf, costs from kernel sizes and channels."""
    rows: list[Row] = []

    def hook(name: str) -> Any:
        def see(module: nn.Module, _: Any, out: Tensor) -> None:
            shape, macs, kernel = tuple(out.shape[1:]), 0, ""
            if isinstance(module, nn.Conv2d):
                macs = math.prod(shape) * module.in_channels // module.groups * math.prod(module.kernel_size)
                kernel = shape_text(module.kernel_size)
            elif isinstance(module, nn.Linear):
                macs = module.in_features * module.out_features
            elif isinstance(module, nn.MaxPool2d):
                kernel = "3 x 3"
            params = sum(p.numel() for p in module.parameters())
            part = name.split(".")[0]
            stage = part.replace("layer", "stage") if part.startswith("layer") else "head"
            stage = "stem" if part in ("conv1", "bn1", "relu", "maxpool") else stage
            rows.append(Row(name, stage, type(module).__name__, kernel, shape, params, macs, math.prod(shape)))

        return see

    model = meta_net(spec).eval()
    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children()) and not isinstance(m, nn.Identity)]
    handles = [module.register_forward_hook(hook(name)) for name, module in leaves]
    with torch.no_grad():
        model(meta_images((spec.in_channels, spec.image_size, spec.image_size)))
    for handle in handles:
        handle.remove()
    return rows


def check_frames(result: Profile) -> None:
    layers, stages = result.layers(), result.stages()
    assert list(layers.name) == [row.name for row in result.rows]
    assert list(layers.columns) == list(Row.__dataclass_fields__)
    for column, total in {"params": result.params, "macs": result.macs, "activations": result.activations}.items():
        assert stages[column].sum() == layers[column].sum() == total
    assert stages.layers.sum() == sum(row.kind in ("Conv2d", "Linear") for row in result.rows)


@pytest.mark.parametrize("name", [name for name in TWINS if name in PRESETS or TWINS[name].depth <= 20])
def test_folded_rows_are_the_unfolded_ones(name: str) -> None:
    spec = TWINS[name]
    result = cost(spec)
    assert list(result.rows) == count_unfolded(spec)
    check_frames(result)
    assert list(result.stages().stage) == ["stem", *(f"stage{i + 1}" for i in range(len(spec.stages))), "head"]
    projections = sum(row.kind == "Conv2d" and ".downsample." in row.name for row in result.rows)
    assert result.stages().layers.sum() == spec.depth + projections


@pytest.mark.parametrize("name", TWINS)
def test_rows_are_the_leaf_modules(name: str) -> None:
    spec = TWINS[name]
    leaves = {n for n, m in meta_net(spec).named_modules() if not any(m.children()) and not isinstance(m, nn.Identity)}
    names = [row.name for row in cost(spec).rows]
    assert len(names) == len(set(names))
    assert set(names) == leaves


def test_folding_tells_unlike_blocks_apart() -> None:
    rng = random.Random(0)
    for _ in range(10):
        stages = tuple(
            StageSpec(rng.randint(1, 3), rng.choice([8, 16]), rng.choice([1, 1, 2])) for _ in range(rng.randint(2, 4))
        )
        spec = NetSpec(
            stages,
            block=rng.choice(list(BLOCKS)),
            shortcut=rng.choice([name for name in SHORTCUTS if name != "A"]),
            stem=rng.choice(list(STEMS)),
            stem_width=rng.choice([8, 16, 32, 64]),
            stride_on=rng.choice(["1x1", "3x3"]),
            norm=rng.choice(list(NORMS)),
            image_size=rng.choice([8, 33]),
        )
        assert list(cost(spec).rows) == count_unfolded(spec), spec


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


def test_hooks_go_when_the_forward_raises() -> None:
    model = build(PRESETS["ResNet-20"], device="meta")
    with pytest.raises(RuntimeError):
        profile_module(model, (4, 32, 32))
    assert not any(module._forward_hooks for module in model.modules())


def test_grouped_and_dilated_convolutions() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(8, 12, (3, 5), 2, 1, 2, groups=4), nn.Flatten(), nn.Linear(12 * 7 * 6, 3))
    result = profile_module(model, (8, 16, 17))
    assert result.flops == counted_flops(model, (8, 16, 17))
    assert [row.kernel for row in result.rows] == ["3 x 5", "", ""]


def test_stage_names() -> None:
    names = ["conv1", "bn1", "maxpool", "layer1.0.conv1", "layer12.3", "avgpool", "flatten", "fc", "classifier.6"]
    want = ["stem", "stem", "stem", "stage1", "stage12", "head", "head", "head", "head"]
    assert [stage_of(name) for name in names] == want
