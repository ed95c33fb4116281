"""Deletion, insertion and ROAD: what the net says as a picture loses its cells, the most important ones first.

A cell is a pixel on images of up to `CELLS` pixels along a side, and on larger ones the smallest square of pixels with
which there are no more cells than that. Cells of equal importance go in a random order, so that a constant map counts
as a random one.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.attribution.contract import Passes
from resnet.seeds import generator, seed_of
from resnet.trust.contract import Case, Check, Facts, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, device_generator, random_maps
from resnet.trust.imputation import imputed

STEPS = 20  # of equal size, from the whole picture to none of it
CELLS = 32
BATCH_PIXELS = 2**18  # of the pictures that pass through the net at once
LEAST_FALL = 0.1  # of the score, up or down, from the whole picture to none of it; with less nothing can be measured

Fill = Callable[[Tensor, Tensor], Tensor]  # pictures (B, C, *S), what is removed (B, *S) -> what the net sees


def cell_ranks(maps: Tensor, seed: int) -> Tensor:
    """Ranks (N, *cells) of the cells by their mean in maps (N, *S), 0 for the largest; equal ones at random."""
    side = -(-max(maps.shape[1:]) // CELLS)
    pool = F.avg_pool2d if maps.dim() == 3 else F.avg_pool3d
    means = pool(maps.unsqueeze(1), side, ceil_mode=True)[:, 0]
    flat = means.flatten(1)  # (N, cells)
    shuffled = torch.rand(flat.shape, generator=generator(seed)).argsort(1).to(flat.device)
    order = shuffled.gather(1, flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view(means.shape)


def removed(ranks: Tensor, share: float, size: torch.Size) -> Tensor:
    """Which pixels (N, *S) are gone when that share of the cells is, the first by rank first."""
    side = -(-max(size) // CELLS)
    gone = ranks < round(share * ranks[0].numel())
    for dim, length in enumerate(size, start=1):
        gone = gone.repeat_interleave(side, dim).narrow(dim, 0, length)
    return gone


def score(model: nn.Module, images: Tensor, target: Tensor, against: int | None) -> Tensor:
    """Probability (B,) of the targets among all classes, or where there is one `against`, among these two."""
    logits = model(images).float()
    own = logits.gather(1, target[:, None])[:, 0]
    return (own - (logits.logsumexp(1) if against is None else own.logaddexp(logits[:, against]))).exp()


def curve(model: nn.Module, case: Case, ranks: Tensor, fill: Fill) -> Tensor:
    """Scores (N, STEPS + 1) as cells are removed by rank, from none to all."""
    size = case.images.shape[2:]
    shares = [step / STEPS for step in range(STEPS + 1)]
    which = [(row, share) for row in range(len(ranks)) for share in shares]
    batch = max(1, BATCH_PIXELS // size.numel())
    found = []
    for start in range(0, len(which), batch):
        rows, part = zip(*which[start : start + batch], strict=True)
        gone = torch.cat([removed(ranks[[row]], share, size) for row, share in zip(rows, part, strict=True)])
        seen = fill(case.images[list(rows)], gone)
        found.append(score(model, seen, case.target[list(rows)], case.against))
    return torch.cat(found).view(len(ranks), -1)


def area(scores: Tensor) -> Tensor:
    """Area (...) under curves (..., STEPS + 1) over shares from 0 to 1, by trapezoids."""
    return torch.trapezoid(scores, dx=1 / STEPS)


def deletion(model: nn.Module, case: Case) -> Judging:
    """Area under the score as the most important cells are blanked first."""
    return (yield from _judged(model, case, _blank(case), "blanked"))


def insertion(model: nn.Module, case: Case) -> Judging:
    """Area under the score as the most important cells are put first into a blank picture.

    The paper begins with a blurred picture; a blank one needs no choice of a width.
    """
    return (yield from _judged(model, case, _blank(case), "shown"))


def road(model: nn.Module, case: Case) -> Judging:
    """Area under the score as the most important cells are imputed first: deletion that leaves no blank shapes."""
    blank, draws = case.blanked(), device_generator(case.images, case.seed)
    return (yield from _judged(model, case, lambda x, gone: imputed(x, gone, blank, draws), "imputed"))


def _blank(case: Case) -> Fill:
    blank = case.blanked()
    return lambda images, gone: torch.where(gone.unsqueeze(1), blank, images)


def _judged(model: nn.Module, case: Case, fill: Fill, doing: str) -> Judging:
    """A case's maps beside random ones; `doing`: blanked, imputed or shown, which is blanking read from its end."""
    curves: list[Tensor] = []
    known = case.shared.get(doing)
    for draw, maps in enumerate([case.maps, *(random_maps(case, draw) for draw in range(DRAWS) if known is None)]):
        scores = curve(model, case, cell_ranks(-maps if doing == "shown" else maps, seed_of(case.seed, draw)), fill)
        curves.append(scores.flip(1) if doing == "shown" else scores)
        yield len(curves) / (DRAWS + 1)
    random = torch.stack(curves[1:]) if known is None else known  # (DRAWS, N, STEPS + 1)
    own = curves[0]  # (N, STEPS + 1)
    case.shared[doing] = random
    each, by_chance = area(own), area(random)  # (N,), (DRAWS, N)
    spread = Spread.of(by_chance.mean(1))
    higher = doing == "shown"
    verdict, place = _compared(each - by_chance.mean(0), spread, higher, float((own[:, 0] - own[:, -1]).abs().mean()))
    sentence = (
        f"With the most important parts {doing} first, the score averages {each.mean():.2f}; in a random order "
        f"{spread}. {place}"
    )
    return Finding(float(each.mean()), verdict, sentence, spread, tuple(each.tolist()), _table(doing, own, random))


