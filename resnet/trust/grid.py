"""Impossible attribution: pictures in a grid, where the map should stay in the cell of the class it explains.

Every method is judged at one layer: a net's links up to it make the values of the whole grid, and what is explained is
the rest of the net on these values, so that no map is enlarged and none has a choice of where to look.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.attribution.methods import explain
from resnet.errors import Refused
from resnet.nets.model import ResNet
from resnet.seeds import generator
from resnet.trust.contract import Case, Check, Example, Facts, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, beats, random_maps

SIDE = 2  # cells along each side of a grid
CONFIDENT = 0.9  # softmax of the class, at least, of a picture that is put into a grid
FAITHFUL, WRONG = 0.9, 0.5  # shares of the evidence in the right cell, where all other is impossible
BATCH_PIXELS = 2**16  # of the grids that are explained at once


def tiled(cells: Tensor, side: int = SIDE) -> Tensor:
    """(N side², C, h, w), by rows -> (N, C, side h, side w)."""
    n, (c, h, w) = len(cells) // side**2, cells.shape[1:]
    return cells.view(n, side, side, c, h, w).permute(0, 3, 1, 4, 2, 5).reshape(n, c, side * h, side * w)


def untiled(grids: Tensor, side: int = SIDE) -> Tensor:
    """(N, C, side h, side w) -> (N side², C, h, w): the inverse of `tiled`."""
    return Untile(side)(grids)


class Untile(nn.Sequential):
    """`untiled` as modules, without arithmetic on shapes, so that torch.fx can trace a net that has it."""

    def __init__(self, side: int = SIDE) -> None:
        super().__init__(nn.Unflatten(3, (side, -1)), nn.Unflatten(2, (side, -1)))

    def forward(self, grids: Tensor) -> Tensor:
        return super().forward(grids).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class Rest(nn.Module):
    """What a net does with the values (N, c, side h, side w) of its `seam`, the layer at which a grid is explained.

    `apart` (DiFull): each cell goes through alone, to logits of its own, (N, side² classes) by cells. Otherwise (the
    grid pointing game) the grid is one picture, (N, classes).
    """

    def __init__(self, links: OrderedDict[str, nn.Module], channels: int, apart: bool) -> None:
        super().__init__()
        # The identity as a convolution, because methods refuse nets that have none.
        self.seam = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        nn.init.ones_(self.seam.weight)
        self.cells = Untile() if apart else nn.Identity()
        self.links = nn.Sequential(links)
        self.heads = nn.Sequential(nn.Unflatten(0, (-1, SIDE**2)), nn.Flatten()) if apart else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        return self.heads(self.links(self.cells(self.seam(values))))


def cut(model: ResNet, layer: str) -> tuple[nn.Sequential, OrderedDict[str, nn.Module]]:
    """The net's links up to the layer, or to the end of the block or stage that it is in or names, and the others.

    "" cuts before the first. Refused for layers of the head.
    """
    links: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in model.named_children():
        inner = child.named_children() if isinstance(child, nn.Sequential) else [("", child)]
        links |= {f"{name}.{position}".rstrip("."): module for position, module in inner}
    names = list(links)
    inside = [i for i, name in enumerate(names) if f"{name}.".startswith(f"{layer}.") or layer.startswith(f"{name}.")]
    first = 0 if not layer else inside[-1] + 1 if inside else len(names)
    if first > names.index("avgpool"):
        raise Refused("A grid is explained at a layer before the pooling.", repr(layer), ", ".join(names))
    before = nn.Sequential(*(links[name] for name in names[:first]))
    return before, OrderedDict((name.replace(".", "-"), links[name]) for name in names[first:])


class Grid(NamedTuple):
    """One picture among others of other classes: `pictures` (side²,) are rows of a pool, `place` is its cell's."""

    image: int  # of the case
    place: int
    pictures: tuple[int, ...]


def grids(classes: Tensor, confident: Tensor, own: int, seed: int) -> list[Grid]:
    """A grid for each of the first `own` pictures that is among the `confident` (P,), if there are enough classes.

    Its companions are confident ones of other classes (P,), each class once, drawn by the seed and the picture.
    """
    usable, found = torch.where(confident)[0].tolist(), []
    for image in [row for row in usable if row < own]:
        draw = generator(seed, image)
        chosen = {int(classes[image]): image}
        for position in torch.randperm(len(usable), generator=draw).tolist():
            if len(chosen) < SIDE**2:
                chosen.setdefault(int(classes[usable[position]]), usable[position])
        if len(chosen) == SIDE**2:
            place = int(torch.randint(SIDE**2, (), generator=draw))
            others = list(chosen.values())[1:]
            found.append(Grid(image, place, (*others[:place], image, *others[place:])))
    return found


def shares(maps: Tensor, places: Tensor) -> Tensor:
    """The share (N,) of maps' (N, H, W) positive values that is in the cell `places` (N,), 0 where none is positive."""
    cells = untiled(maps.clamp_min(0).double().unsqueeze(1)).flatten(1).sum(1).view(len(maps), -1)
    return (cells.gather(1, places[:, None])[:, 0] / cells.sum(1).clamp_min(1e-30)).float()


