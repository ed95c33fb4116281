"""Every convention against the tool that has it, to the last integer, and against what papers and tools print."""

import importlib.machinery
import io
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.costs.conventions import CONVENTIONS, MEASURES, Rule, by_stage, count, entries, explain, ledger, unknown
from resnet.costs.profiler import Profile, profile, profile_module
from resnet.costs.recorder import OPS
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, plain_twin

cost = cache(profile)

# The tools, run on one image of zeros on the CPU


def by_fvcore(net: nn.Module, shape: tuple[int, ...]) -> int:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, torch.zeros(1, *shape))
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def by_ptflops(net: nn.Module, shape: tuple[int, ...], backend: str) -> int:
    import ptflops

    with redirect_stdout(io.StringIO()):
        return ptflops.get_model_complexity_info(
            net, shape, as_strings=False, print_per_layer_stat=False, backend=backend
        )[0]


def by_thop(net: nn.Module, shape: tuple[int, ...]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distutils
        import thop

        total = thop.profile(net, (torch.zeros(1, *shape),), verbose=False)[0]
    assert total == int(total)
    return int(total)


def by_calflops(net: nn.Module, shape: tuple[int, ...], place: int) -> int:
    """Its language models' libraries are imported with it and not needed here."""
    absent = {name: mock.MagicMock() for name in ("transformers", "accelerate", "accelerate.utils")}
    absent |= {name: mock.MagicMock() for name in ("huggingface_hub", "huggingface_hub.utils")}
    for name, module in absent.items():
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
    with mock.patch.dict(sys.modules, {k: v for k, v in absent.items() if k not in sys.modules}):
        import calflops

        return calflops.calculate_flops(net, (1, *shape), print_results=False, output_as_string=False)[place]


def by_torch(net: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *shape))
    return counter.get_total_flops()


TOOLS: dict[str, Callable[[nn.Module, tuple[int, ...]], int]] = {
    "fvcore": by_fvcore,
    "ptflops-aten": lambda net, shape: by_ptflops(net, shape, "aten"),
    "ptflops-pytorch": lambda net, shape: by_ptflops(net, shape, "pytorch"),
    "thop": by_thop,
    "calflops": lambda net, shape: by_calflops(net, shape, 0),
    "calflops-macs": lambda net, shape: by_calflops(net, shape, 1),
    "flop_counter": by_torch,
}

SMALL = StageSpec(1, 16), StageSpec(1, 16, 2)
ON_64 = (
    "ResNet-18",
    "ResNet-50 v1",
    "ResNeXt-50 32x4d",
    "SE-ResNet-50",
    "ResNet-50-D",
    "Pre-ResNet-50",
    "ResNet-50 GN",
)
NETS: dict[str, NetSpec] = {
    **{name: PRESETS[name] for name in ("ResNet-20", "ResNet-50")},
    **{name: replace(PRESETS[name], image_size=64) for name in ON_64},
    "plain-20": plain_twin(PRESETS["ResNet-20"]),
    "plain-18": replace(plain_twin(PRESETS["ResNet-18"]), image_size=64),
    "clip": NetSpec(SMALL, stem="3x7x7", image_size=16, frames=4, classes=5),
    "volume": NetSpec(SMALL, stem="7x7", image_size=32, frames=32, classes=5),
    "gelu, odd, no norm": NetSpec(SMALL, norm="none", activation="gelu", shortcut="D", image_size=33, classes=5),
    "silu, skip init": NetSpec(SMALL, block="preact-basic", activation="silu", skip_init=True, image_size=32),
}
TORCHVISION = {"ResNet-18": "resnet18", "ResNet-50": "resnet50", "ResNeXt-50 32x4d": "resnext50_32x4d"}


@cache
def real_net(name: str) -> nn.Module:
    """torchvision's own net where there is one. The weights have no part in any count."""
    with torch.device("meta"):
        maker = getattr(torchvision.models, TORCHVISION.get(name, ""), None)
        net = maker(weights=None) if maker else build(NETS[name], device="meta")
    return net.to_empty(device="cpu").eval()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", NETS)
