"""Does the map lie on the object? For pictures whose objects' masks are known."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.attribution.contract import Passes
from resnet.trust.contract import Case, Check, Facts, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, beats, random_maps

TOLERANCE = 15 / 224  # of a picture's side, around the object (Zhang et al. 2018, arXiv 1608.00507)

Measure = Callable[[Tensor, Tensor], Tensor]  # maps and objects (N, *S) -> a share (N,)


def near(objects: Tensor, radius: int) -> Tensor:
    """Which pixels (N, *S) are within `radius` pixels of an object's, by the distance of their centres."""
    line = torch.arange(-radius, radius + 1, device=objects.device)
    squares = torch.stack(torch.meshgrid(*[line**2] * (objects.dim() - 1), indexing="ij"))
    ball = squares.sum(0) <= radius**2
    conv = F.conv2d if objects.dim() == 3 else F.conv3d
    return conv(objects.float().unsqueeze(1), ball[None, None].float(), padding=radius)[:, 0] > 0.5


def pointing(maps: Tensor, objects: Tensor, radius: int | None = None) -> Tensor:
    """1 where the brightest pixel is on the object or within `radius` of it, else 0: (N,).

    Where several are the brightest, the share of them; the radius is by default TOLERANCE of the side.
    """
    radius = round(TOLERANCE * maps.shape[-1]) if radius is None else radius
    flat, hit = maps.flatten(1), near(objects, radius).flatten(1)
    brightest = flat == flat.amax(1, keepdim=True)
    return (brightest & hit).sum(1) / brightest.sum(1)


def mass(maps: Tensor, objects: Tensor) -> Tensor:
    """The share of the positive values that is on the object (N,), 0 where no value is positive."""
    positive = maps.clamp_min(0).double().flatten(1)
    total = positive.sum(1)
    return ((positive * objects.flatten(1)).sum(1) / total.clamp_min(1e-30)).float()


def top(maps: Tensor, objects: Tensor) -> Tensor:
    """The share of the k brightest pixels that is on the object (N,), where k is the object's area.

    Of equal pixels at the edge of the k, it is what a random choice among them is expected to get.
    """
    flat, on = maps.flatten(1), objects.flatten(1)
    area = on.sum(1, keepdim=True)
    edge = flat.sort(1, descending=True).values.gather(1, (area - 1).clamp_min(0))
    above, at = flat > edge, flat == edge
    left = area[:, 0] - above.sum(1)
    found = (above & on).sum(1) + left * (at & on).sum(1) / at.sum(1)
    return found / area[:, 0].clamp_min(1)


def _judged(measure: Measure, what: str, model: nn.Module, case: Case) -> Judging:
    """A measure of a case's maps beside that of random ones."""
    yield 0.0
    if case.objects.shape != case.maps.shape:
        return Finding(float("nan"), "unclear", "Nobody has marked the object in this picture.")
    objects = case.objects.to(case.maps.device)
    each = measure(case.maps, objects)
    random = Spread.of(torch.stack([measure(random_maps(case, draw), objects).mean() for draw in range(DRAWS)]))
    value = float(each.mean())
    verdict: Verdict = "good" if beats(value, random) == "good" else "unclear"  # for the net may use the background
    return Finding(value, verdict, what.format(value, random), random, tuple(each.tolist()))


def _passes(facts: Facts, own: Passes) -> Passes:
    return own


POINTING = Check(
    title="Pointing game",
    function=partial(_judged, pointing, "The brightest pixel is on the object, or near it, in {:.0%}; random: {}."),
    passes=_passes,
    reading="How often the brightest pixel is on the object or a few pixels beside it: 1 is always. A net may use the "
    "background, so a faithful map may score less.",
    source="Zhang et al. 2018, arXiv 1608.00507",
    higher_is_better=True,
    by_masks=True,
)
MASS = Check(
    title="Mass on the object",
    function=partial(_judged, mass, "{:.0%} of the positive evidence is on the object; random: {}."),
    passes=_passes,
    reading="The share of the map's positive values that is on the object. A constant map gets the object's share of "
    "the picture.",
    source="relevance mass accuracy, Arras et al. 2021, arXiv 2003.07258",
    higher_is_better=True,
    by_masks=True,
)
TOP = Check(
    title="Brightest pixels on the object",
    function=partial(_judged, top, "{:.0%} of the brightest pixels, as many as the object has, are on it; random: {}."),
    passes=_passes,
    reading="The share of the brightest pixels that is on the object, as many pixels as the object has: 1 is the "
    "object itself. A constant map gets the object's share of the picture.",
    source="top-k intersection: relevance rank accuracy, Arras et al. 2021, arXiv 2003.07258",
    higher_is_better=True,
    by_masks=True,
)
