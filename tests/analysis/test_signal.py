"""Variances and responses against nets run by hand, a closed form, and the theory of De and Smith."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from resnet.analysis.batches import noise_batch
from resnet.analysis.signal import responses, signal
from resnet.nets.model import blocks, build
from resnet.nets.spec import NetSpec, StageSpec, cifar, plain_twin
from tests.support.unchanged import SMALL, images, leaves_model_as_found

KINDS = {
    "basic": SMALL,
    "bottleneck": replace(SMALL, block="bottleneck", shortcut="B"),
    "pre-activation": replace(SMALL, block="preact-basic", shortcut="B"),
    "pre-activation bottleneck, C": replace(SMALL, block="preact-bottleneck", shortcut="C"),
    "no norm": replace(SMALL, norm="none"),
    "squeeze and excitation": replace(SMALL, se=4),
    "skip init": replace(SMALL, skip_init=True),
}


def by_hand(spec: NetSpec, x: Tensor) -> list[list[float]]:
    """Variances of output, shortcut and branch of each block, run alone in its modes."""
    model: Any = build(spec).train()
    rows = []
    for child, module in model.named_children():
        if not child.startswith("layer"):
            x = module(x)
            continue
        for block in module:
            found = [block(x)]
            if block.last_act:
                setattr(block, block.last_act, nn.Identity())
            for block.mode in ("shortcut", "branch"):
                found.append(block(x))
            rows.append([float(each.detach().numpy().var(ddof=1)) for each in found])
            x = found[0]
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_variances_are_those_of_each_block_run_alone(kind: str) -> None:
    table = signal(build(KINDS[kind]), images())
    assert table.name.tolist() == list(blocks(build(KINDS[kind])))
    assert table.block.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(table[["output", "shortcut", "branch"]], by_hand(KINDS[kind], images()), rtol=1e-4)
    np.testing.assert_allclose(table.share, table.branch / table.shortcut)


def test_a_plain_net_has_outputs_only() -> None:
    plain = plain_twin(SMALL)
    model: Any = build(plain).train()
    table = signal(build(plain), images())
    first = model.get_submodule("layer1.0")(model.act(model.bn1(model.conv1(images()))))
    assert table.output[0] == pytest.approx(float(first.detach().var()), rel=1e-5)
    assert table[["shortcut", "branch", "share", "theory"]].isna().all().all()


def test_a_batch_norm_at_the_branchs_end_makes_its_variance_that_of_its_scale() -> None:
    model = build(SMALL)
    for block in blocks(model).values():
        nn.init.constant_(block.get_submodule("bn2").get_parameter("weight"), 3.0)
    assert signal(model, images()).branch.tolist() == pytest.approx([9] * 4, rel=0.01)


def test_the_theory_counts_anew_from_a_shortcut_that_is_no_identity() -> None:
    stages = StageSpec(3, 8), StageSpec(2, 8), StageSpec(2, 12, 2, shortcut="none"), StageSpec(2, 12, 2)
    table = signal(build(replace(SMALL, stages=stages, block="preact-basic", shortcut="B")), images())
    assert table.theory.fillna(0).tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 0, 0, 1, 1 / 2]


def test_the_share_of_pre_activation_falls_as_theory_says() -> None:
    """27 blocks in one stage: NUMBERS.md has 0.192, 0.109, 0.065, 0.0375 at blocks 5, 9, 15, 27, "on 1/l from 5"."""
    stack = NetSpec((StageSpec(27, 16),), "preact-basic", "B", stem="3x3", stem_width=16, classes=10, image_size=32)
    tables = [signal(build(stack, seed), noise_batch(stack, 8, seed)[0]) for seed in range(3)]
    share = np.exp(np.mean([np.log(table.share) for table in tables], axis=0))
    np.testing.assert_allclose(share[4:] * np.arange(5, 28), 1, atol=0.25)
    for block, published in {5: 0.192, 9: 0.109, 15: 0.065, 27: 0.0375}.items():
        assert share[block - 1] == pytest.approx(published, rel=0.2), block


def test_the_share_begins_anew_at_each_stage_with_projections() -> None:
    spec = replace(cifar(56), block="preact-basic", shortcut="B")
    table = signal(build(spec), noise_batch(spec, 8)[0])
    late = table[(table.block % 9 == 0) | (table.block % 9 > 4)]  # of each stage from its 5th block
    np.testing.assert_allclose(late.share / late.theory, 1, atol=0.4)


def test_responses_are_what_the_norms_give() -> None:
    model: Any = build(SMALL).train()
    x = images()
    block = model.get_submodule("layer1.0")
    stem = model.bn1(model.conv1(x))
    first = block.bn1(block.conv1(model.act(stem)))
    second = block.bn2(block.conv2(block.act1(first)))
    table = responses(build(SMALL), x)
    assert table.name.tolist()[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert table.layer.tolist() == [*range(1, 10)]
    assert table["std"].tolist()[:3] == pytest.approx(
        [float(each.detach().std()) for each in (stem, first, second)], rel=1e-5
    )


def test_responses_follow_the_scales_of_the_norms_and_are_ranked() -> None:
    model, scales = build(SMALL), [5.0, 1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm, scale in zip(norms, scales, strict=True):
        nn.init.constant_(norm.weight, scale)
    table = responses(model, images())
    assert table["std"].tolist() == pytest.approx(scales, rel=0.01)
    assert table["rank"].tolist() == [5, 9, 1, 8, 2, 7, 3, 6, 4]


def test_a_response_that_no_norm_reads_is_the_convolutions_own() -> None:
    spec = replace(SMALL, block="preact-basic", shortcut="B")
    model: Any = build(spec).train()
    block, x = model.get_submodule("layer1.0"), model.conv1(images())
    inside = block.conv1(block.act1(block.bn1(x)))
    branch = block.conv2(block.act2(block.bn2(inside)))
    found = responses(build(spec), images()).set_index("name")["std"]
    assert found["layer1.0.conv1"] == pytest.approx(float(block.bn2(inside).detach().std()), rel=1e-5)
    assert found["layer1.0.conv2"] == pytest.approx(float(branch.detach().std()), rel=1e-5)
    assert "layer2.0.downsample.0" not in found


def test_the_net_stays_as_it_was() -> None:
    leaves_model_as_found(lambda model: signal(model, images()), backward=False)
    leaves_model_as_found(lambda model: responses(model, images()), backward=False)
