"""What a net looks at: attribution methods behind one contract, (model, request) -> maps (N, H, W).

A new method is a module with a `Method` and a line in `METHODS`. All explain the LOGIT of the target class, before the
softmax.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from resnet.attribution.cam import GRAD_CAM
from resnet.attribution.contract import Method, Request
from resnet.attribution.gradient import SALIENCY
from resnet.errors import Refused, choose
from resnet.nets.borrow import borrowed
from resnet.nets.model import blocks

METHODS: dict[str, Method] = {"grad-cam": GRAD_CAM, "saliency": SALIENCY}


def explain(
    method: str,
    model: nn.Module,
    images: Tensor,
    target: Tensor | Sequence[int] | int,
    layer: str = "",
    options: Mapping[str, object] | None = None,
) -> Tensor:
    """Maps (N, H, W), float32 on the model's device, of the targets' logits for images (N, C, H, W).

    The net is borrowed in eval mode: nothing in it changes, but nobody else may use it meanwhile. Refused for an
    unknown method, layer, target or option, where the method does not apply to the net, and where a map holds NaN or
    infinity.
    """
    chosen = choose("method", method, METHODS)
    _check(chosen, model, layer)
    for name in options or {}:
        choose("option", name, chosen.options)
    with borrowed(model), torch.enable_grad():
        x = _fitting(images, model)
        classes = _targets(target, _logits(model, x)).to(x.device)  # (N,)
        request = Request(x.requires_grad_(), classes, layer, {**chosen.options, **(options or {})})
        maps = chosen.function(model, request).detach().float()
    broken = int((~maps.isfinite()).flatten(1).any(1).sum())
    if broken:
        rule = f"{chosen.title} gave NaN or infinity: the net's activations or gradients overflow on these images."
        raise Refused(rule, f"{broken} such maps of {len(maps)}", "a net with finite logits")
    return maps


def top_k(model: nn.Module, images: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Softmax probabilities (N, k) and classes (N, k), most likely first; k is at most the number of classes.

    The net is borrowed in eval mode, as by `explain`; Refused where k < 1.
    """
    if k < 1:
        raise Refused("k must be a positive whole number.", repr(k), "1 or more")
    with borrowed(model):
        probabilities = _logits(model, _fitting(images, model)).softmax(1)
    values, classes = probabilities.topk(min(k, probabilities.shape[1]), dim=1)
    return values, classes


def common_scale(maps: Iterable[Tensor | np.ndarray]) -> float:
    """The largest magnitude in any of the maps, for one colour scale for all of them; 1 where all are 0."""
    return max(float(torch.as_tensor(each).abs().max()) for each in maps) or 1.0


def common_layers(models: Sequence[nn.Module]) -> list[str]:
    """Layers at which all these nets of ours can be explained, input to output: their blocks, else their stages."""
    own = [list(blocks(model)) for model in models]
    if all(names == own[0] for names in own):
        return own[0]
    stages = [list(dict.fromkeys(name.split(".")[0] for name in names)) for names in own]
    return min(stages, key=len)


def _fitting(images: Tensor, model: nn.Module) -> Tensor:
    """A copy of images (N, C, H, W) on the model's device and in its dtype."""
    if images.dim() != 4 or not images.is_floating_point():
        received = f"{images.dtype} {tuple(images.shape)}"
        raise Refused("Images must be floats.", received, "a float tensor of (N, C, H, W)")
    return images.detach().to(next(model.parameters(), images), copy=True)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)  # (N, classes)


def _check(method: Method, model: nn.Module, layer: str) -> None:
    if reason := method.reason(model):
        raise Refused(reason)
    names = [name for name, _ in model.named_modules() if name]
    if method.needs_layer and layer not in names:
        raise Refused(f"{method.title} needs one of the model's layers.", repr(layer), ", ".join(names))


def _targets(target: Tensor | Sequence[int] | int, logits: Tensor) -> Tensor:
    """One class per image, (N,) int64; Refused where it is no class of these logits (N, classes)."""
    n, classes = logits.shape
    wanted = torch.as_tensor(target)
    rule, choices = "A target must be a class for every image.", f"0 to {classes - 1}, one for all or {n}"
    if wanted.is_floating_point() or wanted.dtype == torch.bool or wanted.shape not in {(), (n,)}:
        raise Refused(rule, repr(target), choices)
    if wanted.numel() and (wanted.min() < 0 or wanted.max() >= classes):
        raise Refused(rule, repr(target), choices)
    return wanted.long().expand(n)
