"""The calls that we say build the same net elsewhere, made: equal parameters, and equal logits from equal weights."""

import math
import re
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnet.costs.profiler import profile
from resnet.exports.forms import EXPORTERS, export
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, with_output_stride
from tests.support.export_worker import images, loaded

R18, R34, R50, R101 = (PRESETS[f"ResNet-{depth}"] for depth in (18, 34, 50, 101))


def with_blocks(spec: NetSpec, *blocks: int) -> NetSpec:
    return replace(spec, stages=tuple(replace(s, blocks=b) for s, b in zip(spec.stages, blocks, strict=True)))


def deep(spec: NetSpec, **values: Any) -> NetSpec:
    return replace(spec, stem="deep", shortcut="D", **values)


# timm's and torchvision's own names, and our spec of each.
NAMED: dict[str, NetSpec] = {
    "timm resnet18": R18,
    "timm resnet18d": deep(R18),
    "timm resnet34": R34,
    "timm resnet26": PRESETS["ResNet-26"],
    "timm resnet26d": deep(PRESETS["ResNet-26"]),
    "timm resnet50": R50,
    "timm resnet50c": PRESETS["ResNet-50-C"],
    "timm resnet50d": PRESETS["ResNet-50-D"],
    "timm resnet50_gn": PRESETS["ResNet-50 GN"],
    "timm resnet101": R101,
    "timm resnext50_32x4d": PRESETS["ResNeXt-50 32x4d"],
    "timm resnext50d_32x4d": deep(PRESETS["ResNeXt-50 32x4d"]),
    "timm resnext101_32x8d": PRESETS["ResNeXt-101 32x8d"],
    "timm wide_resnet50_2": PRESETS["Wide ResNet-50-2"],
    "timm seresnet50": PRESETS["SE-ResNet-50"],
    "timm seresnext50_32x4d": replace(PRESETS["ResNeXt-50 32x4d"], se=16),
    "timm resnetv2_18": replace(R18, block="preact-basic"),
    "timm resnetv2_34d": deep(R34, block="preact-basic"),
    "timm resnetv2_50": PRESETS["Pre-ResNet-50"],
    "timm resnetv2_50d": PRESETS["Pre-ResNet-50-D"],
    "torchvision resnet18": R18,
    "torchvision resnet34": R34,
    "torchvision resnet50": R50,
    "torchvision resnet101": R101,
    "torchvision resnext50_32x4d": PRESETS["ResNeXt-50 32x4d"],
    "torchvision resnext101_32x8d": PRESETS["ResNeXt-101 32x8d"],
    "torchvision wide_resnet50_2": PRESETS["Wide ResNet-50-2"],
    "torchvision r3d_18": PRESETS["ResNet3D-18"],
}

THIN = with_blocks(R50, 1, 1, 1, 1)
SHRINKING = tuple(StageSpec(1, width, stride) for width, stride in ((24, 1), (40, 2), (40, 2), (8, 2)))
PRE_18, CLIPS = replace(R18, block="preact-basic"), PRESETS["ResNet3D-18"]

