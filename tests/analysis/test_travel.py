"""The parts of dL/dx against torch.autograd on nets run block by block, and closed forms."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.travel import TRAVEL, travel
from resnet.errors import Refused
from resnet.nets.layers import SkipInit
from resnet.nets.model import blocks, build
from resnet.nets.spec import NetSpec, StageSpec, plain_twin
from tests.support.unchanged import SMALL, images, leaves_model_as_found

LABELS = torch.arange(4)
MIXED = (StageSpec(2, 8), StageSpec(1, 12, 2, shortcut="none"), StageSpec(2, 12))
NETS = {
    "basic": SMALL,
    "bottleneck": replace(SMALL, block="bottleneck", shortcut="C"),
    "pre-activation": replace(SMALL, block="preact-basic", shortcut="B"),
    "pre-activation bottleneck, A": replace(SMALL, block="preact-bottleneck"),
    "no norm": replace(SMALL, norm="none"),
    "plain in between": replace(SMALL, stages=MIXED),
}


def inputs_of_blocks(spec: NetSpec) -> dict[str, Tensor]:
    """dL/dx of each block's input, by one backward pass through a net run block by block."""
    model, x, read = build(spec).double().train(), images().double(), {}
    for child, module in model.named_children():
        for name, block in module.named_children() if child.startswith("layer") else ():
            read[f"{child}.{name}"] = x
            x = block(x)
        x = x if child.startswith("layer") else module(x)
    return dict(zip(read, torch.autograd.grad(F.cross_entropy(x, LABELS), list(read.values())), strict=True))


@pytest.mark.parametrize("kind", NETS)
def test_both_parts_make_up_the_gradient(kind: str) -> None:
    table = travel(build(NETS[kind]).double(), images(), LABELS)
    whole = inputs_of_blocks(NETS[kind])
    added = [name for name, block in blocks(build(NETS[kind])).items() if block.downsample is not None]
    assert table.name.tolist() == added
    assert table.block.tolist() == [*range(1, len(added) + 1)]
    assert table.both.tolist() == pytest.approx([float(whole[name].norm()) for name in added], rel=1e-9)
    crossed = 2 * table.shortcut * table.branch * table.cosine
    assert (table.shortcut**2 + table.branch**2 + crossed).tolist() == pytest.approx((table.both**2).tolist(), rel=1e-9)


@pytest.mark.parametrize("kind", NETS)
def test_a_part_is_the_gradient_where_the_other_is_cut_off(kind: str) -> None:
    """The forward pass stays: the other part of the last block's sum is a constant."""
    table = travel(build(NETS[kind]).double(), images(), LABELS)
    for part, other in (("shortcut", 1), ("branch", 0)):
        model = build(NETS[kind]).double().train()
        *_, block = blocks(model).values()
        block.add.register_forward_pre_hook(
            lambda module, args, other=other: tuple(a.detach() if i == other else a for i, a in enumerate(args))
        )
        read: list[Tensor] = []
        block.register_forward_pre_hook(lambda module, args, read=read: read.append(args[0]))
        [gradient] = torch.autograd.grad(F.cross_entropy(model(images().double()), LABELS), read)
        assert table[part].iloc[-1] == pytest.approx(float(gradient.norm()), rel=1e-9)


def test_a_branch_times_0_passes_no_gradient_and_an_identity_passes_all() -> None:
    table = travel(build(replace(SMALL, skip_init=True)), images(), LABELS)
    assert table.branch.tolist() == [0] * 4
    assert table.cosine.isna().all()
    assert table.both.tolist() == table.shortcut.tolist()
    assert table.shortcut[0] == pytest.approx(table.shortcut[1], rel=1e-6)  # x is above 0, so that no ReLU masks it


def test_a_branch_twice_as_large_passes_twice_the_gradient() -> None:
    def last_branch(scale: float) -> float:
        model = build(replace(SMALL, skip_init=True)).double()
        *_, block = blocks(model).values()
        assert isinstance(block.alpha, SkipInit)
        nn.init.constant_(block.alpha.alpha, scale)
        block.act2 = nn.Identity()
        model.fc.weight.data.mul_(1e-9)  # so that the loss's gradient does not depend on the block
        return travel(model, images(), LABELS).branch.iloc[-1]

    assert last_branch(2.0) == pytest.approx(2 * last_branch(1.0), rel=1e-6)


def test_at_initialisation_the_parts_stand_at_right_angles_and_the_shortcuts_win_with_depth() -> None:
    stack = replace(SMALL, stages=(StageSpec(12, 8),))
    table = travel(build(stack), images(16), torch.arange(16) % 10)
    assert table.cosine.abs().max() < 0.15
    ratio = table.branch / table.shortcut
    assert ratio[0] > 1 > ratio[11]


def test_a_plain_net_has_no_additions() -> None:
    plain = build(plain_twin(SMALL))
    assert "adds no shortcut" in TRAVEL.reason(plain)
    assert TRAVEL.reason(build(SMALL)) == ""
    with pytest.raises(Refused, match="adds no shortcut"):
        travel(plain, images(), LABELS)


def test_the_net_and_the_images_stay_as_they_were() -> None:
    leaves_model_as_found(lambda model: travel(model, images(), LABELS))
    x = images()
    with torch.no_grad():
        travel(build(SMALL), x, LABELS)
    assert torch.equal(x, images())
    assert not x.requires_grad
