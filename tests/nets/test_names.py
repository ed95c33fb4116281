"""Names as people write them: each gives the net that it stands for, or a question, or the nearest ones."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.costs.profiler import profile
from resnet.nets.codes import from_code, to_code
from resnet.nets.model import build
from resnet.nets.names import NAMES, UNCLEAR, key, resolve
from resnet.nets.spec import CIFAR_DEPTHS, PRESETS, NetSpec, SpecError, cifar, named_nets, plain_twin

SPELLINGS = {
    "ResNet-18": ["pytorch/vision:resnet18", "torchvision.models.resnet18", "microsoft/resnet-18"],
    "ResNet-50": [
        *("resnet50", "ResNet50", "resnet-50", "RESNET_50", "ResNet 50", "resnet50_v1.5", "ResNet-50 v1.5"),
        *("resnet50v1b", "timm/resnet50.a1_in1k", "resnet50.tv2_in1k", "hf-hub:timm/resnet50.a1_in1k"),
        *("torchvision.models.resnet50", "timm.models.resnet50", "resnet50.pth", "resnet50_imagenet"),
        *("microsoft/resnet-50", "https://huggingface.co/microsoft/resnet-50/", "ResNet50_Weights.IMAGENET1K_V2"),
        *("tv_resnet50", "gluon_resnet50_v1b", "swsl_resnet50", "resnet50_swsl", "dino_resnet50", "nvidia_resnet50"),
        *("ResNet\N{NON-BREAKING HYPHEN}50", "ResNet\N{EN DASH}50", "\N{FULLWIDTH LATIN CAPITAL LETTER R}esNet-50"),
    ],
    "ResNet-50 v1": [
        *("resnet50v1", "resnet50_v1", "ResNet-50_v1"),  # Keras strides as in the paper
        *("keras.applications.ResNet50", "tf.keras.applications.resnet50.ResNet50"),
    ],
    "ResNet-34": ["resnet34_v1", "gluon_resnet34_v1b", "ResNet-34 v1.5"],
    "ResNet-50-C": ["resnet50c", "resnet50_v1c"],
    "ResNet-50-D": ["resnet50d", "resnet50d.ra2_in1k", "resnet50_v1d"],
    "ResNet-50 GN": ["resnet50_gn"],
    "ResNet-50 OS8": ["resnet50_os8"],
    "Pre-ResNet-50": [
        *("resnetv2_50", "preact_resnet50", "PreActResNet50", "pre_resnet_50", "resnet_v2_50"),
        *("resnet50v2", "ResNet50V2"),
    ],
    "Pre-ResNet-50-D": ["resnetv2_50d", "preact_resnet50d"],
    "Pre-ResNet-164": ["preact_resnet164", "PreResNet-164", "preresnet164_cifar10"],
    "SE-ResNet-50": ["seresnet50", "se_resnet50", "SEResNet50", "timm/seresnet50.a1_in1k"],
    "Wide ResNet-50-2": ["wide_resnet50_2", "wide-resnet-50-2", "WRN-50-2", "WideResNet50-2"],
    "Wide ResNet-101-2": ["wide_resnet101_2"],
    "WRN-28-10": ["wrn_28_10", "wrn-28-10", "Wide-ResNet-28-10", "wide_resnet28_10", "wrn28_10_cifar10"],
    "ResNeXt-50 32x4d": ["resnext50_32x4d", "ResNeXt-50", "resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k",
                         "ResNeXt-50 (32\N{MULTIPLICATION SIGN}4d)"],
    "ResNeXt-101 32x8d": ["resnext101_32x8d", "ig_resnext101_32x8d", "resnext101_32x8d_wsl"],
    "ResNeXt-101 64x4d": ["resnext101_64x4d", "ResNeXt-101-64x4d"],
    "ResNet3D-18": ["r3d_18", "R3D-18", "torchvision.models.video.r3d_18"],
    "ResNet-18 CIFAR stem": ["resnet18_cifar", "cifar_resnet18", "edadaltocg/resnet18_cifar10"],
    "ResNet-20": ["resnet20", "cifar10_resnet20", "resnet20_cifar10"],
    "ResNet-56": ["resnet56", "cifar_resnet56", "resnet56_cifar", "CIFAR ResNet-56", "cifar10_resnet56",
                  "chenyaofo/pytorch-cifar-models:cifar10_resnet56", "resnet-56-cifar-10"],
    "ResNet-110": ["resnet110", "ResNet_110"],
    "ResNet-26": ["resnet26", "microsoft/resnet-26", "resnet26.bt_in1k"],
    "ResNet-14": ["resnet14"],
    "ResNet-200": ["resnet200", "ResNet200"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "name"), [(text, name) for name, texts in SPELLINGS.items() for text in texts])
def test_a_net_by_any_of_its_names(text: str, name: str) -> None:
    assert from_code(text) == PRESETS[name]
    changed = from_code(f"{text}~classes.7")
    assert (changed.classes, changed.name) == (7, name)


def own_nets() -> Iterator[NetSpec]:
    yield from PRESETS.values()
    yield from map(cifar, CIFAR_DEPTHS)


def test_a_nets_own_name_gives_it_and_its_twin() -> None:
    for net in own_nets():
        for each in (net, plain_twin(net)):
            assert "custom" not in each.name
            assert from_code(each.name) == from_code(each.name.replace(" ", "_")) == from_code(to_code(each)) == each
    assert len({key(name) for name in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize(
    ("text", "name"),
    {
        "plain-20": "ResNet-20", "plain20": "ResNet-20", "Plain_20": "ResNet-20", "plain ResNet-20": "ResNet-20",
        "plain-34": "ResNet-34", "plain-26": "ResNet-26", "plain-50_v1": "ResNet-50 v1", "plain50c": "ResNet-50-C",
        "PlainNet-20": "ResNet-20", "plain20_cifar10": "ResNet-20",
        "plain_seresnet50": "SE-ResNet-50", "plain wrn-28-10": "WRN-28-10", "plain resnetv2_50": "Pre-ResNet-50",
    }.items(),
)  # fmt: skip
def test_plain_twins(text: str, name: str) -> None:
    assert from_code(text) == plain_twin(PRESETS[name])


@pytest.mark.parametrize(
    "text", ["cifar100_resnet56", "resnet-56-cifar-100", "wrn_28_10_cifar100", "resnet18_cifar100"]
)
def test_nets_for_cifar_100_have_its_classes(text: str) -> None:
    assert from_code(text) == replace(from_code(text.replace("100", "10")), classes=100)


def test_a_question_about_a_net_for_cifar_100_keeps_its_classes() -> None:
    with pytest.raises(SpecError, match="More than one net goes by this name") as caught:
        from_code("resnet50_cifar100")
    assert {from_code(choice).classes for choice in caught.value.choices.split(" or ")} == {100}


def test_depths_that_mean_a_net_of_imagenet() -> None:
    """Bottlenecks with the usual stem; the CIFAR nets of these depths say so in their names."""
    blocks = {14: [1, 1, 1, 1], 26: [2, 2, 2, 2], 200: [3, 24, 36, 3]}
    for depth, expected in blocks.items():
        net = from_code(f"ResNet-{depth}")
        assert [stage.blocks for stage in net.stages] == expected
        assert (net.block, net.stem, net.classes, net.depth) == ("bottleneck", "7x7", 1000, depth)
    for depth in (14, 26, 50, 152, 164, 200):
        net = from_code(f"CIFAR ResNet-{depth}")
        assert (net, net.name, plain_twin(net).name) == (cifar(depth), f"CIFAR ResNet-{depth}", f"CIFAR plain-{depth}")
        assert to_code(net) == f"CIFAR_ResNet-{depth}"
        assert from_code(f"plain CIFAR ResNet-{depth}") == from_code(f"cifar-plain{depth}") == plain_twin(net)
    for depth in (8, 20, 38, 62, 1202):
        assert from_code(f"resnet{depth}") == cifar(depth)
        assert cifar(depth).name == f"ResNet-{depth}"


# timm is the oracle

EXACT = {
    *("resnet18", "resnet18d", "resnet26", "resnet26d", "resnet34d", "resnet50c", "resnet50d", "resnet50s"),
    *("resnet50_gn", "resnet101d", "resnet200", "resnet200d", "resnetv2_18", "resnetv2_34d", "resnetv2_50"),
    *("resnetv2_50d", "resnetv2_101", "seresnet50", "seresnet152d", "resnext50d_32x4d", "resnext101_32x4d"),
    *("resnext101_32x16d", "seresnext50_32x4d", "seresnext101_32x8d", "wide_resnet50_2"),
}  # fmt: skip


def taken(names: list[str]) -> Iterator[tuple[str, NetSpec]]:
    for name in names:
        with suppress(SpecError):
            yield name, from_code(name)


def layers(net: nn.Module) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shape of the weights, without ones (timm's head is a 1x1 convolution), and stride of each; ResNet-D's pools."""
    found = []
    for module in net.modules():
        stride = module.stride if isinstance(module, nn.Conv2d | nn.Conv3d) else (1,)
        found += [(tuple(d for d in p.shape if d > 1), tuple({*stride})) for p in module.parameters(recurse=False)]
        if isinstance(module, nn.AvgPool2d):
            found.append(((), (2,)))
    return sorted(found)