def _compared(gains: Tensor, random: Spread, higher: bool, fall: float) -> tuple[Verdict, str]:
    """What the areas less those of random orders (N,) say, where without the picture the score is `fall` away."""
    gain = float(gains.mean())
    by_image = 2 * float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else 0.0  # two standard errors
    if fall < LEAST_FALL:
        return "unclear", f"Without the picture the score is only {fall:.2f} away: too little to tell maps apart by."
    if abs(gain) <= by_image or random.low <= random.mean + gain <= random.high:
        return "unclear", "The map's order cannot be told from a random one."
    if (gain > 0) == higher:
        return "good", "The map's order finds what the net uses better than chance does."
    return "bad", "The map's order is worse than a random one."


def _table(doing: str, own: Tensor, random: Tensor) -> pd.DataFrame:
    """Columns: the share that is blanked, imputed or shown; map, random, and low and high of the random orders."""
    draws = random.mean(1)  # (DRAWS, STEPS + 1)
    columns = {"map": own.mean(0), "random": draws.mean(0), "low": draws.amin(0), "high": draws.amax(0)}
    shares = [step / STEPS for step in range(STEPS + 1)]
    return pd.DataFrame({doing: shares} | {name: values.tolist() for name, values in columns.items()})


def _passes(facts: Facts, own: Passes) -> Passes:
    return Passes(own.forward + (STEPS + 1) * (DRAWS + 1), own.backward)


def _is_flat(model: nn.Module, method: str) -> str:
    volume = any(isinstance(module, nn.Conv3d) for module in model.modules())
    return "ROAD fills pictures from their neighbours, and this net reads clips or volumes." if volume else ""


DELETION = Check(
    title="Deletion",
    function=deletion,
    passes=_passes,
    reading="The net's score as the picture is blanked, the most important parts first: the lower the area, the "
    "better. A net that never saw blank patches may fail for them and not for what is missing: compare ROAD.",
    source="Petsiuk et al. 2018, arXiv 1806.07421",
    higher_is_better=False,
)
INSERTION = Check(
    title="Insertion",
    function=insertion,
    passes=_passes,
    reading="The net's score as the picture is uncovered, the most important parts first: the higher the area, the "
    "better.",
    source="Petsiuk et al. 2018, arXiv 1806.07421, from a blank picture instead of a blurred one",
    higher_is_better=True,
)
ROAD = Check(
    title="ROAD",
    function=road,
    passes=_passes,
    reading="Deletion, but what is taken away is filled in from its surroundings, with a little noise, so that the "
    "shape of the hole tells the net nothing: the lower the area, the better.",
    source="Rong et al. 2022, arXiv 2202.00449",
    higher_is_better=False,
    reason=_is_flat,
)
