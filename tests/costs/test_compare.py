"""Differences that add up exactly, and the largest nets of a budget against a search of everything."""

import dataclasses
import itertools
import re

import pytest

from resnet.costs import budget
from resnet.costs.budget import Budget, Fit, pareto
from resnet.costs.compare import (
    KINDS,
    QUANTITIES,
    aligned,
    by_convention,
    differences,
    merged,
    scaled,
    steps,
    totals,
    with_latency,
    with_twin,
)
from resnet.costs.conventions import CONVENTIONS, count
from resnet.costs.memory import memory
from resnet.costs.profiler import Profile, profile
from resnet.costs.speed import Latency
from resnet.errors import Refused
from resnet.nets.spec import PRESETS, StageSpec, plain_twin
from resnet.zoo.relatives import profile_relative

PAIRS = [
    ("ResNet-50", "ResNet-50 Keras listing"),
    ("ResNet-20", "ResNet-152"),
    ("ResNet-50", "VGG-11"),
    ("VGG-11", "ResNet3D-18"),
]


def profiled(name: str) -> Profile:
    return profile(PRESETS[name]) if name in PRESETS else profile_relative(name)


@pytest.mark.parametrize(("quantity", "by"), list(itertools.product(QUANTITIES, KINDS)))
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_steps_sum_to_the_exact_difference(first: str, second: str, quantity: str, by: str) -> None:
    a, b = profiled(first), profiled(second)
    taken = steps(a, b, quantity, by)
    assert taken.delta.sum() == getattr(b, quantity) - getattr(a, quantity)
    assert (taken.delta != 0).all()
    assert taken.label.is_unique


def test_the_two_listings_of_resnet_50_differ_in_two_entries() -> None:
    a, b = PRESETS["ResNet-50"], PRESETS["ResNet-50 Keras listing"]
    assert list(differences(a, b)) == [("stride of stage 1", 1, 2), ("stride on", "3x3", "1x1")]
    assert list(differences(a, a)) == []
    maps = aligned(profile(a), profile(b)).set_index("stage")
    assert (maps.out_shape_a["stage4"], maps.out_shape_b["stage4"]) == ("2048 x 7 x 7", "2048 x 4 x 4")
    assert maps.macs_delta.sum() == profile(b).macs - profile(a).macs
    assert maps.params_delta.sum() == 0


def test_differences_name_stages_and_their_number() -> None:
    a = PRESETS["ResNet-20"]
    b = dataclasses.replace(a, stages=(StageSpec(3, 16), StageSpec(4, 32, 2, 2, "B")), classes=100)
    assert list(differences(a, b)) == [
        ("stages", 3, 2), ("blocks of stage 2", 3, 4), ("dilation of stage 2", 1, 2),
        ("shortcut of stage 2", "the net's", "B"), ("classes", 10, 100),
    ]  # fmt: skip


def test_stages_of_unlike_nets_stand_in_running_order() -> None:
    assert merged(["stem", "stage1", "head"], ["stage1", "stage2", "head"]) == ["stem", "stage1", "stage2", "head"]
    assert merged(["stage1", "head"], ["stem", "stage1", "head"]) == ["stem", "stage1", "head"]
    frame = aligned(profiled("ResNet-20"), profiled("VGG-11"))
    assert list(frame.stage) == ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"]
    assert frame.out_shape_a.isna().sum() == 2
    assert frame.macs_delta.sum() == profiled("VGG-11").macs - profiled("ResNet-20").macs


# Budget

BASE = PRESETS["ResNet-20"]


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "WIDTHS", (8, 16, 24))
    monkeypatch.setattr(budget, "GROUPS", ((1, 64), (2, 32)))
    monkeypatch.setattr(budget, "DEPTHS", {3: [(1, 1, 1), (2, 2, 2), (3, 3, 3), (5, 5, 5)]})


def found(allowed: Budget, blocks: tuple[str, ...] = ("basic", "bottleneck")) -> list[Fit]:
    *_, (share, fits) = budget.search(BASE, allowed, blocks, ("3x3",))
    assert share == 1
    return fits


