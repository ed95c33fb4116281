"""Re-initialised layers: which, in what order, with what values."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, plain_twin
from resnet.seeds import generator
from resnet.trust.randomisation import CHUNKS, chunks, entropies, layers, reinitialise, rise

DEEP = NetSpec((StageSpec(9, 8), StageSpec(9, 16, 2)), "basic", "A", stem_width=8, classes=10, image_size=16)


def test_chunks_are_the_head_and_equal_parts_from_the_top_down() -> None:
    names = layers(build(DEEP))
    found = chunks(names)
    assert found[0] == ["fc"]
    assert [name for part in found for name in part] == names[::-1]
    assert len(found) == 1 + CHUNKS
    assert len({len(part) for part in found[1:-1]}) == 1
    assert chunks(["a", "b"]) == [["b"], ["a"]]


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("plain", [False, True])
def test_a_deep_net_without_learning_keeps_its_signal(norm: str, plain: bool) -> None:
    spec = NetSpec(DEEP.stages, "basic", "A", stem_width=8, classes=10, image_size=16, norm=norm)
    net: Any = build(plain_twin(spec) if plain else spec).eval()
    for parameter in net.parameters():
        parameter.data.normal_(5)
    for name in layers(net):
        reinitialise(net.get_submodule(name), generator(0))
    net.requires_grad_(False)
    images = torch.randn(4, 3, 16, 16, generator=generator(1))
    assert 1e-8 < float(net(images).std()) < 1e9
    for name in layers(net):
        net.get_submodule(name).reset_parameters()  # torch's own start
    if plain:
        assert float((net(images) - net(0 * images)).std()) < 1e-8


def test_values_are_those_before_training() -> None:
    conv, norm, head = nn.Conv2d(64, 32, 3), nn.BatchNorm2d(8), nn.Linear(500, 300)
    for module in (conv, norm, head):
        module.requires_grad_(False)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    norm.train()(torch.randn(4, 8, 5, 5) + 3)
    for module in (conv, norm, head):
        reinitialise(module, generator(3))
    assert float(conv.weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert float(head.weight.std()) == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    for zeros in (conv.bias, head.bias, norm.bias, norm.running_mean):
        assert zeros is not None
        assert zeros.count_nonzero() == 0
    assert torch.equal(norm.weight, torch.ones(8))
    assert norm.running_var is not None
    assert torch.equal(norm.running_var, torch.ones(8))


def test_draws_follow_the_generator() -> None:
    one, same, other = (nn.Linear(5, 4) for _ in range(3))
    for module, seed in ((one, 1), (same, 1), (other, 2)):
        reinitialise(module, generator(seed))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


def test_complexity_is_the_entropy_of_the_histogram() -> None:
    two, four = torch.tensor([0.0, 1.0]).repeat(8, 4), torch.tensor([0.0, 1.0, 2.0, 3.0]).repeat(8, 2)
    assert entropies(torch.stack([two, four])).tolist() == pytest.approx([math.log(2), math.log(4)])
    assert rise(two[None], four[None]).tolist() == pytest.approx([1])
    assert rise(four[None], two[None]).tolist() == pytest.approx([-0.5])
    assert rise(torch.stack([two, 0 * two]), torch.stack([0 * two, two])).isnan().all()
