"""Broken nets against nets that are broken by hand, and all put back: bit for bit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis import lesions as lab
from resnet.analysis.contract import last
from resnet.analysis.lesions import DROPS, LESIONS, SHUFFLES, Lesions, kendall_tau, lesions_of
from resnet.errors import Refused
from resnet.nets.model import ResNet, blocks, build
from resnet.nets.spec import NetSpec, StageSpec, plain_twin
from tests.support.unchanged import SMALL, images

DEEP = replace(SMALL, stages=(StageSpec(4, 8), StageSpec(3, 12, 2)))
NETS = {
    "residual": DEEP,
    "plain": plain_twin(DEEP),
    "preact": replace(DEEP, block="preact-basic"),
    "GELU": replace(DEEP, activation="gelu"),
}
LABELS = torch.tensor([3, 1, 4, 1])


def trained(spec: NetSpec) -> ResNet:
    """Weights as drawn, and running statistics of noise, so that no block is idle."""
    model = build(spec, seed=2)
    with torch.no_grad():
        model.train()(images(64))
    return model.eval()


def by_hand(model: ResNet, x: Tensor, cuts: Mapping[str, str], order: Sequence[str]) -> Tensor:
    """The blocks' own layers, one after the other, in a net of post-activation blocks or plain ones."""
    places = iter(order)
    for name, child in model.named_children():
        if not name.startswith("layer"):
            x = child(x)
            continue
        for _ in child.children():
            place = next(places)
            block: nn.Module = model.get_submodule(place)
            mode, shortcut = cuts.get(place, "both"), getattr(block, "downsample", None)
            if mode == "cut":
                continue
            parts = [block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x)))))] if mode != "shortcut" else []  # type: ignore[operator]
            parts += [shortcut(x)] if shortcut is not None and mode != "branch" else []
            x = block.act2(sum(parts))  # type: ignore[operator]
    return x


CUTS: list[dict[str, str]] = [
    {"layer1.0": "cut"},
    {"layer1.3": "cut"},
    {"layer2.2": "cut", "layer1.2": "cut"},
    {"layer2.0": "branch", "layer2.1": "shortcut"},
    {"layer2.0": "shortcut"},
]


@torch.no_grad()
@pytest.mark.parametrize("keep", [0, 60_000, 10**9])
@pytest.mark.parametrize("kind", ["residual", "plain", "GELU"])
def test_broken_nets_are_those_broken_by_hand(kind: str, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "BATCH", 3)
    model = trained(NETS[kind])
    broken = Lesions(model, images(), keep_bytes=keep)
    own = list(blocks(model))
    swapped = ["layer1.2", "layer1.1", "layer1.0", "layer1.3", "layer2.0", "layer2.2", "layer2.1"]
    for cuts in CUTS:
        if kind == "plain" and {*cuts.values()} != {"cut"}:
            continue
        torch.testing.assert_close(broken.logits(cuts), by_hand(model, images(), cuts, own))
        torch.testing.assert_close(broken.logits(cuts, swapped), by_hand(model, images(), cuts, swapped))
    torch.testing.assert_close(broken.logits(order=swapped), by_hand(model, images(), {}, swapped))


@pytest.mark.parametrize("kind", NETS)
def test_all_put_back_is_the_net_bit_for_bit(kind: str) -> None:
    model = trained(NETS[kind])
    broken = Lesions(model, images(), keep_bytes=60_000)
    broken.logits({"layer1.1": "cut"}, ["layer1.1", "layer1.0", *list(blocks(model))[2:]])
    with pytest.raises(Refused):
        broken.logits({"layer1.0": "cut", "layer2.0": "cut"})
    with torch.no_grad():
        whole = model(images().contiguous(memory_format=torch.channels_last))
    for cuts in ({}, {"layer1.0": "both"}, {"layer2.1": "both"}):
        assert torch.equal(broken.logits(cuts), whole)
        assert torch.equal(broken.logits(cuts, list(blocks(model))), whole)


def test_only_what_stands_behind_the_cut_runs_again() -> None:
    model, ran = trained(DEEP), list[str]()
    broken = Lesions(model, images())
    few = Lesions(model, images(), keep_bytes=70_000)  # what enters a block of stage 1 takes 32 kB, of stage 2 12 kB
    for name, block in blocks(model).items():
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
    broken.logits({"layer2.1": "cut"})
    assert ran == ["layer2.1", "layer2.2"]
    ran.clear()
    few.logits({"layer2.0": "branch"})  # which every third block's input is kept before
    assert ran == ["layer1.2", "layer1.3", "layer2.0", "layer2.1", "layer2.2"]


def test_what_is_kept_fits() -> None:
    for keep in (0, 40_000, 100_000, 10**6):
        kept = Lesions(trained(DEEP), images(), keep_bytes=keep)._before
        assert sum(x.nbytes for name, xs in kept.items() if name in blocks(build(DEEP)) for x in xs) <= keep
    assert len(kept) == 8