def _parts(model: ResNet, case: Case, apart: bool) -> Iterator[tuple[list[Grid], Tensor, Tensor, float]]:
    """Some grids at a time: what they are, their pictures and maps, and how much is done after them."""
    pool = torch.cat([case.images, case.others.to(case.images)]) if len(case.others) else case.images
    probabilities = torch.cat([model(part).softmax(1) for part in pool.split(64)])
    confidence, classes = probabilities.max(1)
    classes[: len(case.images)] = case.target
    right = probabilities.gather(1, classes[:, None])[:, 0] >= confidence
    made = grids(classes.cpu(), (right & (confidence >= CONFIDENT)).cpu(), len(case.images), case.seed)
    before, links = cut(model, case.layer)
    step = max(1, BATCH_PIXELS // (SIDE**2 * pool[0, 0].numel()))
    for start in range(0, len(made), step):
        part = made[start : start + step]
        cells = pool[[row for grid in part for row in grid.pictures]]
        values = tiled(before(cells)) if apart else before(tiled(cells))
        rest = Rest(links, values.shape[1], apart).to(values).eval().requires_grad_(False)
        places = torch.tensor([grid.place for grid in part], device=values.device)
        targets = classes[[grid.image for grid in part]] + (places * probabilities.shape[1] if apart else 0)
        maps = explain(case.method, rest, values, targets, "seam", case.options)
        yield part, tiled(cells).cpu(), maps.cpu(), (start + len(part)) / len(made)


def _judged(apart: bool, model: nn.Module, case: Case) -> Judging:
    """Explains the target's logit alone, also where the case holds it against another's."""
    if not isinstance(model, ResNet):
        raise Refused("Grids are explained on nets that are built here.")
    made, pictures, maps = [], [], []
    yield 0.0
    try:
        for part, seen, found, share in _parts(model, case, apart):
            made += part
            pictures.append(seen)
            maps.append(found)
            yield share
    except Refused as refused:
        return Finding(float("nan"), "unclear", str(refused))
    if not made:
        few = f"A grid needs {SIDE**2} pictures of different classes that the net gets right with {CONFIDENT:.0%}."
        return Finding(float("nan"), "unclear", few)
    return _finding(apart, case, made, torch.cat(pictures), torch.cat(maps))


def _finding(apart: bool, case: Case, made: list[Grid], pictures: Tensor, maps: Tensor) -> Finding:
    places = torch.tensor([grid.place for grid in made])
    each = shares(maps, places)
    draws = [shares(random_maps(dataclasses.replace(case, maps=maps), draw), places).mean() for draw in range(DRAWS)]
    value, random = float(each.mean()), Spread.of(torch.stack(draws))
    verdict: Verdict = beats(value, random)
    if apart:
        verdict = "good" if value >= FAITHFUL else "bad" if value < WRONG else "unclear"
    meaning = "All else is wrong: the other cells cannot change this logit." if apart else "The net sees all cells."
    sentence = (
        f"{value:.0%} of the positive evidence for a class is in its cell of the grid (worst {each.min():.0%}, median "
        f"{each.median():.0%}, best {each.max():.0%}; random {random}). {meaning}"
    )
    order = each.argsort(descending=True, stable=True).tolist()
    ranks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    examples = tuple(
        Example(title, float(each[i]), pictures[i], maps[i], _box(made[i].place)) for title, i in ranks.items()
    )
    table = pd.DataFrame({"image": [grid.image for grid in made], "place": places, "share": each})
    return Finding(value, verdict, sentence, random, tuple(each.tolist()), table, examples)


def _box(place: int) -> tuple[float, float, float, float]:
    row, column = divmod(place, SIDE)
    return row / SIDE, column / SIDE, (row + 1) / SIDE, (column + 1) / SIDE


def _passes(facts: Facts, own: Passes) -> Passes:
    cells = SIDE**2
    return Passes(own.forward + cells * (1 + own.forward) + 1, own.backward * (1 + cells))


def _reason(model: nn.Module, method: str) -> str:
    if any(isinstance(module, nn.Conv3d) for module in model.modules()):
        return "Grids are made of pictures, and this net reads clips or volumes."
    if not isinstance(model, ResNet):
        return "Grids are explained on nets that are built here."
    if model.fc.out_features < SIDE**2:
        return f"A grid shows {SIDE**2} classes, and this net has {model.fc.out_features}."
    return ""


DIFULL = Check(
    title="Impossible attribution (DiFull)",
    function=partial(_judged, True),
    passes=_passes,
    reading="A grid of 2 x 2 pictures of different classes, each seen by the net alone: the share of the positive "
    "evidence that is in the cell of its class. Random maps get a quarter, and a faithful method gets 1.",
    source="Rao et al. 2022, arXiv 2205.10435",
    higher_is_better=True,
    reason=_reason,
)
GRID_POINTING = Check(
    title="Grid pointing game",
    function=partial(_judged, False),
    passes=_passes,
    reading="The same grid, seen by the net as one picture: the share of the positive evidence that is in the cell of "
    "its class. The net may use the other cells, so that a faithful method may get less than 1.",
    source="Rao et al. 2022, arXiv 2205.10435; Böhle et al. 2021, arXiv 2104.00032",
    higher_is_better=True,
    reason=_reason,
)
