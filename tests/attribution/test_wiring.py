"""For which nets of others a method says that it would be wrong, and why."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.attribution.methods import METHODS
from resnet.nets.kinds import GATED, IDENTITY_VARIANTS
from resnet.nets.layers import Gate
from resnet.nets.model import build
from resnet.nets.spec import StageSpec
from tests.attribution.nets import SMALL, net

GUIDED = ("guided-backprop", "guided-grad-cam", "deconvolution")


class Net(nn.Sequential):
    """A convolution, what is given, a pool and a head."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), *inside, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


class Functional(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Forked(nn.Module):
    """The ReLU's input goes past it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(x)


class Branching(nn.Module):
    """Runs this or that by what it sees, so that it cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


shared = nn.ReLU()
# By name: a net, and of methods a word of the reason that they give.
WRONG: dict[str, tuple[nn.Module, dict[str, str]]] = {
    "good": (Net(nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout()), {}),
    "functional": (Net(Functional(F.relu)), {**dict.fromkeys(GUIDED, "computes relu"), "deep-lift": "computes relu"}),
    "shared": (Net(shared, nn.Conv2d(4, 4, 3), shared), {**dict.fromkeys(GUIDED, "2 times"), "deep-lift": "2 times"}),
    "forked": (Net(Forked()), {**dict.fromkeys(GUIDED, "another layer"), "deep-lift": "another layer"}),
    "GELU": (Net(nn.GELU()), {**dict.fromkeys(GUIDED, "GELU"), "deep-lift": "GELU", "lrp": "GELU"}),
    "ReLU6": (Net(nn.ReLU6()), {**dict.fromkeys(GUIDED, "ReLU6"), "deep-lift": "ReLU6", "lrp": "ReLU6"}),
    "LeakyReLU": (Net(nn.LeakyReLU()), {**dict.fromkeys(GUIDED, "LeakyReLU"), "lrp": "LeakyReLU"}),
    "functional gelu": (
        Net(Functional(F.gelu)),
        {**dict.fromkeys(GUIDED, "computes gelu"), "deep-lift": "computes gelu", "lrp": "gelu"},
    ),
    "product": (Net(Functional(lambda x: x * x)), {"deep-lift": "computes mul", "lrp": "mul"}),
    "pool": (Net(nn.ReLU(), nn.MaxPool2d(2)), {"deep-lift": "or a max-pool feeds"}),
    "overlapping pool": (Net(nn.MaxPool2d(3, 2)), {"deep-lift": "overlap"}),
    "pool of windows apart": (Net(nn.MaxPool2d(2)), {}),
    "group norm": (Net(nn.GroupNorm(2, 4), nn.ReLU()), {"deep-lift": "GroupNorm", "lrp": "GroupNorm"}),
    "untraceable": (Net(Branching()), dict.fromkeys((*GUIDED, "deep-lift", "lrp"), "cannot trace")),
    "no maps": (
        nn.Sequential(nn.Flatten(), nn.Linear(48, 10)),
        {name: "convolution" for name, method in METHODS.items() if method.needs_layer},
    ),
    "GELU of ours": (
        build(replace(SMALL, activation="gelu")),
        {**dict.fromkeys(GUIDED, "GELU"), "deep-lift": "GELU", "lrp": "GELU"},
    ),
    "group norm of ours": (build(replace(SMALL, norm="group")), {"deep-lift": "GroupNorm", "lrp": "GroupNorm"}),
    "squeeze and excitation of ours": (build(replace(SMALL, se=4)), {"deep-lift": "Scale", "lrp": "Sigmoid"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_methods_that_would_be_wrong_say_why(name: str) -> None:
    model, words = WRONG[name]
    reasons = {name: reason for name, method in METHODS.items() if (reason := method.reason(model))}
    assert reasons.keys() == words.keys()
    for method, word in words.items():
        assert word in reasons[method]
        assert reasons[method].endswith(".")


RESNETS = {"resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"}


@pytest.mark.parametrize("name", sorted(RESNETS))
def test_torchvisions_resnets_share_their_relus_and_ours_do_not(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    for method in (*GUIDED, "deep-lift"):
        assert "Use this program's own build of the net with the same weights." in METHODS[method].reason(model)
    assert METHODS["lrp"].reason(model) == ""


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("vgg11", {"deep-lift"}),
        ("densenet121", {*GUIDED, "deep-lift"}),
        ("convnext_tiny", {*GUIDED, "deep-lift", "lrp"}),
    ],
)
def test_other_nets_of_torchvision(name: str, refused: set[str]) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert {method for method in METHODS if METHODS[method].reason(model)} == refused


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "pre-activation", "norm-free"])
def test_our_blocks_are_wired_as_they_are_said_to_be(kind: str) -> None:
    """Ours are not traced; tracing them as if they were others' finds the same."""
    ours = net(kind)
    traced = nn.Sequential(*ours.children())
    for method in METHODS.values():
        assert method.reason(traced) == method.reason(ours) == ""


@pytest.mark.parametrize("kind", IDENTITY_VARIANTS)
def test_gates_on_the_shortcut_are_refused_where_there_is_no_rule(kind: str) -> None:
    model = build(replace(SMALL, stages=(StageSpec(2, 8),), shortcut=kind)).eval()
    assert any(isinstance(module, Gate) for module in model.modules()) == (kind in GATED)
    assert ("LRP has no rule for CarryGate" in METHODS["lrp"].reason(model)) == (kind in GATED)
    assert ("DeepLift has no rule for" in METHODS["deep-lift"].reason(model)) == (kind in GATED)
    assert {name for name in METHODS if METHODS[name].reason(model)} <= (
        {"lrp", "deep-lift"} if kind in GATED else set()
    )


def test_reasons_do_not_change_the_net() -> None:
    model = net("torchvision").train()
    before = str(model), model.training
    for method in METHODS.values():
        method.reason(model)
    assert (str(model), model.training) == before