@pytest.mark.usefixtures("small_grid")
@pytest.mark.parametrize(
    "allowed", [Budget(params=300_000), Budget(macs=30_000_000), Budget(params=150_000, macs=60_000_000)], ids=str
)
def test_the_list_is_that_of_a_search_of_everything(allowed: Budget) -> None:
    everything = [
        budget.with_blocks(net, depths)
        for family in budget.families(BASE, ("basic", "bottleneck"), ("3x3",))
        for net, depths in itertools.product(family, budget.DEPTHS[3])
    ]
    costs = [(net, profile(net)) for net in everything]
    fitting = [(net, cost) for net, cost in costs if allowed.holds(cost.params, cost.macs)]
    best = {fit.spec for fit in pareto([Fit(net, cost.params, cost.macs, 0) for net, cost in fitting])}
    fits = found(allowed)
    assert {fit.spec for fit in fits} == best
    assert 1 < len(best) < len(fitting) < len(costs)
    for fit in fits:
        whole = profile(fit.spec)
        assert (fit.params, fit.macs) == (whole.params, whole.macs)
        assert allowed.holds(fit.params, fit.macs)


@pytest.mark.usefixtures("small_grid")
def test_memory_is_kept() -> None:
    allowed = Budget(memory=60 * 2**20, batch=32)
    fits = found(allowed, ("basic",))
    assert fits
    for fit in fits:
        assert fit.bytes == memory(fit.spec, 32, budget.OPTIMIZER).peak <= allowed.memory
        depths = tuple(stage.blocks for stage in fit.spec.stages)
        deeper = [d for d in budget.DEPTHS[3] if d > depths][:1]
        assert all(memory(budget.with_blocks(fit.spec, d), 32, budget.OPTIMIZER).peak > allowed.memory for d in deeper)


def test_pareto_keeps_what_no_other_beats() -> None:
    def fit(blocks: int, width: int) -> Fit:
        return Fit(dataclasses.replace(BASE, stages=(StageSpec(blocks, width),), stem_width=8), 0, 0, 0)

    assert pareto([fit(1, 16), fit(2, 8), fit(1, 8), fit(2, 8)]) == [fit(2, 8), fit(1, 16)]
    assert pareto([fit(1, 16), fit(2, 16)]) == [fit(2, 16)]


def test_costs_of_other_depths_are_exact() -> None:
    for block, depths in [("basic", (1, 7, 3)), ("preact-bottleneck", (4, 1, 9))]:
        base = dataclasses.replace(BASE, block=block, shortcut="B")
        two, whole = profile(budget.with_blocks(base, (2, 2, 2))), profile(budget.with_blocks(base, depths))
        assert budget.extrapolated(two, depths) == (whole.params, whole.macs)


@pytest.mark.parametrize("values", [{"params": -1}, {"macs": 1.5}, {"batch": 0}, {"memory": True}], ids=str)
def test_limits_that_are_none_are_refused(values: dict) -> None:
    with pytest.raises(Refused, match=r"Received .* Choose"):
        Budget(**values)


def test_nothing_fits_is_an_empty_list() -> None:
    assert found(Budget(params=10), ("basic",)) == []


def test_a_twins_costs_stand_beside_the_nets_own() -> None:
    net = PRESETS["ResNet-56"]
    table = with_twin(profile(net), profile(plain_twin(net)))
    assert (table.macs.sum(), table.twin_macs.sum()) == (profile(net).macs, profile(plain_twin(net)).macs)
    assert table.twin_params.sum() == profile(plain_twin(net)).params


@pytest.mark.parametrize("base", ["fvcore", "params"])
def test_the_difference_of_two_conventions_adds_up(base: str) -> None:
    found = profile(PRESETS["ResNet-18"])
    table = by_convention(found, base).set_index("convention")
    for key, convention in CONVENTIONS.items():
        row = table.loc[convention.title]
        assert row.says == count(found, key)
        alike = (convention.unit == "params") == (CONVENTIONS[base].unit == "params")
        assert bool(row.difference) == (alike and key != base)
        if row.difference:
            parts = [int(part.replace(",", "")) for part in re.findall(r"[+-][\d,]*\d", row.difference)]
            assert sum(parts) == row.says - count(found, base)


def test_measured_times_stand_beside_the_nets_that_were_measured() -> None:
    nets = {name: profiled(name) for name in ("ResNet-20", "VGG-11")}
    timed = {"VGG-11": Latency(1, "cpu", "fp32", 1, (0.004, 0.005, 0.006))}
    table = with_latency(totals(nets, {"ResNet-20": 20}), timed)
    assert table.latency.isna().tolist() == [True, False]
    assert table.latency[1] == pytest.approx(5)
    assert table.spread[1] == pytest.approx(100 * timed["VGG-11"].spread)
    assert scaled(table, {"latency": 10}).latency[1] == pytest.approx(0.5)
    assert table.depth.isna().tolist() == [False, True]
