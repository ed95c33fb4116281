"""What a net looks at: attribution methods behind one contract, (model, images, target, layer) -> maps (N, H, W).

A new method is a function and a line in `METHODS`. All explain the LOGIT of the target class, before the softmax.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from torch import Tensor, nn

from resnet.errors import Refused, choose

_LOCK = threading.Lock()


def cam(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    """Grad-CAM before its ReLU, at the layer's resolution (N, h, w): sum over channels of mean(gradient) x activation.

    Works on the model that it is given (`explain` gives it a copy); Refused where the layer's output is no map.
    """
    method = LayerGradCam(model, model.get_submodule(layer))
    maps = method.attribute(images, target, relu_attributions=False)  # (N, 1, h, w)
    if maps.dim() != 4:
        raise Refused("Grad-CAM needs a layer whose output is (N, C, H, W).", repr(layer), "a block")
    return maps[:, 0]


def grad_cam(model: nn.Module, images: Tensor, target: Tensor, layer: str | None) -> Tensor:
    """Grad-CAM >= 0 at the input's resolution (N, H, W), bilinear (Selvaraju et al., arXiv 1610.02391)."""
    maps = cam(model, images, target, layer or "").relu().unsqueeze(1)
    return LayerAttribution.interpolate(maps, tuple(images.shape[-2:]), "bilinear")[:, 0]


def saliency(model: nn.Module, images: Tensor, target: Tensor, layer: str | None) -> Tensor:
    """max over channels of |dlogit/dx|, (N, H, W) in logits per unit of input (Simonyan et al., arXiv 1312.6034)."""
    return Saliency(model).attribute(images, target).amax(1)


@dataclass(frozen=True)
class Method:
    """An attribution method: `function(model, images, target, layer)` gives maps (N, H, W), and how to read them."""

    title: str
    function: Callable[[nn.Module, Tensor, Tensor, str | None], Tensor]
    signed: bool  # negative values mean evidence against the target
    needs_layer: bool
    source: str
    reading: str


METHODS: dict[str, Method] = {
    "grad-cam": Method(
        title="Grad-CAM",
        function=grad_cam,
        signed=False,
        needs_layer=True,
        source="Selvaraju et al. 2017, arXiv 1610.02391",
        reading="Bright where the layer's features raise the target's logit, at that layer's coarse resolution.",
    ),
    "saliency": Method(
        title="Saliency",
        function=saliency,
        signed=False,
        needs_layer=False,
        source="Simonyan et al. 2013, arXiv 1312.6034",
        reading="Bright where a small change of a pixel would change the target's logit most, up or down.",
    ),
}


def explain(
    method: str, model: nn.Module, images: Tensor, target: Tensor | Sequence[int] | int, layer: str | None = None
) -> Tensor:
    """Maps (N, H, W), float32 on the model's device, of the targets' logits for images (N, C, H, W).

    Works on a copy in eval mode, so that nothing in the model changes. Refused for an unknown method, layer or
    target, Refused where a map holds NaN or infinity.
    """
    chosen = choose("method", method, METHODS)
    if chosen.needs_layer:
        _check_layer(chosen.title, model, layer)
    with _LOCK, torch.enable_grad():
        net, x = _copy(model, images)
        classes = _targets(target, _logits(net, x)).to(x.device)  # (N,)
        maps = chosen.function(net, x.requires_grad_(), classes, layer).detach().float()
    broken = int((~maps.isfinite()).flatten(1).any(1).sum())
    if broken:
        rule = f"{chosen.title} gave NaN or infinity: the net's activations or gradients overflow on these images."
        raise Refused(rule, f"{broken} such maps of {len(maps)}", "a net with finite logits")
    return maps


def top_k(model: nn.Module, images: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Softmax probabilities (N, k) and classes (N, k), most likely first; k is at most the number of classes.

    Works on a copy in eval mode; Refused where k < 1.
    """
    if k < 1:
        raise Refused("k must be a positive whole number.", repr(k), "1 or more")
    with _LOCK:
        probabilities = _logits(*_copy(model, images)).softmax(1)
    values, classes = probabilities.topk(min(k, probabilities.shape[1]), dim=1)
    return values, classes


def _copy(model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """A private copy in eval mode, and the images copied to its device and dtype."""
    if images.dim() != 4 or not images.is_floating_point():
        received = f"{images.dtype} {tuple(images.shape)}"
        raise Refused("Images must be floats.", received, "a float tensor of (N, C, H, W)")
    net = copy.deepcopy(model).eval().requires_grad_(False)
    return net, images.detach().to(next(net.parameters(), images), copy=True)


@torch.no_grad()
def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return net(images)  # (N, classes)


def _check_layer(title: str, model: nn.Module, layer: str | None) -> None:
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise Refused(f"{title} needs one of the model's layers.", repr(layer), ", ".join(names))


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