def test_timms_names_give_timms_nets() -> None:
    """Each name of timm's that we take, whichever it is."""
    found = dict(taken(timm.list_models()))
    assert found.keys() >= EXACT
    for name, spec in found.items():
        with torch.device("meta"):
            theirs = timm.create_model(name)
        assert layers(build(spec, device="meta")) == layers(theirs), name


def test_torchvisions_names_give_torchvisions_nets() -> None:
    found = dict(taken(torchvision.models.list_models()))
    assert len(found) == 11
    for name, spec in found.items():
        with torch.device("meta"):
            theirs = torchvision.models.get_model(name, weights=None)
        assert layers(build(spec, device="meta")) == layers(theirs), name


@pytest.mark.parametrize(
    ("name", "theirs", "values"),
    [
        ("ResNet-14", "resnet50", {"layers": (1, 1, 1, 1)}),  # resnet14t has another stem
        ("ResNet-26", "resnet26", {}),
        ("ResNet-200", "resnet200", {}),
        ("Pre-ResNet-50-D", "resnetv2_50d", {}),
    ],
)
def test_presets_after_timms_nets_cost_the_same(name: str, theirs: str, values: dict[str, Any]) -> None:
    with torch.device("meta"):
        net = timm.create_model(theirs, **values).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.empty(1, 3, 224, 224))
    ours = profile(PRESETS[name])
    assert (ours.params, ours.flops) == (sum(p.numel() for p in net.parameters()), counter.get_total_flops())