def test_an_identity_shortcut_alone_is_a_cut() -> None:
    """After a ReLU x is not negative, so that ReLU(x) = x."""
    broken = Lesions(trained(DEEP), images())
    assert torch.equal(broken.logits({"layer1.1": "cut"}), broken.logits({"layer1.1": "shortcut"}))
    gelu = Lesions(trained(NETS["GELU"]), images())
    assert not torch.equal(gelu.logits({"layer1.1": "cut"}), gelu.logits({"layer1.1": "shortcut"}))


def test_what_can_be_broken() -> None:
    residual, plain = blocks(build(DEEP)), blocks(build(plain_twin(DEEP)))
    assert lesions_of(residual["layer1.0"]) == ["cut", "shortcut", "branch"]
    assert lesions_of(residual["layer2.0"]) == ["shortcut", "branch"]
    assert lesions_of(plain["layer1.0"]) == ["cut"]
    assert lesions_of(plain["layer2.0"]) == []
    broken = Lesions(trained(DEEP), images())
    with pytest.raises(Refused, match="Only a block that keeps its input's shape can be cut out"):
        broken.logits({"layer2.0": "cut"})
    with pytest.raises(Refused, match=r"Only a block of the net can be broken\. Received layer9\.0\. Choose layer1\.0"):
        broken.logits({"layer9.0": "cut"})
    own = list(broken.blocks)
    for order in (own[::-1], own[1:], [*own[:4], own[5], own[4], own[6]], [own[0], *own[:-1]]):
        with pytest.raises(Refused, match="only within a stage"):
            broken.logits(order=order)


def test_tau_by_its_definition() -> None:
    assert kendall_tau(range(9)) == 1
    assert kendall_tau(range(9, 0, -1)) == -1
    assert kendall_tau([1, 0, 2, 3]) == pytest.approx(1 - 2 / 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    places = torch.arange(12)
    agree = (order[:, None] - order).sign() * (places[:, None] - places).sign()
    assert kendall_tau(order.tolist()) == pytest.approx(float(agree.sum()) / (12 * 11))


def test_a_row_for_each_lesion() -> None:
    model = trained(DEEP)
    table = last(LESIONS.function(model, images(), LABELS))
    assert list(table.columns) == ["block", "mode", "accuracy", "loss"]
    assert len(table) == 1 + 7 * 3 - 1
    for block, mode, accuracy, loss in table.to_numpy().tolist():
        logits = by_hand(model, images(), {block: mode}, list(blocks(model))).detach()
        assert loss == pytest.approx(float(F.cross_entropy(logits, LABELS)), rel=1e-5)
        assert accuracy == float((logits.argmax(1) == LABELS).float().mean())


@pytest.mark.parametrize("analysis", [DROPS, SHUFFLES])
def test_random_lesions(analysis: lab.Analysis) -> None:
    options = {"most": 4, "draws": 2, "seed": 1}
    table = last(analysis.function(trained(DEEP), images(), LABELS, **options))
    assert table.iloc[:, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    own = last(LESIONS.function(trained(DEEP), images(), LABELS)).iloc[0]
    assert table.loss[0] == own.loss
    intact = table.tau == 1 if analysis is SHUFFLES else table.deleted == 0
    assert ((table.loss == own.loss) == intact).all()
    assert not intact[1:].all()
    other = last(analysis.function(trained(DEEP), images(), LABELS, **options | {"seed": 2}))
    assert not table.equals(other)
    if analysis is SHUFFLES:
        assert table.tau[0] == 1
        assert table.tau.between(-1, 1, inclusive="right").all()


def test_the_same_seed_breaks_both_twins_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    score = Lesions.score

    def spy(self: Lesions, labels: Tensor, cuts: Mapping[str, str] = {}, order: Sequence[str] | None = None) -> dict:
        seen.append((dict(cuts), order))
        return score(self, labels, cuts, order)

    monkeypatch.setattr(Lesions, "score", spy)
    for analysis in (DROPS, SHUFFLES):
        found = []
        for spec in (DEEP, plain_twin(DEEP)):
            seen.clear()
            last(analysis.function(trained(spec), images(), LABELS, most=3, draws=2, seed=0))
            found.append(list(seen))
        assert found[0] == found[1]


def test_all_blocks_that_can_be_cut_are() -> None:
    table = last(DROPS.function(trained(DEEP), images(), LABELS, most=99, draws=1))
    assert table.deleted.max() == 6
    every = {name: "cut" for name in blocks(build(DEEP)) if name != "layer2.0"}
    assert table.loss.iloc[-1] == Lesions(trained(DEEP), images()).score(LABELS, every)["loss"]


def test_nets_that_cannot_be_broken_say_why() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    narrow = build(replace(SMALL, stages=(StageSpec(1, 12, 2), StageSpec(1, 16, 2))))
    one = build(replace(SMALL, stages=(StageSpec(1, 8), StageSpec(2, 16, 2))))
    for analysis in (LESIONS, DROPS, SHUFFLES):
        assert "that this program builds" in analysis.reason(other)
        assert not analysis.reason(build(SMALL))
    assert not LESIONS.reason(narrow)
    assert "none can be cut out" in DROPS.reason(narrow)
    assert not DROPS.reason(one)
    assert "change places" in SHUFFLES.reason(one)