# Nets without a name, and what their call has to say.
UNNAMED: dict[str, tuple[NetSpec, str]] = {
    "timm output stride": (with_output_stride(R50, 8), "output_stride=8"),
    "timm output stride, basic": (with_output_stride(R18, 16), "output_stride=16"),
    "timm pre-activation dilated": (with_output_stride(PRESETS["Pre-ResNet-50"], 8), "output_stride=8"),
    "timm in and out": (replace(R18, in_channels=1, classes=7), "in_chans=1, num_classes=7"),
    "timm layers": (with_blocks(R50, 1, 2, 1, 1), "layers=(1, 2, 1, 1)"),
    "timm squeeze by 8": (replace(R18, se=8), "rd_ratio=1 / 8"),
    "timm squeeze, basic": (replace(R18, se=16), "rd_divisor=1"),
    "timm gelu": (replace(R18, activation="gelu", stochastic_depth=0.2), 'act_layer="gelu", drop_path_rate=0.2'),
    "timm groups": (replace(THIN, cardinality=4, base_width=24), "cardinality=4"),
    "timm widths": (replace(R18, stages=SHRINKING), "channels="),
    "timm deep, B": (replace(R18, stem="deep"), 'stem_width=32, stem_type="deep"'),
    "timm pre-activation silu": (replace(PRE_18, activation="silu", zero_init=True), "zero_init_last=True"),
    "timm pre-activation group norm": (replace(THIN, block="preact-bottleneck", norm="group"), "norm_layer"),
    "torchvision output stride": (with_output_stride(R50, 8), "replace_stride_with_dilation=[False, True, True]"),
    "torchvision classes": (replace(with_output_stride(R50, 16), classes=9), "num_classes=9, replace_stride"),
    "torchvision layers": (with_blocks(R50, 1, 2, 1, 1), "ResNet(Bottleneck, [1, 2, 1, 1])"),
    "torchvision groups": (replace(THIN, cardinality=4, base_width=24), "groups=4, width_per_group=24"),
    "torchvision zeros": (replace(with_blocks(R18, 1, 1, 2, 1), zero_init=True), "2, 1], zero_init_residual=True"),
    "torchvision video layers": (with_blocks(CLIPS, 1, 1, 2, 1), "VideoResNet(BasicBlock,"),
    "torchvision video bottlenecks": (
        replace(with_blocks(CLIPS, 1, 1, 1, 1), block="bottleneck", classes=5),
        "VideoResNet(Bottleneck,",
    ),
}
LARGE = (" resnet101", "torchvision resnext101", "torchvision wide")  # that only repeat what others show
CALLS = {name: (spec, name.split()[1]) for name, spec in NAMED.items() if not any(w in name for w in LARGE)} | UNNAMED


def run(kind: str, spec: NetSpec, folder: Path) -> nn.Module:
    path = folder / "call.py"
    path.write_bytes(export(kind, spec))
    return runpy.run_path(str(path))["model"]


def their_key(kind: str, spec: NetSpec, key: str) -> str:
    """Their name of one of our parameters."""
    if kind == "torchvision" and spec.frames:
        return _video_key(spec, key)
    if kind == "torchvision":
        return key
    if "preact" in spec.block:
        key = re.sub(r"layer(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.", key)
        key = re.sub(r"(blocks\.\d+\.)bn", r"\1norm", key)
        key = re.sub(r"downsample\.\d", "downsample.conv", key).replace("bn_last", "norm").replace("fc.", "head.fc.")
        if spec.stem == "deep":
            return re.sub(r"^bn(\d)", r"stem.norm\1", re.sub(r"^conv(\d)", r"stem.conv\1", key))
        return re.sub(r"^conv1", "stem.conv", key)
    if spec.stem == "deep":
        places = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4"}
        places |= {"conv3": "conv1.6", "bn3": "bn1"}
        return re.sub(r"^(conv\d|bn\d)", lambda m: places[m[1]], key)
    return key


def _video_key(spec: NetSpec, key: str) -> str:
    key = re.sub(r"^conv1", "stem.0", re.sub(r"^bn1", "stem.1", key))
    wrapped = ("1", "2") if spec.block == "basic" else ("1", "2", "3")
    for i in wrapped:
        key = re.sub(rf"(\.\d+)\.conv{i}\.", rf"\1.conv{i}.0.", key)
        key = re.sub(rf"(\.\d+)\.bn{i}\.", rf"\1.conv{i}.1.", key)
    return key


def theirs_with_our_weights(kind: str, spec: NetSpec, ours: nn.Module, folder: Path) -> nn.Module:
    theirs = run(kind, spec, folder)
    weights: Mapping[str, Tensor] = ours.state_dict()
    if kind == "torchvision" and not spec.frames:
        assert set(theirs.state_dict()) == set(weights)  # so that checkpoints load
    renamed = {their_key(kind, spec, key): value for key, value in weights.items()}
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    theirs.load_state_dict({k: v.reshape(shapes[k]) if "head" in k else v for k, v in renamed.items()}, strict=True)
    return theirs


