"""The in-domain single deletion score: do the patches that the map names change the logit the most?"""

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.data.blanking import GRID, patches_of
from resnet.trust.contract import Case, Check, Facts, Finding, Judging, Spread
from resnet.trust.control import DRAWS, beats, random_maps
from resnet.trust.similarity import spearman


def patch_sums(maps: Tensor) -> Tensor:
    """The sum of maps (N, *S) in each patch of the grid: (N, patches)."""
    patches = patches_of(maps.shape[1:], device=maps.device).flatten()
    sums = torch.zeros(len(maps), GRID ** (maps.dim() - 1), dtype=torch.float64, device=maps.device)
    return sums.index_add_(1, patches, maps.flatten(1).double())


def logit(model: nn.Module, images: Tensor, case: Case) -> Tensor:
    """What a case's maps explain (N,): the target's logit, or its difference to the other class."""
    logits = model(images).float()
    own = logits.gather(1, case.target[:, None])[:, 0]
    return own if case.against is None else own - logits[:, case.against]


def single_deletion(model: nn.Module, case: Case) -> Judging:
    """Rank correlation of each patch's logit drop, when it alone is blanked, with the map's sum in it."""
    patches = patches_of(case.images.shape[2:], device=case.images.device)
    whole, blank, drops = logit(model, case.images, case), case.blanked(), []
    count = GRID ** patches.dim()
    for patch in range(count):
        drops.append(whole - logit(model, torch.where(patches == patch, blank, case.images), case))
        yield (patch + 1) / count
    drop = torch.stack(drops, 1)  # (N, patches)
    each = spearman(patch_sums(case.maps), drop).nan_to_num(0)  # a constant map has no order
    random = Spread.of(torch.stack([spearman(patch_sums(random_maps(case, d)), drop).mean() for d in range(DRAWS)]))
    value = float(each.mean())
    sentence = (
        f"The map's sum in a patch and the logit's drop without that patch have a rank correlation of {value:.2f}; "
        f"those of random maps have {random}."
    )
    if not case.masked:
        sentence += " Not comparable between nets: this one never saw blanked patches in training."
    means = {"map": patch_sums(case.maps).mean(0).tolist(), "drop": drop.mean(0).tolist()}
    table = pd.DataFrame({"patch": range(count)} | means)
    return Finding(value, beats(value, random), sentence, random, tuple(each.tolist()), table)


def _passes(facts: Facts, own: Passes) -> Passes:
    return Passes(own.forward + 1 + GRID ** len(facts.size), own.backward)


SINGLE = Check(
    title="Single deletion (IDSDS)",
    function=single_deletion,
    passes=_passes,
    reading="Rank correlation over the patches of a 4 x 4 grid, 1 where the map orders them by what the logit loses "
    "without each. On nets trained with blanked patches it can be compared across nets and methods.",
    source="Hesse et al. 2024, arXiv 2407.11910",
    higher_is_better=True,
)
