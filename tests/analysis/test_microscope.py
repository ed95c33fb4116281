"""One block against a block run by hand, the identities of the addition, and torch's own optimiser."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.microscope import BRANCH, MAPS, SHORTCUT, SIDE, SUM, View, X, Y, among_noise, microscope
from resnet.errors import Refused
from resnet.nets.blocks import BLOCKS, Block, PreActivation
from resnet.nets.kinds import IDENTITY_VARIANTS
from resnet.nets.model import blocks, build, weight_layers
from resnet.nets.spec import NetSpec, cifar, plain_twin
from tests.support.unchanged import SMALL, images, leaves_model_as_found

NETS = {kind: replace(SMALL, block=kind, shortcut="B") for kind in BLOCKS} | {
    "A": SMALL,
    "C": replace(SMALL, shortcut="C"),
    "D": replace(SMALL, block="preact-basic", shortcut="D"),
    "no norm": replace(SMALL, norm="none"),
    "squeezed, scaled, dropped": replace(SMALL, se=4, skip_init=True, stochastic_depth=0.5),
    **{kind: replace(SMALL, shortcut=kind) for kind in IDENTITY_VARIANTS},
    "gated before activation": replace(SMALL, shortcut="gated", block="preact-basic"),
    "clip": replace(SMALL, frames=4, shortcut="B"),
}
PLAIN = {kind: plain_twin(NETS[kind]) for kind in ("basic", "preact-bottleneck")}
LABEL = 3


def seen(spec: NetSpec, count: int = 4) -> Tensor:
    return torch.randn(count, *spec.input_shape, generator=torch.Generator().manual_seed(2)).double()


def trained(spec: NetSpec, seed: int = 3) -> nn.Module:
    """In double precision, with running statistics of a batch, and away from the branch's 0 of SkipInit."""
    model = build(spec, seed).double().train()
    model(seen(spec))
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            nn.init.constant_(parameter, 0.7)
    return model.eval()


def by_hand(model: nn.Module, name: str, x: Tensor) -> dict[str, Tensor]:
    """The block's tensors for the first picture, and dL/d of them, from a net cut into what runs before and after."""
    net = nn.Sequential()
    for key, child in model.named_children():
        if key.startswith("layer"):
            for position, block in child.named_children():
                net.add_module(f"{key}-{position}", block)
        else:
            net.add_module(key, child)
    at = list(dict(net.named_children())).index(name.replace(".", "-"))
    block = net[at]
    assert isinstance(block, Block)
    found = {X: net[:at](x).detach().requires_grad_()}
    past, inside = block.enter(found[X])
    gates = block.gates(past)
    found[BRANCH] = block.alpha(block.se(block.branch(inside))) * (gates[0] if block.let else 1.0)
    ends = found[BRANCH]
    if block.downsample is not None:
        found[SHORTCUT] = block.downsample(past, *gates) * 1.0
        found[SUM] = ends = found[SHORTCUT] + found[BRANCH]
    found[Y] = block.get_submodule(block.last_act)(ends) if block.last_act else ends * 1.0
    loss = F.cross_entropy(net[at + 1 :](found[Y])[:1], torch.tensor([LABEL]))
    gradients = torch.autograd.grad(loss, list(found.values()))
    return {key: t[0].detach() for key, t in found.items()} | {
        f"d {key}": g[0] for key, g in zip(found, gradients, strict=True)
    }


def norms(view: View, column: str) -> dict[str, float]:
    return dict(zip(view.layers.name, view.layers[column], strict=True))


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["layer1.1", "layer2.0"])
@pytest.mark.parametrize("batch_statistics", [True, False])
def test_the_view_is_the_block_run_by_hand(kind: str, name: str, batch_statistics: bool) -> None:
    model, x = trained(NETS[kind]), seen(NETS[kind])
    view = microscope(model, x, LABEL, name, batch_statistics=batch_statistics).before
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(batch_statistics)
    expected = by_hand(model, name, x)
    for key in (X, BRANCH, SHORTCUT, SUM, Y):
        assert norms(view, "norm")[key] == pytest.approx(expected[key].norm().item(), rel=1e-9)
        assert norms(view, "gradient")[key] == pytest.approx(expected[f"d {key}"].norm().item(), rel=1e-9)
        tensor = expected[key] if expected[key].dim() == 3 else expected[key].mean(1)
        assert view.maps[key] == pytest.approx(tensor[view.channels[key]].float().numpy(), rel=1e-5)
    assert view.backward.total == pytest.approx(expected["d x"].norm().item(), rel=1e-9)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["layer1.1", "layer2.0"])