DEPRECATED = [
    "tv_resnet34",
    "tv_resnext50_32x4d",
    "ssl_resnext101_32x16d",
    "swsl_resnet18",
    "gluon_resnet18_v1b",
    "gluon_resnet101_v1c",
    "gluon_resnet152_v1d",
    "gluon_resnet50_v1s",
    "gluon_seresnext101_64x4d",
]


@pytest.mark.filterwarnings("ignore:Mapping deprecated model name")
@pytest.mark.parametrize("name", DEPRECATED)
def test_timms_older_names_give_timms_nets(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    assert layers(build(from_code(name), device="meta")) == layers(theirs)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("ResNet50", 25_557_032, 3_857_973_248),
        ("ResNet101", 44_549_160, 7_570_194_432),
        ("ResNet50V2", 25_549_352, 3_482_255_360),
        ("ResNet152V2", 60_185_128, 10_906_697_728),
    ],
)
def test_names_of_keras_applications_give_their_nets(name: str, params: int, macs: int) -> None:
    """Measured on Keras 3.15's nets: trainable parameters without the biases of convolutions, and multiply-adds."""
    found = profile(from_code(f"keras.applications.{name}"))
    assert (found.params, found.macs) == (params, macs)


@pytest.mark.parametrize(
    ("name", "millions"),
    {
        "wrn-40-1": 0.6, "WRN_40_2": 2.2, "wrn-40-4": 8.9, "WRN-40-8": 35.7, "wide_resnet28_12": 52.5,
        "WideResNet-22-8": 17.2, "wrn22_10": 26.8, "wrn-16-8": 11.0, "wrn_16_10": 17.1,
    }.items(),
)  # fmt: skip
def test_wide_nets_have_the_published_parameters(name: str, millions: float) -> None:
    """Table 4 of arXiv 1605.07146."""
    assert round(profile(from_code(name)).params / 1e6, 1) == millions


def test_the_deepest_net_of_he_2016() -> None:
    net = from_code("ResNet-1001")
    assert (net.depth, net.block, net.classes) == (1001, "preact-bottleneck", 10)
    assert net == from_code("preact_resnet1001")


# What is not a name


@pytest.mark.parametrize("unclear", UNCLEAR)
def test_a_name_of_two_nets_asks_which(unclear: str) -> None:
    with pytest.raises(SpecError, match="More than one net goes by this name") as caught:
        from_code(f"{unclear}~classes.10")
    nets = [from_code(choice) for choice in caught.value.choices.split(" or ")]
    assert len(set(nets)) == 2
    assert unclear not in NAMES
    assert unclear not in map(key, named_nets(nets[0].depth)), "our own names are clear"


def test_each_known_name_can_be_met() -> None:
    for each in [*NAMES, *UNCLEAR]:
        assert key(each) == each


@pytest.mark.parametrize(
    ("text", "near"),
    {
        "resnet51": "ResNet-50", "resnet50t": "ResNet-50", "seresnet18": "ResNet-18",
        "wideresnet50": "Wide ResNet-50-2", "resnext": "ResNeXt-50 32x4d", "ResNet-18-2": "ResNet-18",
        "resnetv2_50x1_bit": "Pre-ResNet-50", "resnet164plain": "Pre-ResNet-164",
        "resnetv2_50d_gn": "Pre-ResNet-50-D", "resnet_50_os_9": "ResNet-50 OS8",
    }.items(),
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest_three(text: str, near: str) -> None:
    with pytest.raises(SpecError, match="No ResNet has this name") as caught:
        from_code(text)
    three = caught.value.choices.partition("the nearest are ")[2].split(", ")
    assert len(set(three)) == 3
    assert near in three
    assert set(three) <= PRESETS.keys()


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\ud800" * 1000, "resnet/" * 1000, "resnet." * 1000, "ResNet-20~" + "y" * 1000]
)
def test_a_strangers_text_is_cut_off(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_code(text)
    assert len(str(caught.value)) < 500


def test_other_names_than_our_own() -> None:
    names = NAMES | {"vgg16": "VGG-16"}
    assert resolve("timm/vgg16.tv_in1k", names, "net") == "VGG-16"
    with pytest.raises(SpecError, match=r"^No net has this name\..* VGG-16"):
        resolve("vgg17", names, "net")