def test_the_tool_itself(name: str, tool: str) -> None:
    spec = NETS[name]
    assert count(cost(spec), tool) == TOOLS[tool](real_net(name), spec.input_shape)
    assert unknown(cost(spec), tool) == []


KINDS: dict[str, Callable[[], nn.Module]] = {
    "Conv2d": lambda: nn.Conv2d(8, 4, 3, groups=2),
    "Conv2d, no bias": lambda: nn.Conv2d(8, 4, 3, groups=2, bias=False),
    "Conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 4, 3)),
    "Conv3d": lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv3d(2, 4, 2)),
    "Linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(288, 5)),
    "Linear, no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(288, 5, bias=False)),
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "BatchNorm1d": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(8)),
    "BatchNorm3d": lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.BatchNorm3d(2)),
    "GroupNorm": lambda: nn.GroupNorm(2, 8),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "MaxPool2d": lambda: nn.MaxPool2d(3, 2, 1),
    "MaxPool3d": lambda: nn.MaxPool3d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "AvgPool3d": lambda: nn.AvgPool3d(2),
    "AdaptiveAvgPool1d": lambda: nn.Sequential(nn.Flatten(2), nn.AdaptiveAvgPool1d(1)),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(1),
    "AdaptiveAvgPool2d, larger": lambda: nn.AdaptiveAvgPool2d(7),
    "AdaptiveAvgPool3d": lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.AdaptiveAvgPool3d(1)),
    **{
        name: getattr(nn, name)
        for name in ("ReLU", "ReLU6", "GELU", "SiLU", "Sigmoid", "Hardsigmoid", "Hardswish", "Tanh")
    },
    "Dropout": nn.Dropout,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer(kind: str, tool: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), KINDS[kind]()).eval()  # thop and ptflops ask the first layer its dtype
    result = profile_module(net.to("meta"), (3, 6, 6))
    assert unknown(result, tool) == []
    assert count(result, tool) == TOOLS[tool](net.to_empty(device="cpu"), (3, 6, 6))


@pytest.mark.parametrize(("name", "ours"), [("resnet50", "ResNet-50"), ("seresnet50", "SE-ResNet-50")])
def test_timms_nets(name: str, ours: str) -> None:
    import timm

    theirs = by_fvcore(timm.create_model(name).eval(), (3, 224, 224))
    means = sum(row.reads for row in cost(PRESETS[ours]).rows if row.name.endswith("se.avgpool"))
    assert theirs == count(cost(PRESETS[ours]), "fvcore") - means  # timm's is a mean(), which fvcore does not count


# What they print

PRINTED = {  # for ResNet-50 at 224 x 224, in G
    "torchvision": "4.089",
    "fvcore": "4.11",
    "ptflops-aten": "4.09",
    "ptflops-pytorch": "4.13",
    "thop": "4.134",  # not 4.14
    "calflops": "8.21",
    "calflops-macs": "4.09",
    "flop_counter": "8.178",
}


@pytest.mark.parametrize("convention", PRINTED)
def test_resnet_50_as_printed(convention: str) -> None:
    decimals = len(PRINTED[convention].partition(".")[2])
    assert f"{count(cost(PRESETS['ResNet-50']), convention) / 1e9:.{decimals}f}" == PRINTED[convention]


@pytest.mark.parametrize(("name", "digits"), {"ResNet-18": 18, "ResNet-34": 36, "ResNet-50 v1": 38}.items())
def test_the_papers_table_cuts_off_its_second_decimal(name: str, digits: int) -> None:
    assert count(cost(PRESETS[name]), "he2015") // 10**8 == digits


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152", "resnext50_32x4d", "wide_resnet50_2"])
def test_torchvisions_own_metadata(name: str) -> None:
    preset = {p.lower().replace("-", ""): p for p in PRESETS} | {"resnext50_32x4d": "ResNeXt-50 32x4d"}
    spec = PRESETS[preset.get(name, "Wide ResNet-50-2")]
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    assert f"{count(cost(spec), 'torchvision') / 1e9:.3f}" == f"{published['_ops']:.3f}"
    assert count(cost(spec), "params") == published["num_params"]


