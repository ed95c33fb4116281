"""Completeness: do the parts of a map add up to what the net computed?"""

import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.attribution.methods import METHODS
from resnet.seeds import generator
from resnet.trust.contract import Case, Check, Facts, Finding, Judging, Spread, Verdict
from resnet.trust.control import DRAWS, random_maps

FROM_BLANK = "integrated-gradients", "deep-lift"  # from a picture of zeros
FROM_NOISE = "expected-gradients"  # from normal noise
AT_LAYER = "grad-cam", "hires-cam"  # from zeros in place of the layer's output
SAMPLES = 64  # noise pictures
CLOSE, FAR = 0.05, 0.25  # relative errors


def completeness(model: nn.Module, case: Case) -> Judging:
    """Median relative error of a map's sum: |sum - (f(x) - f(baseline))| / |f(x) - f(baseline)|, f the logit.

    The median, because the difference is near 0 on some pictures. For Grad-CAM and HiResCAM the map is taken at the
    layer's resolution before its ReLU, and the baseline is 0 in place of the layer's output: at the last block of a
    net with average pooling and a linear head this leaves the head's bias.
    """
    yield 0.0
    if case.method in AT_LAYER:
        maps, difference = _at_layer(model, case)
    else:
        maps, difference = case.maps, _logits(model, case, case.images) - _baseline(model, case)
    each = _errors(maps, difference)
    value = float(each.median())
    like = maps.abs().mean()  # random maps of the same size, with both signs
    noise = [random_maps(case, draw, maps.shape).to(maps) * 2 - 1 for draw in range(DRAWS)]
    random = Spread.of(torch.stack([_errors(like * one, difference).median() for one in noise]))
    verdict, sentence = _verdict(value, case.method)
    return Finding(value, verdict, sentence, random, tuple(each.tolist()))


def _errors(maps: Tensor, difference: Tensor) -> Tensor:
    return (maps.flatten(1).double().sum(1) - difference).abs() / difference.abs()


def _verdict(value: float, method: str) -> tuple[Verdict, str]:
    title = METHODS[method].title
    sums = f"The map's sum is {value:.1%} off the logit's change that it should explain."
    if value < CLOSE:
        return "good", sums
    if method in AT_LAYER:
        return "unclear", f"{sums} {title} promises this sum only where pooling and a linear head come next."
    if value > FAR:
        return "bad", f"{sums} More steps may help; if they do not, the map leaves out what the net used."
    return "unclear", f"{sums} More steps may help."


def _logits(model: nn.Module, case: Case, images: Tensor) -> Tensor:
    """The explained logits (N,), float64."""
    logits = model(images).double()
    own = logits.gather(1, case.target[:, None])[:, 0]
    return own if case.against is None else own - logits[:, case.against]


def _baseline(model: nn.Module, case: Case) -> Tensor:
    """The explained logits (N,) of the picture, or the mean over the pictures, that the method starts from."""
    if case.method in FROM_BLANK:
        return _logits(model, case, torch.zeros_like(case.images))
    noise = torch.randn(SAMPLES, *case.images.shape[1:], generator=generator(case.seed)).to(case.images)
    logits = torch.cat([model(batch) for batch in noise.split(8)]).double().mean(0)  # (classes,)
    own = logits[case.target]
    return own if case.against is None else own - logits[case.against]


def _at_layer(model: nn.Module, case: Case) -> tuple[Tensor, Tensor]:
    """The method's maps (N, *s) before their ReLU, and what the layer's output adds to the logits (N,)."""
    held: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        held.append(output.detach().requires_grad_())
        return held[0].clone()

    layer = model.get_submodule(case.layer)
    handle = layer.register_forward_hook(keep)
    with torch.enable_grad():
        logits = _logits(model, case, case.images)
        [gradient] = torch.autograd.grad(logits.sum(), held)
    handle.remove()
    handle = layer.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    without = _logits(model, case, case.images)
    handle.remove()
    if case.method == "grad-cam":
        gradient = gradient.mean(list(range(2, gradient.dim())), keepdim=True)
    return (gradient * held[0]).sum(1).detach(), logits.detach() - without


def _promised(model: nn.Module, method: str) -> str:
    if method in (*FROM_BLANK, FROM_NOISE, *AT_LAYER):
        return ""
    titles = [METHODS[name].title for name in (*FROM_BLANK, FROM_NOISE, *AT_LAYER) if name in METHODS]
    return f"{METHODS[method].title} does not promise that its map adds up to anything, as {', '.join(titles)} do."


def _passes(facts: Facts, own: Passes) -> Passes:
    return Passes(own.forward + 2 + SAMPLES, own.backward + 1)


COMPLETENESS = Check(
    title="Completeness",
    function=completeness,
    passes=_passes,
    reading="How far the map's sum is from the change of the logit that it should explain, relative to that change: 0 "
    "is exact. It tells that nothing was lost, not that it stands in the right place.",
    source="Sundararajan et al. 2017, arXiv 1703.01365; for Grad-CAM Draelos and Carin 2020, arXiv 2011.08891",
    higher_is_better=False,
    reason=_promised,
)
