"""Paths against the full gradient, against a net run by hand for each path, and the figures of the reference."""

import math
import time
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.batches import noise_batch
from resnet.analysis.contract import last
from resnet.analysis.paths import PATHS, mean_length, path_lengths, sum_of_paths
from resnet.errors import Refused
from resnet.nets.model import blocks, build
from resnet.nets.spec import NetSpec, cifar, plain_twin
from tests.analysis.test_travel import LABELS, NETS
from tests.support.unchanged import SMALL, images, leaves_model_as_found


def by_hand(spec: NetSpec) -> dict[tuple[bool, ...], float]:
    """The norm of dL/dx_0 by path: a forward and a backward pass for each, where every other part is a constant."""
    model, read, way = build(spec).double().train(), list[Tensor](), dict[nn.Module, bool]()

    def one_part(add: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return (args[0].detach(), args[1]) if way[add] else (args[0], args[1].detach())

    adds = [block.add for block in blocks(model).values()]
    for add in adds:
        add.register_forward_pre_hook(one_part)
    next(iter(blocks(model).values())).register_forward_pre_hook(lambda module, args: read.append(args[0]))
    found = {}
    for path in product((False, True), repeat=len(adds)):
        way.update(zip(adds, path, strict=True))
        loss = F.cross_entropy(model(images().double()), LABELS)
        found[path] = float(torch.autograd.grad(loss, read.pop())[0].norm())
    return found


@pytest.mark.parametrize("kind", ["basic", "pre-activation"])
def test_norms_by_length_are_those_of_every_path_run_alone(kind: str) -> None:
    table = last(path_lengths(build(NETS[kind]).double(), images(), LABELS))
    norms = by_hand(NETS[kind])
    means = [np.mean([norm for path, norm in norms.items() if sum(path) == length]) for length in range(5)]
    assert table.length.tolist() == [0, 1, 2, 3, 4]
    assert table.paths.tolist() == table.walked.tolist() == [1, 4, 6, 4, 1]
    assert table.gradient.tolist() == pytest.approx(means, rel=1e-9)
    assert table.total.tolist() == pytest.approx((table.paths * table.gradient).tolist())


def test_all_512_paths_of_resnet_20_sum_to_the_gradient() -> None:
    model, (x, labels) = build(cifar(20)).double(), noise_batch(cifar(20), 2)
    assert sum_of_paths(model, x[..., ::4, ::4], labels) < 1e-12


@pytest.mark.parametrize("kind", [kind for kind in NETS if kind != "basic"])
def test_the_paths_of_any_net_sum_to_the_gradient(kind: str) -> None:
    assert sum_of_paths(build(NETS[kind]).double(), images(), LABELS) < 1e-12


def test_a_sample_has_a_path_of_each_length_drawn_from_the_seed() -> None:
    spec = cifar(20)
    batch = noise_batch(spec, 2)[0][..., ::4, ::4], torch.tensor([0, 1])
    steps = list(path_lengths(build(spec), *batch, samples=2))
    assert [step.share for step in steps] == [0.5, 1.0]
    assert [set(step.table.walked) for step in steps] == [{1}, {2}]
    table = steps[-1].table
    assert table.paths.tolist() == [math.comb(9, length) for length in range(10)]
    assert table.equals(last(path_lengths(build(spec), *batch, samples=2)))
    assert not table.equals(last(path_lengths(build(spec), *batch, samples=2, seed=1)))


def test_samples_are_fair() -> None:
    """Their mean over many seeds is that of all paths."""
    model = build(NETS["basic"])
    every = last(path_lengths(model, images(), LABELS))
    drawn = [last(path_lengths(model, images(), LABELS, samples=3, seed=seed)) for seed in range(24)]
    assert {tuple(table.walked) for table in drawn} == {(3,) * 5}
    means = np.mean([table.gradient for table in drawn], axis=0)
    assert means.tolist() == pytest.approx(every.gradient.tolist(), rel=0.1)


def test_mean_length_of_blocks_that_pass_as_much_either_way() -> None:
    table = last(path_lengths(build(NETS["basic"]), images(), LABELS))
    assert mean_length(table.assign(total=table.paths)) == 2
    assert mean_length(table.assign(total=[0, 0, 0, 1, 1])) == 3.5


def test_zero_init_leaves_the_shortest_path_alone() -> None:
    model = build(NETS["basic"])
    for block in blocks(model).values():
        nn.init.zeros_(block.get_submodule("bn2").get_parameter("weight"))
    table = last(path_lengths(model, images(), LABELS))
    assert table.gradient[0] > 0
    assert table.gradient[1:].tolist() == [0] * 4
    assert mean_length(table) == 0


def test_nets_that_it_does_not_apply_to_are_refused() -> None:
    plain = build(plain_twin(SMALL))
    assert "adds no shortcut" in PATHS.reason(plain)
    with pytest.raises(Refused, match="adds no shortcut"):
        last(path_lengths(plain, images(), LABELS))
    with pytest.raises(Refused, match=r"Received 18\. Choose 1 to 12 blocks"):
        sum_of_paths(build(cifar(38)), images(), LABELS)


def test_the_net_stays_as_it_was_also_when_nobody_asks_for_the_rest() -> None:
    leaves_model_as_found(lambda model: last(path_lengths(model, images(), LABELS, samples=1)))
    leaves_model_as_found(lambda model: sum_of_paths(model, images(), LABELS))
    leaves_model_as_found(lambda model: next(path_lengths(model, images(), LABELS, samples=1)))


@pytest.mark.slow
def test_most_of_the_gradient_comes_through_short_paths() -> None:
    """NUMBERS.md has 11.3 for ResNet-56, where the commonest paths have 13.5."""
    spec, begun = cifar(56), time.process_time()
    table = last(path_lengths(build(spec), *noise_batch(spec, 2), **PATHS.options))
    assert mean_length(table) == pytest.approx(11.3, abs=1)
    assert time.process_time() - begun < 10
