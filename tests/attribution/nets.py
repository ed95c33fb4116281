"""Tiny nets that the tests explain: of each kind of block, of torchvision's build, and ours with its weights."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from resnet.attribution.methods import METHODS, explain
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, plain_twin

STAGES = StageSpec(1, 8), StageSpec(1, 12, 2), StageSpec(1, 16, 2)
SMALL = NetSpec(STAGES, "basic", "A", stem="3x3", stem_width=8, classes=10, image_size=32)
IMAGENET = NetSpec((StageSpec(1, 64), StageSpec(1, 128, 2)), "basic", "B", stem="7x7", classes=10, image_size=32)
SPECS = {
    "basic": SMALL,
    "bottleneck": replace(SMALL, block="bottleneck", shortcut="B"),
    "pre-activation": replace(SMALL, block="preact-basic"),
    "norm-free": replace(SMALL, block="preact-basic", norm="none", skip_init=True),
    "plain": plain_twin(SMALL),
}


def worn(model: nn.Module, size: int = 32) -> nn.Module:
    """In eval mode and double precision, with batch statistics of its own and no parameter at 0 or 1."""
    with torch.no_grad():
        model.train()(photos(16, (size, size)))
        for i, parameter in enumerate(model.parameters()):  # no bias at 0, where a mistake would not show
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return model.double().eval()


def ours(spec: NetSpec) -> nn.Module:
    return worn(build(spec, seed=3))


def torchvisions() -> nn.Module:
    """torchvision's resnet18, cut after its second stage, as slim as it can be: shared ReLUs that work in place."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=10)
        model.fc = nn.Linear(128, 10)
    model.layer1, model.layer2 = model.layer1[:1], model.layer2[:1]
    model.layer3, model.layer4 = nn.Identity(), nn.Identity()
    return worn(model)


def with_its_weights() -> nn.Module:
    model = build(IMAGENET)
    model.load_state_dict(torchvisions().state_dict())
    return model.double().eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    **{kind: partial(ours, spec) for kind, spec in SPECS.items()},
    "torchvision": torchvisions,
    "our build": with_its_weights,
}

# Methods that do not apply, by kind of net.
REFUSED = {
    "torchvision": {"guided-backprop", "guided-grad-cam", "deconvolution", "deep-lift"},  # its ReLUs run twice
    "our build": {"deep-lift"},  # a ReLU feeds the max-pool
}
CASES = [(method, kind) for method in METHODS for kind in NETS if method not in REFUSED.get(kind, ())]
# Few passes of the methods that have many.
QUICK: dict[str, dict[str, Any]] = {
    "smooth-grad": {"samples": 3},
    "integrated-gradients": {"steps": 5},
    "expected-gradients": {"samples": 5},
    "occlusion": {"window": 0.5, "stride": 0.25},
    "rise": {"masks": 12, "cells": 3},
}


def last(kind: str) -> str:
    """The last block by name."""
    return "layer2.0" if kind in ("torchvision", "our build") else "layer3.0"


_made = lru_cache(lambda kind: NETS[kind]())


def net(kind: str = "basic") -> nn.Module:
    """One of the NETS, which the caller may change."""
    return deepcopy(_made(kind))


def maps(method: str, model: nn.Module, images: Tensor, target: Any, layer: str = "layer2.0", **more: Any) -> Tensor:
    """`explain` with few passes."""
    return explain(method, model, images, target, layer, QUICK.get(method), **more)


def photos(n: int = 3, size: tuple[int, ...] = (32, 32), channels: int = 3) -> Tensor:
    """Noise (n, channels, *size)."""
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(7))