def test_what_comes_through_shortcut_and_branch_is_all_there_is(kind: str, name: str) -> None:
    for model, limit in ((trained(NETS[kind]), 1e-12), (trained(NETS[kind]).float(), 1e-5)):
        view = microscope(model, seen(NETS[kind]), LABEL, name, batch_statistics=True).before
        for meeting in (view.forward, view.backward):
            assert meeting.gap < limit
            s, b, cosine = meeting.shortcut, meeting.branch, meeting.cosine
            assert meeting.total**2 == pytest.approx(s**2 + b**2 + 2 * cosine * s * b, rel=1e-4)
            assert meeting.share == pytest.approx((b**2 + cosine * s * b) / meeting.total**2, rel=1e-4, abs=1e-6)


def test_the_identity_passes_on_what_arrives_at_the_sum() -> None:
    for kind in ("basic", "preact-basic"):
        view = microscope(trained(NETS[kind]), seen(NETS[kind]), LABEL, "layer1.1").before
        assert view.backward.shortcut == pytest.approx(norms(view, "gradient")[SUM], rel=1e-12)
        assert view.forward.shortcut == pytest.approx(norms(view, "norm")[X], rel=1e-12)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_block_has_its_branch_alone(kind: str) -> None:
    found = microscope(trained(PLAIN[kind]), seen(PLAIN[kind]), LABEL, "layer1.1")
    assert found.shortcut == ""
    assert "no shortcut" in found.note
    assert not {SHORTCUT, SUM} & set(found.before.layers.name)
    for meeting in (found.before.forward, found.before.backward):
        assert meeting.shortcut == 0
        assert meeting.branch == meeting.total > 0
        assert meeting.share == pytest.approx(1)
        assert np.isnan(meeting.cosine)
    assert not microscope(trained(NETS[kind]), seen(NETS[kind]), LABEL).note


def test_layers_stand_in_running_order() -> None:
    layers = microscope(trained(NETS["basic"]), seen(SMALL), LABEL, "layer2.0").before.layers
    assert layers.name.tolist() == [X, "conv1", "bn1", "act1", "conv2", "bn2", BRANCH, SHORTCUT, SUM, Y]
    assert layers.module.tolist()[1:4] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert layers["shape"].tolist()[:2] == ["8×16×16", "12×8×8"]
    preact = microscope(trained(NETS["preact-basic"]), seen(SMALL), LABEL).before.layers
    inside = ["bn1", "act1", "conv1", "bn2", "act2", "conv2"]
    assert preact.name.tolist() == [X, *inside, BRANCH, SHORTCUT, SUM, Y]
    assert isinstance(blocks(build(NETS["preact-basic"]))["layer2.0"], PreActivation), "the middle one"
    rich = microscope(trained(NETS["squeezed, scaled, dropped"]), seen(SMALL), LABEL).before.layers
    assert rich.name.tolist()[5:-4] == [
        "bn2",
        *(f"se.{k}" for k in ("avgpool", "fc1", "act", "fc2", "gate", "scale")),
        "alpha",
    ]


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_one_step_is_that_of_sgd(batch_statistics: bool) -> None:
    model, x = trained(SMALL), seen(SMALL)
    found = microscope(model, x, LABEL, "layer2.1", lr=0.05, batch_statistics=batch_statistics)
    own = copy.deepcopy(model)
    for module in own.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(batch_statistics)
    old = {name: weight.detach().clone() for name, weight in own.named_parameters()}
    optimiser = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9)
    loss = F.cross_entropy(own(x)[:1], torch.tensor([LABEL]))
    loss.backward()
    optimiser.step()
    assert found.before.loss == pytest.approx(loss.item(), rel=1e-9)
    assert found.step.name.tolist() == list(weight_layers(model))
    for row in found.step.itertuples():
        new = own.get_parameter(f"{row.name}.weight").detach()
        change = (new - old[f"{row.name}.weight"]).norm().item()
        assert row.update == pytest.approx(change, rel=1e-9)
        assert row.ratio == pytest.approx(change / old[f"{row.name}.weight"].norm().item(), rel=1e-9)
    again = microscope(own, x, LABEL, "layer2.1", batch_statistics=batch_statistics).before
    if not batch_statistics:  # else the copy's running statistics have moved, but nobody reads them
        assert again.loss == pytest.approx(F.cross_entropy(own(x)[:1], torch.tensor([LABEL])).item(), rel=1e-9)
    assert found.after.loss == pytest.approx(again.loss, rel=1e-9)
    assert norms(found.after, "gradient") == pytest.approx(norms(again, "gradient"), rel=1e-9)
    assert found.after.channels == found.before.channels, "maps of before and after can be compared"


