"""Layer-wise relevance propagation: conserved, captum's where that is right, and input x gradient at gamma 0."""

from dataclasses import replace

import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from torch import Tensor, nn

from resnet.attribution.methods import explain
from resnet.nets.model import build
from tests.attribution.nets import NETS, SMALL, net, photos


@pytest.mark.parametrize("kind", NETS)
def test_without_gamma_it_is_input_x_gradient(kind: str) -> None:
    """As in any net of ReLUs (Ancona et al., arXiv 1711.06104)."""
    found = explain("lrp", net(kind), photos(), [1, 2, 3], options={"gamma": 0})
    torch.testing.assert_close(found, explain("input-x-gradient", net(kind), photos(), [1, 2, 3]))


@pytest.mark.parametrize("kind", NETS)
def test_gamma_matters(kind: str) -> None:
    found = explain("lrp", net(kind), photos(), 1, options={"gamma": 5})
    assert (found - explain("input-x-gradient", net(kind), photos(), 1)).norm() > 0.1 * found.norm()


def without_biases(model: nn.Module) -> nn.Module:
    """Norms keep their scales: then nothing but the pixels can hold a part of the logit."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("against", [None, 4])
def test_relevance_is_conserved_in_a_net_without_biases(kind: str, against: int | None) -> None:
    model = without_biases(net(kind))
    with torch.no_grad():
        logits = model(photos().double())
    wanted = logits[:, 1] - (0 if against is None else logits[:, against])
    found = explain("lrp", model, photos(), 1, options={"gamma": 0.5}, against=against).double().sum((1, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_on_a_plain_net() -> None:
    """With the rules set by hand and no norm; before an addition, ours treats negative outputs in another way."""
    plain = build(replace(SMALL, norm="none", shortcut="none"), seed=3).double().eval()
    for module in plain.modules():
        if not any(module.children()) and not isinstance(module, nn.ReLU):
            module.rule = GammaRule(0.25) if isinstance(module, nn.Conv2d) else EpsilonRule()
    plain.get_submodule("conv1").rule = EpsilonRule()
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.Identity):  # captum would take its output for its input
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, Product())
    wanted = LRP(plain).attribute(photos().double(), target=torch.tensor([1, 2, 3])).sum(1).detach().float()
    fresh = build(replace(SMALL, norm="none", shortcut="none"), seed=3).double().eval()
    torch.testing.assert_close(explain("lrp", fresh, photos(), [1, 2, 3]), wanted, rtol=1e-3, atol=1e-6)


class Product(nn.Module):
    rule = None

    def __init__(self) -> None:
        super().__init__()
        self.rule = EpsilonRule()

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def test_a_batch_norm_is_part_of_the_convolution_before_it() -> None:
    """The same net with folded norms has the same relevance."""
    model = net("plain")
    folded = net("plain")
    for name, conv in list(folded.named_modules()):
        if isinstance(conv, nn.Conv2d):
            norm_name = name.replace("conv", "bn")
            norm = folded.get_submodule(norm_name)
            assert isinstance(norm, nn.BatchNorm2d)
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            for each, module in ((name, fused), (norm_name, nn.Identity())):
                parent, _, child = each.rpartition(".")
                setattr(folded.get_submodule(parent), child, module)
    torch.testing.assert_close(explain("lrp", model, photos(), 1), explain("lrp", folded, photos(), 1))
