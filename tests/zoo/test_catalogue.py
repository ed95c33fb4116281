"""Every net by name: none is lost or hides another, and each has a profile."""

import dataclasses

import pytest
from torch import nn

from resnet.costs.profiler import profile
from resnet.nets.spec import PRESETS
from resnet.zoo.catalogue import nets, own_name, profile_of, timeable
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
