"""Sums of maps against the logits that they should explain."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from resnet.attribution.methods import METHODS
from resnet.trust.checks import judge
from resnet.trust.contract import Case
from tests.support.unchanged import images, worn

METHOD = "integrated-gradients"


def net() -> nn.Module:
    """With a head whose biases are not 0."""
    model = worn()
    nn.init.normal_(model.get_parameter("fc.bias"), generator=torch.Generator().manual_seed(2))
    return model.eval()


@pytest.mark.parametrize("against", [None, 3])
def test_grad_cam_at_the_last_block_adds_up_to_the_logit_without_its_bias(against: int | None) -> None:
    case = Case(images(), torch.tensor([0, 1, 2, 4]), "grad-cam", "layer2.1", against=against)
    last, inner = (judge("completeness", net(), replace(case, layer=layer)) for layer in ("layer2.1", "layer1.0"))
    assert max(last.each) < 1e-4
    assert last.verdict == "good"
    assert inner.value > 0.05
    assert inner.verdict == "unclear"
    assert "promises this sum only where" in inner.sentence


@pytest.mark.parametrize("against", [None, 3])
def test_the_error_is_relative_to_the_change_from_the_blank_picture(
    against: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, METHOD, METHODS["saliency"])  # its maps are given
    model, x, target = net(), images(), torch.tensor([0, 1, 2, 4])
    with torch.no_grad():
        logits = model(x) - model(0 * x)
    change = logits.gather(1, target[:, None])[:, 0] - (0 if against is None else logits[:, against])
    errors = torch.tensor([0.01, -0.02, 0.03, -5])
    maps = (change * (1 + errors)).view(4, 1, 1).expand(4, 16, 16) / 256
    finding = judge("completeness", model, Case(x, target, METHOD, against=against, maps=maps))
    assert finding.each == pytest.approx([0.01, 0.02, 0.03, 5], rel=1e-3)
    assert finding.value == pytest.approx(0.02, rel=1e-3)  # the lower of the two in the middle
    assert finding.verdict == "good"
    assert finding.random is not None
    assert finding.random.mean > 0.1
