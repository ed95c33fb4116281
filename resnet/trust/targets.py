"""Target sensitivity: is the map of another class another map?"""

import math

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.attribution.methods import explain
from resnet.trust.contract import Case, Check, Facts, Finding, Judging, Verdict
from resnet.trust.similarity import NO_ORDER, by_chance, spearman

OTHERS = 4  # classes beside the target, the likeliest ones
DIFFERENT, SAME = 0.5, 0.9  # rank correlations: one object may be evidence for two classes, so some likeness is right


def others(logits: Tensor, case: Case) -> Tensor:
    """The likeliest classes (N, up to OTHERS) beside the target and what it is held against."""
    left = logits.scatter(1, case.target[:, None], -torch.inf)
    taken = 1
    if case.against is not None:
        left[:, case.against] = -torch.inf
        taken = 2
    return left.topk(min(OTHERS, logits.shape[1] - taken), dim=1).indices


def sensitivity(model: nn.Module, case: Case) -> Judging:
    """Mean rank correlation of the target's map with those of the likeliest other classes."""
    classes = others(model(case.images), case)  # (N, k)
    likeness: list[Tensor] = []
    for other in classes.T:
        maps = explain(case.method, model, case.images, other, case.layer, case.options, case.against)
        likeness.append(spearman(case.maps, maps))
        yield len(likeness) / classes.shape[1]
    if not likeness:
        return Finding(float("nan"), "unclear", "The net has no other class.")
    each = torch.stack(likeness)  # (k, N)
    value, random = float(each.nanmean()), by_chance(case, case.maps)
    if math.isnan(value):
        return Finding(value, "unclear", NO_ORDER, random, tuple(each.mean(0).tolist()))
    verdict: Verdict = "bad" if value > SAME else "good" if value < DIFFERENT else "unclear"
    meaning = {
        "bad": "It shows what is in the picture, not what speaks for this class.",
        "good": "It tells the classes apart.",
        "unclear": "It tells the classes apart in part, which one object with several likely names can explain.",
    }[verdict]
    sentence = (
        f"The maps of the {len(each)} likeliest other classes correlate with this one at {value:.2f}; random maps do "
        f"at {random}."
    )
    return Finding(value, verdict, f"{sentence} {meaning}", random, tuple(each.mean(0).tolist()), _table(classes, each))


def _table(classes: Tensor, each: Tensor) -> pd.DataFrame:
    """Columns: image, other (a class), spearman."""
    rows = [
        (image, int(classes[image, rank]), float(each[rank, image]))
        for image in range(len(classes))
        for rank in range(len(each))
    ]
    return pd.DataFrame(rows, columns=["image", "other", "spearman"])


def _passes(facts: Facts, own: Passes) -> Passes:
    maps = 1 + min(OTHERS, facts.classes - 1)
    return Passes(1 + maps * own.forward, maps * own.backward)


TARGETS = Check(
    title="Another class, another map?",
    function=sensitivity,
    passes=_passes,
    reading="How alike the maps of the likeliest classes are: at 1 the map is the same whatever it is asked for, at -1 "
    "what speaks for one class speaks against the other.",
    source="as in Adebayo et al. 2018, arXiv 1810.03292, with classes in place of weights",
    higher_is_better=False,
)
