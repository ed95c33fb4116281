"""Grids of pictures: cells that cannot influence each other, and how much of a map is in the right one."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from resnet.attribution.methods import METHODS, explain
from resnet.errors import Refused
from resnet.nets.model import ResNet, build
from resnet.nets.spec import NetSpec, StageSpec, cifar, plain_twin
from resnet.trust.checks import judge
from resnet.trust.contract import Case
from resnet.trust.grid import Grid, Rest, cut, grids, shares, tiled, untiled

CLASSES = 6
NET = dataclasses.replace(
    cifar(8), stages=(StageSpec(2, 8, 1), StageSpec(1, 16, 2)), stem_width=8, classes=CLASSES, image_size=16
)
NETS = {
    "residual": NET,
    "plain": plain_twin(NET),
    "pre-activation": dataclasses.replace(NET, block="preact-basic"),
    "bottleneck": dataclasses.replace(NET, block="bottleneck"),
}
LAYERS = ["", "conv1", "layer1", "layer1.0", "layer1.0.conv1", "layer2.0"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(CLASSES, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def knowing(spec: NetSpec, images: Tensor) -> ResNet:
    """A net that is certain that image i is of class i: its head asks for the nearest of their features."""
    model = build(spec, 1).eval()
    with torch.no_grad():
        found = model.features(images)["pre_logits"]
        scale = 1000 / found.var()
        model.fc.weight.copy_(scale * found)
        model.fc.bias.copy_(-scale * found.square().sum(1) / 2)
    return model


def whole(model: ResNet, layer: str, values: Tensor, apart: bool) -> Rest:
    _, links = cut(model, layer)
    return Rest(links, values.shape[1], apart).eval().requires_grad_(False)


def test_tiles_go_by_rows_and_come_back() -> None:
    cells = torch.arange(8.0).view(8, 1, 1, 1)
    assert tiled(cells)[:, 0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    cells = torch.rand(12, 3, 4, 5)
    assert torch.equal(untiled(tiled(cells)), cells)
    assert torch.equal(tiled(cells[:4])[0, :, 4:, :5], cells[2])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_the_two_parts_of_a_net_are_the_net_and_apart_each_cell_is_its_own(
    name: str, layer: str, images: Tensor
) -> None:
    model = build(NETS[name], 2).eval()
    before, _ = cut(model, layer)
    alone = model(images[:4])
    apart = tiled(before(images[:4]))
    torch.testing.assert_close(whole(model, layer, apart, True)(apart), alone.view(1, -1), rtol=1e-4, atol=1e-5)
    picture = tiled(images[:4])
    values = before(picture)
    torch.testing.assert_close(whole(model, layer, values, False)(values), model(picture), rtol=1e-4, atol=1e-5)


def test_a_layer_of_the_head_is_refused() -> None:
    for layer in ("fc", "flatten", "avgpool", "nothing"):
        with pytest.raises(Refused, match="before the pooling"):
            cut(build(NET), layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_no_gradient_leaves_a_cell(layer: str, images: Tensor) -> None:
    model = build(NET, 2).eval()
    with torch.no_grad():
        values = tiled(cut(model, layer)[0](images[:4]))
    values.requires_grad_()
    logits = whole(model, layer, values, True)(values)
    for cell in range(4):
        [gradient] = torch.autograd.grad(logits[0, cell * CLASSES + 3], values, retain_graph=True)
        inside = untiled(gradient)
        assert inside[cell].abs().max() > 0
        assert all(bool((inside[other] == 0).all()) for other in range(4) if other != cell)


def test_the_share_is_what_did_not_leak() -> None:
    """Planted ranking (arXiv 2410.02970): a known share of the evidence is outside the cell."""
    for place in range(4):
        for leak in (0.0, 0.1, 0.5, 1.0):
            cells = torch.full((4, 1, 3, 3), leak / 27)
            cells[place] = (1 - leak) / 9
            maps = tiled(cells)[:, 0] - 0.0
            assert shares(maps, torch.tensor([place])).item() == pytest.approx(1 - leak)
    assert shares(-torch.ones(1, 4, 4), torch.tensor([0])).item() == 0, "negative values are no evidence"
    assert shares(torch.ones(1, 4, 4), torch.tensor([2])).item() == 0.25


def test_a_grid_has_its_picture_once_and_each_class_once() -> None:
    classes = torch.tensor([0, 0, 1, 1, 2, 2, 3, 4, 5])
    confident = torch.tensor([True, False] + 7 * [True])
    made = grids(classes, confident, 5, seed=3)
    assert [grid.image for grid in made] == [0, 2, 3, 4], "1 is not confident, and the others are companions"
    for grid in made:
        assert grid.pictures[grid.place] == grid.image
        assert len({int(classes[row]) for row in grid.pictures}) == 4
        assert 1 not in grid.pictures
    assert len({grid.place for seed in range(20) for grid in grids(classes, confident, 1, seed)}) == 4
    assert made == grids(classes, confident, 5, seed=3)
    assert grids(classes[:4], confident[:4], 4, 0) == [], "two classes make no grid"
    assert isinstance(made[0], Grid)


def difull(model: ResNet, images: Tensor, method: str, layer: str, check: str = "difull") -> float:
    found = judge(check, model, Case(images, torch.arange(len(images)), method, layer))
    assert found.random is not None
    assert found.random.mean == pytest.approx(0.25, abs=0.03)
    return found.value


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("layer", ["", "layer1"])
def test_gradients_stay_in_their_cell_at_any_layer(name: str, layer: str, images: Tensor) -> None:
    assert difull(knowing(NETS[name], images), images, "saliency", layer) == pytest.approx(1)


def test_grad_cam_leaks_because_it_averages_the_gradient_over_all_cells(images: Tensor) -> None:
    """The definition: weights from the mean gradient over the whole grid, times the values, which all cells have."""
    model = knowing(NET, images)
    found = judge("difull", model, Case(images, torch.arange(CLASSES), "grad-cam", "layer1"))
    assert 0.1 < found.value < 0.8
    _, links = cut(model, "layer1")
    for example in found.examples:
        values = tiled(cut(model, "layer1")[0](untiled(example.picture[None]))).detach().requires_grad_()
        place = [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)].index(example.box[:2])
        logits = Rest(links, 8, True).eval()(values).view(4, CLASSES)
        [slope] = torch.autograd.grad(logits[place].max(), values)
        expected = (slope.mean((2, 3), keepdim=True) * values).sum(1).relu()[0].detach()
        torch.testing.assert_close(example.map, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
        assert example.value == pytest.approx(shares(expected[None], torch.tensor([place])).item(), abs=1e-4)
    assert [example.title for example in found.examples] == ["best", "median", "worst"]
    assert found.examples[0].value == max(found.each)
    assert found.examples[2].value == min(found.each)


def test_one_picture_is_put_beside_others(images: Tensor) -> None:
    model = knowing(NET, images)
    alone = Case(images[:1], torch.tensor([0]), "saliency", "layer1")
    assert math.isnan(judge("difull", model, alone).value)
    found = judge("difull", model, dataclasses.replace(alone, others=images))
    assert len(found.each) == 1
    assert found.value == pytest.approx(1)
    unsure = build(NET, 2)
    assert math.isnan(judge("difull", unsure, dataclasses.replace(alone, others=images)).value)


def test_the_grid_pointing_game_explains_the_class_in_the_whole_picture(images: Tensor) -> None:
    model = knowing(NET, images)
    found = judge("grid", model, Case(images, torch.arange(CLASSES), "saliency", ""))
    best = found.examples[0]
    assert found.curves is not None
    image = int(found.curves.sort_values("share").image.iloc[-1])
    expected = explain("saliency", model, best.picture[None], image)
    torch.testing.assert_close(best.map[None], expected, rtol=1e-3, atol=1e-4 * float(expected.max()))


def test_nets_of_volumes_and_of_few_classes_are_told_why_not() -> None:
    few = build(dataclasses.replace(NET, classes=3))
    with pytest.raises(Refused, match="shows 4 classes, and this net has 3"):
        judge("difull", few, Case(torch.rand(1, 3, 16, 16), torch.tensor([0]), "saliency"))
    clips = build(dataclasses.replace(NET, frames=4))
    with pytest.raises(Refused, match="clips or volumes"):
        judge("grid", clips, Case(torch.rand(1, 3, 4, 16, 16), torch.tensor([0]), "saliency"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_applies_can_be_judged_in_a_grid(method: str, images: Tensor) -> None:
    model = knowing(NET, images)
    if METHODS[method].reason(model):
        pytest.skip(METHODS[method].reason(model))
    case = Case(images[:2], torch.arange(2), method, "layer1", others=images)
    for check in ("difull", "grid"):
        found = judge(check, model, case)
        assert 0 <= found.value <= 1, found.sentence