def test_a_small_step_lowers_the_loss() -> None:
    found = microscope(build(SMALL), images(), LABEL, lr=1e-3, batch_statistics=True)
    assert found.after.loss < found.before.loss


def test_other_pictures_count_in_batch_statistics_alone() -> None:
    model, x = trained(SMALL), seen(SMALL)
    other = torch.cat([x[:1], x[1:].flip(0) * 2])
    losses = [microscope(model, each, LABEL).before.loss for each in (x, x[:1], other)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)
    one, two = (microscope(model, each, LABEL, batch_statistics=True).before.loss for each in (x, other))
    assert abs(one - two) > 1e-3


def test_noise_stands_around_the_picture() -> None:
    picture = images(1)
    batch = among_noise(picture, seed=4)
    assert torch.equal(batch[:1], picture)
    assert torch.equal(batch, among_noise(picture, seed=4))
    assert not torch.equal(batch, among_noise(picture, seed=5))
    assert len(batch) == 8


def test_channels_that_add_up_are_the_same_ones_and_the_strongest() -> None:
    view = microscope(trained(SMALL), seen(SMALL), LABEL, "layer1.1").before
    assert view.channels[X] == view.channels[BRANCH] == view.channels[SHORTCUT] == view.channels[SUM]
    assert view.channels[X] == view.channels[Y]
    total = view.maps[SHORTCUT] + view.maps[BRANCH]
    assert total == pytest.approx(view.maps[SUM], abs=1e-5)
    both = view.gradients["x through shortcut"] + view.gradients["x through branch"]
    assert both == pytest.approx(view.gradients[X], abs=1e-6)
    squares = sum(float((each**2).sum()) for each in view.maps[Y])
    assert len(view.maps[Y]) == MAPS < 8
    assert squares > MAPS / 8 * norms(view, "norm")[Y] ** 2


def test_a_result_crosses_processes_and_is_small() -> None:
    spec = replace(cifar(8), image_size=48, se=4, block="preact-bottleneck", shortcut="B")
    found = microscope(build(spec), torch.randn(2, 3, 48, 48), LABEL, "layer1.0", batch_statistics=True)
    sent = pickle.dumps(found)
    assert len(sent) < 2e6
    assert pickle.loads(sent).before.layers.equals(found.before.layers)  # noqa: S301  our own bytes
    assert max(found.before.maps[Y].shape) == SIDE


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(Refused, match=r"layer1\.0, layer1\.1"):
        microscope(build(SMALL), images(), LABEL, "layer9.0")
    with pytest.raises(Refused, match="above 0"):
        microscope(build(SMALL), images(), LABEL, lr=0.0)
    with pytest.raises(Refused, match="blocks to look into"):
        microscope(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), images(), LABEL)


def test_the_net_is_left_as_it_was() -> None:
    leaves_model_as_found(lambda model: microscope(model, images(), LABEL, batch_statistics=True))
    leaves_model_as_found(lambda model: microscope(model, images(1), LABEL))
