"""What can be said of a map by looking at its numbers."""

import torch
from torch import Tensor, nn

from resnet.attribution.methods import METHODS
from resnet.trust.contract import Case, Check, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, random_maps


def broken(maps: Tensor) -> str:
    """Why maps (N, *S) cannot be judged, in a sentence, or ""."""
    count = int((~maps.isfinite()).flatten(1).any(1).sum())
    of = f"{count} of {len(maps)} maps hold" if len(maps) > 1 else "The map holds"
    return f"{of} NaN or infinity: the net's activations or gradients overflow on this picture." if count else ""


def negative_share(maps: Tensor) -> Tensor:
    """Share (N,) of a map's magnitude that is negative, NaN where the map is 0 everywhere."""
    total = maps.abs().flatten(1).sum(1)
    return (-maps).clamp_min(0).flatten(1).sum(1) / total.masked_fill(total == 0, torch.nan)


def content(model: nn.Module, case: Case) -> Judging:
    """The share of negative evidence; a sentence where maps are blank or constant."""
    yield 0.0
    each = negative_share(case.maps)
    value = float(each.nanmean())
    random = Spread.of(torch.stack([negative_share(random_maps(case, draw)).mean() for draw in range(DRAWS)]))
    verdict, sentence = _described(case, value)
    return Finding(value, verdict, sentence, random, tuple(each.tolist()))


def _described(case: Case, value: float) -> tuple[Verdict, str]:
    flat = case.maps.flatten(1)  # (N, P)
    blank = flat.eq(0).all(1)
    constant = flat.amax(1).eq(flat.amin(1)) & ~blank
    method = METHODS[case.method]
    if blank.any():
        return "bad", f"{_count(blank, 'blank')} {method.blank}"
    if constant.any():
        return "bad", f"{_count(constant, 'the same everywhere')} No part of the picture stands out."
    if not method.signed:
        return "good", "The map has values other than 0. It cannot show evidence against the class."
    return "good", f"{value:.0%} of the map's magnitude is evidence against the class."


def _count(which: Tensor, what: str) -> str:
    if len(which) == 1:
        return f"The map is {what}."
    return f"{int(which.sum())} of {len(which)} maps are {what}."


CONTENT = Check(
    title="What the map holds",
    function=content,
    passes=lambda facts, own: own,
    reading="The share of the map that is evidence against the class. It says how to read the map, not whether it is "
    "right; a blank map says nothing.",
    source="arithmetic on the map",
    higher_is_better=False,
)