def test_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    result = cost(PRESETS["ResNet-50"])
    assert count(result, "keras-params") == 25_636_712
    assert dict(explain(result, "params", "keras-params").set_index("op").delta) == {"bias": 26_560, "norm": 53_120}
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    with torch.device("cpu"):
        for name, theirs in [("ResNet-50", "ResNet50"), ("ResNet-101", "ResNet101")]:
            net = getattr(keras.applications, theirs)(weights=None)
            assert count(cost(PRESETS[name]), "keras-params") == net.count_params()


# The ledger


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", [name for name, spec in PRESETS.items() if spec.depth <= 101])
def test_ledger_and_stages_sum_to_the_count(name: str, convention: str) -> None:
    result = cost(PRESETS[name])
    total = count(result, convention)
    book, stages = ledger(result, convention), by_stage(result, convention)
    assert book["count"].sum() == stages["count"].sum() == total
    assert total > 0
    assert list(stages.stage) == list(result.stages().stage)
    assert book.op.is_unique
    assert book[book.op != "bias"].layers.sum() == len(result.rows)
    assert not book.unknown.any()  # no preset has a layer that a convention does not know


@pytest.mark.parametrize("b", CONVENTIONS)
@pytest.mark.parametrize("a", CONVENTIONS)
def test_the_explanation_is_the_whole_difference(a: str, b: str) -> None:
    result = cost(PRESETS["SE-ResNet-50"])
    if (CONVENTIONS[a].unit == "params") != (CONVENTIONS[b].unit == "params"):
        with pytest.raises(Refused, match="Received"):
            explain(result, a, b)
        return
    frame = explain(result, a, b)
    assert frame.delta.sum() == count(result, b) - count(result, a)
    assert (frame.b - frame.a == frame.delta).all()
    assert (frame.delta != 0).all()


def test_why_fvcore_says_more_than_torchvision() -> None:
    frame = explain(cost(PRESETS["ResNet-50"]), "torchvision", "fvcore")
    assert dict(zip(frame.op, frame.delta, strict=True)) == {"norm": 2 * 11_113_984, "pool": 2048 * 7 * 7}


# What no rule knows


class Mystery(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 1)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_unknown_layer_is_listed(convention: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Mystery(), nn.Softplus()).to("meta")
    result = profile_module(net, (3, 4, 4))
    listed = unknown(result, convention)
    params = CONVENTIONS[convention].unit == "params"
    assert [row.kind for row in listed] == ([] if params else ["Mystery", "Softplus"])
    book = ledger(result, convention).set_index("op")
    assert book["unknown"].sum() == len(listed)
    assert book["count"].isna().sum() == (0 if params else 1)
    assert book["count"].sum() == count(result, convention)


def test_functions_are_unknown_where_tools_disagree_on_them() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.conv(x))

    result = profile_module(Written().to("meta"), (3, 4, 4))
    for name in ("ptflops-pytorch", "calflops"):  # they count it, once
        assert [row.op for row in unknown(result, name)] == ["activation"]
    assert unknown(result, "fvcore") == []


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))
def test_conventions_are_complete(convention: Any) -> None:
    assert convention.unit in ("FLOPs", "MACs", "params")
    assert convention.explanation.endswith(".")
    for rule in [*convention.rules.values(), *convention.biases.values()]:
        assert isinstance(rule, Rule)
        assert rule.measure in MEASURES
        assert rule.factor or rule.why
    weighted = {rule.factor for rule in convention.rules.values() if rule.measure == "macs" and rule.factor}
    assert len(weighted) == (convention.unit != "params")  # one multiply-add counts the same in every layer


def test_a_convention_that_is_none() -> None:
    result: Profile = cost(PRESETS["ResNet-20"])
    with pytest.raises(Refused, match=r"Received 'deepspeed'\. Choose he2015"):
        count(result, "deepspeed")
    assert {entry.op for entry in entries(result, "fvcore")} <= {*OPS, "none", "bias"}
    assert count(cost(replace(PRESETS["ResNet-20"], classes=100)), "params") == 269_722 + 90 * 65
