"""Published accuracies: the nets they belong to, and their source."""

import dataclasses

import pytest
from torchvision.models import get_model_weights

from resnet.nets.spec import PRESETS, NetSpec
from resnet.zoo.hub import TORCHVISION
from resnet.zoo.published import HE_2015, PUBLISHED, condition, published_of
from resnet.zoo.relatives import RELATIVES
from resnet.zoo.systems import SYSTEMS


def test_published_figures_belong_to_known_nets() -> None:
    assert {row.net for row in PUBLISHED} <= {*PRESETS, *RELATIVES, *SYSTEMS}
    assert {*TORCHVISION, *RELATIVES} <= {row.net for row in PUBLISHED}
    assert {name for name, system in SYSTEMS.items() if system.builder} <= {row.net for row in PUBLISHED}
    assert len({(row.net, row.source, row.metric) for row in PUBLISHED}) == len(PUBLISHED)
    assert all(0 < row.value < 100 and 32 <= row.resolution <= 800 and row.source and row.recipe for row in PUBLISHED)


@pytest.mark.parametrize(
    ("net", "source", "metric", "value", "resolution"),
    [
        ("ResNet-50", "torchvision ResNet50_Weights.IMAGENET1K_V1", "top-1 accuracy (%)", 76.13, 224),
        ("ResNet-50", "torchvision ResNet50_Weights.IMAGENET1K_V2", "top-1 accuracy (%)", 80.858, 224),
        (
            "RegNet-Y 16GF",
            "torchvision RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1",
            "top-5 accuracy (%)",
            98.054,
            384,
        ),
        ("R3D-18", "torchvision R3D_18_Weights.KINETICS400_V1", "top-1 accuracy (%)", 63.2, 112),
        ("Faster R-CNN ResNet-50 FPN", "torchvision FasterRCNN_ResNet50_FPN_Weights.COCO_V1", "box AP", 37.0, 800),
        ("ResNet-110", "arXiv 1512.03385, Table 6", "test error (%)", 6.43, 32),
    ],
)
def test_published_values(net: str, source: str, metric: str, value: float, resolution: int) -> None:
    found = [row for row in PUBLISHED if (row.net, row.source, row.metric) == (net, source, metric)]
    assert [(row.value, row.resolution) for row in found] == [(value, resolution)]


def test_every_trained_net_of_torchvision_has_its_figures() -> None:
    for builder in TORCHVISION.values():
        for weight in get_model_weights(builder):
            source = f"torchvision {type(weight).__name__}.{weight.name}"
            assert {row.value for row in PUBLISHED if row.source == source} == {
                value for metrics in weight.meta["_metrics"].values() for value in metrics.values()
            }


def test_he_2015_falls_with_depth_up_to_110() -> None:
    errors = [HE_2015[depth] for depth in (20, 32, 44, 56, 110)]
    assert errors == sorted(errors, reverse=True)
    assert HE_2015[1202] > HE_2015[110]
    assert all(f"ResNet-{depth}" in PRESETS for depth in HE_2015)


@pytest.mark.parametrize(
    ("net", "spec", "side", "told"),
    [
        ("ResNet-50", PRESETS["ResNet-50"], 224, ""),
        ("ResNet-50", dataclasses.replace(PRESETS["ResNet-50"], image_size=160), 160, "measured at 224 px"),
        ("ResNet-50", dataclasses.replace(PRESETS["ResNet-50"], classes=10), 224, "measured with the preset ResNet-50"),
        ("RegNet-Y 16GF", None, 384, ""),
        ("RegNet-Y 16GF", None, 224, "measured at 384 px"),
    ],
)
def test_an_accuracy_belongs_to_the_net_and_size_it_was_measured_with(
    net: str, spec: NetSpec | None, side: int, told: str
) -> None:
    figures = [row for row in PUBLISHED if row.net == net and row.resolution in (224, 384)]
    notes = {condition(row, spec, (3, side, side)) for row in figures if net == "ResNet-50" or row.resolution == 384}
    assert notes
    assert all(note.startswith(told) and bool(note) == bool(told) for note in notes)


def test_the_figures_of_chosen_nets_carry_their_condition() -> None:
    small = dataclasses.replace(PRESETS["ResNet-50"], image_size=160)
    nets = {"My net": small, "ResNet-50": PRESETS["ResNet-50"], "VGG-11": None, "no such net": None}
    shapes = {"My net": small.input_shape} | dict.fromkeys(["ResNet-50", "VGG-11", "no such net"], (3, 224, 224))
    table = published_of(nets, shapes)
    assert set(table.net) == {"My net", "ResNet-50", "VGG-11"}
    assert table.groupby("net").size()["My net"] == table.groupby("net").size()["ResNet-50"]
    assert set(table[table.net == "My net"].note) == {"measured at 224 px"}
    assert set(table[table.net != "My net"].note) == {""}
    assert "ImageNet-1K: top-1 accuracy (%)" in set(table.what)
