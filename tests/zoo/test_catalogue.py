"""Every net by name: none is lost or hides another, and each has a profile."""

import dataclasses

import pytest
from torch import nn

from resnet.costs.profiler import profile
from resnet.nets.codes import from_code
from resnet.nets.spec import PRESETS, SpecError, plain_twin
from resnet.zoo.catalogue import find, nets, own_name, profile_of, timeable
from resnet.zoo.relatives import RELATIVES, profile_relative
from resnet.zoo.systems import SYSTEMS, profile_system

OWN = dataclasses.replace(PRESETS["ResNet-50"], image_size=160)


def test_every_net_is_listed_once_and_ones_own_first() -> None:
    listed = nets(OWN)
    assert next(iter(listed)) == own_name(OWN) == "My net: ResNet-50"
    assert listed["My net: ResNet-50"] == OWN
    assert listed["ResNet-50"] == PRESETS["ResNet-50"]
    assert len(listed) == 1 + len(PRESETS) + len(RELATIVES) + len(SYSTEMS)
    assert len(nets(PRESETS["ResNet-50"])) == len(listed) - 1, "a preset of one's own is listed once"
    assert next(iter(nets(PRESETS["ResNet-50"]))) == "ResNet-50"


@pytest.mark.parametrize("name", ["My net: ResNet-50", "ResNet-20", "VGG-11", "R3D-18"])
def test_each_kind_of_net_has_its_profile(name: str) -> None:
    expected = {
        "My net: ResNet-50": lambda: profile(OWN),
        "ResNet-20": lambda: profile(PRESETS["ResNet-20"]),
        "VGG-11": lambda: profile_relative("VGG-11"),
        "R3D-18": lambda: profile_system("R3D-18"),
    }
    assert profile_of(name, nets(OWN)[name]) == expected[name]()


def test_a_system_cannot_be_timed_alone() -> None:
    assert timeable("ResNet-20", PRESETS["ResNet-20"]) == PRESETS["ResNet-20"]
    net = timeable("DenseNet-121", None)
    assert isinstance(net, nn.Module)
    assert sum(weight.numel() for weight in net.parameters()) == profile_relative("DenseNet-121").params
    assert timeable("R3D-18", None) is None


OTHERS = RELATIVES | SYSTEMS
SPELLINGS = {
    "DenseNet-121": ["densenet121", "DenseNet121", "densenet-121", "torchvision.models.densenet121"],
    "VGG-16 BN": ["vgg16_bn", "timm/vgg16_bn.tv_in1k"],
    "VGG-16": ["vgg16", "VGG16", "keras.applications.VGG16"],
    "EfficientNet-B0": ["efficientnet_b0", "EfficientNetB0", "google/efficientnet-b0"],
    "RegNet-Y 400MF": ["regnet_y_400mf"],
    "RegNet-X 1.6GF": ["regnet_x_1_6gf", "regnet-x-1.6gf"],
    "ConvNeXt-T": ["convnext_tiny", "ConvNeXtTiny"],
    "Faster R-CNN ResNet-50 FPN": ["fasterrcnn_resnet50_fpn", "torchvision.models.detection.fasterrcnn_resnet50_fpn"],
    "DeepLabV3 ResNet-50": ["deeplabv3_resnet50"],
    "DeepLabV3+ ResNet-50 OS8": ["deeplabv3plus_resnet50_os8"],
    "R3D-18": ["r3d_18"],
    "R(2+1)D-18": ["r2plus1d_18"],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_nets_of_others_by_any_of_their_names(name: str) -> None:
    assert {find(text) for text in SPELLINGS[name]} == {(name, None)}


def test_no_net_of_others_hides_another() -> None:
    for name, entry in OTHERS.items():
        assert find(name) == find(entry.builder or name) == (name, None)
        if name != "R3D-18":  # which our ResNet3D-18 is too
            with pytest.raises(SpecError, match="No ResNet has this name"):
                from_code(name)
    for name, spec in PRESETS.items():
        assert find(name) == find(name.replace(" ", "_")) == (name, spec)


def test_our_nets_are_found_by_names_and_codes() -> None:
    assert find("resnet50") == ("ResNet-50", PRESETS["ResNet-50"])
    assert find("plain20") == ("plain-20", plain_twin(PRESETS["ResNet-20"]))
    assert find("ResNet-50~image_size.160") == ("ResNet-50", OWN)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("densenet122", "DenseNet-121"),
        ("vgg17", "VGG-16"),
        ("resnet51", "ResNet-50"),
        ("deeplab_v3", "DeepLabV3 ResNet-50"),
    ],
)
def test_an_unknown_name_gets_the_nearest_of_all_nets(text: str, near: str) -> None:
    with pytest.raises(SpecError, match="No net has this name") as caught:
        find(text)
    three = caught.value.choices.partition("the nearest are ")[2].split(", ")
    assert near in three
    assert set(three) <= nets(OWN).keys()


@pytest.mark.parametrize("text", ["vgg16~classes.10", "plain-vgg16"])
def test_nets_of_others_are_taken_as_they_are(text: str) -> None:
    with pytest.raises(SpecError, match="No ResNet has this name"):
        find(text)
