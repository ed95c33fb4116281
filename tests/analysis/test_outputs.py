"""Modules by stage, and what they give out."""

import pytest
import torch
from torch import nn

from resnet.analysis.outputs import block_modules, stage_modules, tap
from resnet.nets.borrow import borrowed
from resnet.nets.model import build
from resnet.nets.spec import PRESETS
from tests.support.unchanged import SMALL, images


def test_stages_and_blocks_by_name() -> None:
    assert stage_modules(build(SMALL)) == {"stem": "act", "stage1": "layer1", "stage2": "layer2"}
    assert block_modules(build(SMALL)) == ["act", "layer1.0", "layer1.1", "layer2.0", "layer2.1"]
    assert stage_modules(build(PRESETS["ResNet-18"], device="meta"))["stem"] == "maxpool"
    assert block_modules(nn.Sequential(nn.Flatten(), nn.Linear(2, 2))) == ["0", "1"]


@torch.no_grad()
def test_outputs_are_those_of_the_net() -> None:
    model = build(SMALL)
    stages = stage_modules(model)
    with borrowed(model):
        held = tap(model, list(stages.values()), lambda x: 2 * x)
        model(images())
    features = model.eval().features(images())
    assert list(held) == list(stages.values())
    for stage, name in stages.items():
        torch.testing.assert_close(held[name], 2 * features[stage])


def test_an_unknown_name_is_refused() -> None:
    model = build(SMALL)
    with borrowed(model), pytest.raises(ValueError, match=r"Received 'layer9'\. Choose conv1, "):
        tap(model, ["layer9"])
