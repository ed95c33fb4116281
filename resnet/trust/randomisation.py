"""Weight randomisation: does the map change when the net forgets what it learned?"""

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.attribution.methods import explain
from resnet.seeds import generator
from resnet.trust.contract import Case, Check, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, random_maps
from resnet.trust.similarity import NO_ORDER, by_chance, spearman, ssim

CHUNKS = 6  # in which the layers below the head are re-initialised
UNRELATED, ALIKE = 0.3, 0.9  # rank correlations: a tenth and four fifths of the variance; no paper gives thresholds
NORMS = nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm
HEADS = 3  # draws of the last layer
BINS = 100  # of the histogram whose entropy is a map's complexity


def layers(model: nn.Module) -> list[str]:
    """Modules with parameters of their own, in the order in which the net lists them."""
    return [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]


def chunks(names: Sequence[str]) -> list[list[str]]:
    """The last layer alone, and those before it in up to CHUNKS groups of equal size, from the top down."""
    *below, head = names
    size = max(1, math.ceil(len(below) / CHUNKS))
    down = below[::-1]
    return [[head], *(down[start : start + size] for start in range(0, len(down), size))]


@torch.no_grad()
def reinitialise(module: nn.Module, draws: torch.Generator) -> None:
    """A layer's own parameters as before training: weights He normal (fan-in), norms as the identity, biases 0.

    Norms lose their running statistics; multipliers of other kinds keep their values. With this gain a signal keeps
    its size at any depth, while torch's own start would let it die in a deep plain net.
    """
    norm = isinstance(module, NORMS)
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1 and not norm:
            deviation = math.sqrt(2 / parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * deviation)
        elif norm or name == "bias":
            parameter.fill_(float(name == "weight"))
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.reset_running_stats()


def _cascade(model: nn.Module, case: Case, parts: Sequence[Sequence[str]], draws: torch.Generator) -> Iterator[Tensor]:
    """The case's maps by a copy of the net, as one part after the other is re-initialised and stays so."""
    model = copy.deepcopy(model)
    for part in parts:
        for name in part:
            reinitialise(model.get_submodule(name), draws)
        yield explain(case.method, model, case.images, case.target, case.layer, case.options, case.against)


def head(model: nn.Module, case: Case) -> Judging:
    """Rank correlation of |map| before and after the last layer is re-initialised, the mean over several times."""
    likeness: list[Tensor] = []
    for time in range(HEADS):
        [maps] = _cascade(model, case, chunks(layers(model))[:1], generator(case.seed, time))
        likeness.append(spearman(case.maps.abs(), maps.abs()))
        yield (time + 1) / HEADS
    return _compared(case, torch.stack(likeness).mean(0), "the last layer is re-initialised", None)


def cascade(model: nn.Module, case: Case) -> Judging:
    """Rank correlation of |map| before and after all layers are re-initialised, from the top down."""
    parts = chunks(layers(model))
    own = case.maps.abs()
    rows = [("as trained", 1.0, 1.0)]
    each = torch.ones(len(own))
    for part, maps in zip(parts, _cascade(model, case, parts, generator(case.seed)), strict=True):
        each = spearman(own, maps.abs())
        rows.append((part[-1], float(each.nanmean()), float(ssim(own, maps.abs()).mean())))
        yield (len(rows) - 1) / len(parts)
    table = pd.DataFrame(rows, columns=["down to", "spearman", "ssim"])
    return _compared(case, each, "all layers are re-initialised", table)


def _compared(case: Case, each: Tensor, when: str, table: pd.DataFrame | None) -> Finding:
    value, random = float(each.nanmean()), by_chance(case, case.maps.abs())
    if math.isnan(value):
        return Finding(value, "unclear", NO_ORDER, random, tuple(each.tolist()), table)
    verdict: Verdict = "bad" if value > ALIKE else "good" if value < UNRELATED else "unclear"
    meaning = {
        "bad": "The map hardly depends on what the net learned there.",
        "good": "The map depends on what the net learned there, as noise would too.",
        "unclear": "The map depends on what the net learned there in part.",
    }[verdict]
    sentence = f"When {when}, the map's ranks correlate with those before at {value:.2f}; random maps do at {random}."
    return Finding(value, verdict, f"{sentence} {meaning}", random, tuple(each.tolist()), table)


def entropies(maps: Tensor) -> Tensor:
    """A map's complexity (N,): the entropy in nats of the histogram of its values, in BINS bins from least to most."""
    counts = torch.stack([torch.histc(one, BINS) for one in maps.double().flatten(1).cpu()])  # (N, BINS)
    return torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1)


def complexity(model: nn.Module, case: Case) -> Judging:
    """Relative rise of a map's complexity as all layers are re-initialised: eMPRT."""
    yield 0.0
    [maps] = _cascade(model, case, [layers(model)], generator(case.seed))
    each = rise(case.maps, maps)
    noise = [random_maps(case, draw) for draw in range(DRAWS + 1)]
    random = Spread.of(torch.stack([rise(*pair).mean() for pair in pairwise(noise)]))
    value = float(each.nanmean())
    if math.isnan(value):
        return Finding(value, "unclear", NO_ORDER, random, tuple(each.tolist()))
    verdict: Verdict = "good" if value > random.high else "unclear"
    meaning = {
        "good": "What the net learned had put order into the map.",
        "unclear": "What the net learned shows no order in the map; coarse maps have little to lose.",
    }[verdict]
    sentence = (
        f"When all layers are re-initialised, the map's entropy changes by {value:+.1%}; random maps' by {random}."
    )
    return Finding(value, verdict, f"{sentence} {meaning}", random, tuple(each.tolist()))


def rise(before: Tensor, after: Tensor) -> Tensor:
    """(N,); NaN where a map is constant, and so has no entropy: ReLU blanks many a Grad-CAM of a random net."""
    start, end = (entropy.masked_fill(entropy == 0, torch.nan) for entropy in (entropies(before), entropies(after)))
    return (end - start) / start


def _learned(model: nn.Module, method: str) -> str:
    return "" if len(layers(model)) > 1 else "There are no layers to re-initialise."


WEAKNESS = (
    "The test is easily passed: noisy maps change most, whether or not they are right (Binder et al. 2023, "
    "arXiv 2211.12486). So a map that fails is not about what the net learned, and one that passes is not proven."
)

HEAD = Check(
    title="Last layer re-initialised",
    function=head,
    passes=lambda facts, own: Passes((1 + HEADS) * own.forward, (1 + HEADS) * own.backward),
    reading=f"How much of the map is left when the layer that tells the classes apart is random: 1 is all. {WEAKNESS}",
    source="Adebayo et al. 2018, arXiv 1810.03292",
    higher_is_better=False,
    reason=_learned,
)
CASCADE = Check(
    title="All layers re-initialised",
    function=cascade,
    passes=lambda facts, own: Passes((CHUNKS + 2) * own.forward, (CHUNKS + 2) * own.backward),
    reading=f"How much of the map is left as the net's layers become random, from the top down: 1 is all. {WEAKNESS}",
    source="Adebayo et al. 2018, arXiv 1810.03292",
    higher_is_better=False,
    reason=_learned,
)
COMPLEXITY = Check(
    title="Rise of complexity (eMPRT)",
    function=complexity,
    passes=lambda facts, own: Passes(2 * own.forward, 2 * own.backward),
    reading="By how much the map's histogram gets more even when the net is random: above 0, what the net learned had "
    "put order into the map. It takes one random net and compares no pixels, so noise gains nothing.",
    source="Hedström et al. 2024, arXiv 2401.06465",
    higher_is_better=True,
    reason=_learned,
)