def check_call(kind: str, spec: NetSpec, folder: Path) -> None:
    ours = loaded(build(spec, device="meta")).eval()
    theirs = theirs_with_our_weights(kind, spec, ours, folder).eval()
    assert sum(p.numel() for p in theirs.parameters()) == profile(spec).params
    x = images([2, spec.in_channels, *([4, 32, 32] if spec.frames else [64, 64])])
    with torch.no_grad():
        logits, others = ours(x), theirs(x)
    assert logits.std() > 1e-3
    assert (logits - others).abs().max() <= 1e-5 * max(1.0, logits.abs().max().item())


@pytest.mark.parametrize("name", CALLS)
def test_the_call_builds_our_net(name: str, tmp_path: Path) -> None:
    kind, (spec, expected) = name.split()[0], CALLS[name]
    assert EXPORTERS[kind].reason(spec) == ""
    assert expected in export(kind, spec).decode()
    check_call(kind, spec, tmp_path)


def test_named_nets_need_no_argument_but_how_they_start() -> None:
    for name, spec in NAMED.items():
        kind, builder = name.split()
        call = export(kind, spec).decode().splitlines()[-1]
        rest = "" if kind == "torchvision" else f'"{builder}"' + ("" if "v2" in builder else ", zero_init_last=False")
        assert call == f"model = {'timm.create_model' if kind == 'timm' else builder}({rest})"


@pytest.mark.parametrize("name", ["timm resnet18", "timm resnetv2_18", "torchvision resnet18"])
def test_zero_init_is_passed_on(name: str, tmp_path: Path) -> None:
    kind = name.split()[0]
    for zero in (False, True):
        spec = replace(NAMED[name], zero_init=zero)
        theirs = run(kind, spec, tmp_path)
        zeros = sum(p.count_nonzero() == 0 for n, p in theirs.named_parameters() if n.endswith("weight"))
        assert zeros == (8 if zero else 0)


def wide(spec: NetSpec, *widths: int) -> NetSpec:
    return replace(spec, stages=tuple(replace(s, width=w) for s, w in zip(spec.stages, widths, strict=True)))


PRE_50 = PRESETS["Pre-ResNet-50"]
STRIDE_3 = (*R18.stages[:3], StageSpec(2, 512, 3))
REFUSED: dict[str, tuple[NetSpec, str]] = {
    "timm clips": (CLIPS, "for images"),
    "timm three stages": (replace(R18, stages=R18.stages[:3]), "four stages"),
    "timm v1": (replace(R50, stride_on="1x1"), "stride on the 3x3"),
    "timm no norm": (replace(R18, norm="none"), "without norms"),
    "timm SkipInit": (replace(R18, skip_init=True), "SkipInit"),
    "timm stem": (replace(R18, stem="3x3"), "3x3 stem"),
    "timm stem width": (replace(R18, stem_width=32), "64 channels"),
    "timm C": (replace(R18, shortcut="C"), "shortcut B or D"),
    "timm one plain stage": (replace(R18, stages=(*R18.stages[:3], StageSpec(2, 512, 2, 1, "none"))), "every stage"),
    "timm stride": (replace(R18, stages=STRIDE_3), "1, 2, 2, 2"),
    "timm output stride 4": (with_output_stride(R50, 4), "1, 2, 2, 2"),
    "timm dilated D": (with_output_stride(deep(R50), 8), "shortcut D is different"),
    "timm group norm of 40": (replace(wide(R18, 64, 64, 64, 80), norm="group"), "32 groups"),
    "timm deep group norm": (deep(R50, norm="group"), "32 groups"),
    "timm SE and gelu": (replace(R18, se=16, activation="gelu"), "has ReLU"),
    "timm SE by 24": (replace(R18, se=24), "squeezed channels"),
    "timm pre-activation SE": (replace(PRE_50, se=16), "no squeeze"),
    "timm pre-activation groups": (replace(PRE_50, cardinality=2), "no groups"),
    "timm pre-activation widths": (wide(PRE_50, 20, 40, 80, 160), "multiples of 8"),
    "timm pre-activation identity": (wide(PRE_50, 16, 64, 128, 256), "a projection"),
    "torchvision three stages": (replace(R18, stages=R18.stages[:3]), "four stages"),
    "torchvision v1": (replace(R50, stride_on="1x1"), "stride on the 3x3"),
    "torchvision pre-activation": (PRE_50, "pre-activation"),
    "torchvision activation": (replace(R18, activation="silu"), "ReLU"),
    "torchvision SE": (replace(R18, se=16), "squeeze"),
    "torchvision drop": (replace(R18, stochastic_depth=0.1), "stochastic depth"),
    "torchvision grey": (replace(R18, in_channels=1), "3 channels"),
    "torchvision D": (replace(R18, shortcut="D"), "shortcut B"),
    "torchvision widths": (wide(R18, 64, 64, 128, 256), "64, 128, 256"),
    "torchvision stride": (replace(R18, stages=STRIDE_3), "1, 2, 2, 2"),
    "torchvision stem": (replace(R50, stem="deep"), "deep stem"),
    "torchvision image stem on clips": (replace(CLIPS, stem="7x7"), "7x7 stem"),
    "torchvision group norm": (PRESETS["ResNet-50 GN"], "batch norm"),
    "torchvision basic dilated": (with_output_stride(R18, 8), "basic block"),
    "torchvision grouped clips": (replace(CLIPS, block="bottleneck", base_width=128), "video"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_they_cannot_build_is_refused(name: str) -> None:
    spec, reason = REFUSED[name]
    assert reason in EXPORTERS[name.split()[0]].reason(spec)


# Any net that is near to theirs: either there is a reason against the call, or it builds our net.


@st.composite
def near(draw: st.DrawFn) -> NetSpec:
    """Four stages of one block, and up to two changes."""
    block = draw(st.sampled_from(["basic", "bottleneck", "preact-basic", "preact-bottleneck"]))
    widths = draw(st.sampled_from([(64, 128, 256, 512), (64, 64, 64, 64), (8, 16, 24, 24), (16, 16, 20, 32)]))
    strides = draw(
        st.sampled_from([(1, 2, 2, 2), (1, 2, 2, 2), (1, 2, 2, 1), (1, 2, 1, 1), (1, 1, 2, 2), (1, 2, 2, 3)])
    )
    kept = draw(st.integers(0, 3)) == 0
    dilations = [1] * 4 if kept else [math.prod(2 for s in strides[1:i] if s == 1) for i in range(1, 5)]
    stages = tuple(StageSpec(1, w, s, d) for w, s, d in zip(widths, strides, dilations, strict=True))
    changes: dict[str, list[Any]] = {
        "shortcut": ["B", "D", "C"], "stem": ["7x7", "deep", "3x3"], "se": [0, 8, 16, 24], "norm": ["batch", "group"],
        "activation": ["relu", "silu"], "in_channels": [3, 1], "zero_init": [False, True], "stem_width": [64, 32],
    }  # fmt: skip
    changed = draw(st.lists(st.sampled_from(sorted(changes)), max_size=2, unique=True))
    values = {name: draw(st.sampled_from(changes[name][1:])) for name in changed}
    if "bottleneck" in block:
        values |= draw(st.sampled_from([{}, {"cardinality": 2, "base_width": 24}, {"stride_on": "1x1"}]))
    return NetSpec(stages, block, classes=6, **values)


@settings(max_examples=40, deadline=None, database=None)
@given(spec=near())
def test_no_call_is_offered_that_builds_another_net(tmp_path_factory: pytest.TempPathFactory, spec: NetSpec) -> None:
    for kind in ("timm", "torchvision"):
        if not EXPORTERS[kind].reason(spec):
            check_call(kind, spec, tmp_path_factory.mktemp("call"))
