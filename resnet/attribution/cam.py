"""Class activation maps: where a layer's features raise a logit. One pass to the layer and on, and back to it."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.attribution.contract import Method, Passes, Request
from resnet.errors import Refused

_CONV = nn.modules.conv._ConvNd
Rule = Callable[[Tensor, Tensor], Tensor]  # from activations and gradients (N, C, *s) to maps (N, *s)
NO_EVIDENCE = (
    "No place of this layer has positive evidence for the class, and this method shows nothing else. "
    "Choose another layer or another class."
)


def captured(model: nn.Module, request: Request) -> tuple[Tensor, Tensor]:
    """The layer's activations and the targets' dlogit/dactivation, both (N, C, *s), of one run of the net.

    Nothing is differentiated before the layer, which makes this one forward pass and the way back to the layer.
    Refused where the layer's output is no maps, or the layer runs more or less than once.
    """
    held: list[Tensor] = []

    def start_here(module: nn.Module, args: object, output: object) -> Tensor:
        held.append(maps_of(output, request).detach().requires_grad_())
        torch.set_grad_enabled(True)  # until the pass ends
        return held[0].clone()  # what follows may work in place

    with torch.no_grad():
        logits = _run(model, request, start_here, held)
    chosen = logits.gather(1, request.target[:, None]).sum()
    if not chosen.requires_grad:
        raise Refused("The logits do not depend on this layer.", repr(request.layer), "another layer")
    return held[0].detach(), torch.autograd.grad(chosen, held)[0]


@torch.no_grad()
def activations(model: nn.Module, request: Request) -> tuple[Tensor, Tensor]:
    """The layer's activations (N, C, *s), and the targets' logits (N,)."""
    held: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: object) -> None:
        held.append(maps_of(output, request).clone())  # what follows may work in place

    logits = _run(model, request, keep, held)
    return held[0], logits.gather(1, request.target[:, None])[:, 0]


def _run(model: nn.Module, request: Request, hook: Callable, held: list[Tensor]) -> Tensor:
    handle = model.get_submodule(request.layer).register_forward_hook(hook)
    try:
        logits: Tensor = model(request.images)
    finally:
        handle.remove()
    if len(held) != 1:
        rule = f"A class activation map needs a layer that runs once; this one runs {len(held)} times."
        raise Refused(rule, repr(request.layer), "the block that it is in")
    return logits


def maps_of(output: object, request: Request) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != request.images.dim():
        sizes = "(N, C, H, W)" if request.images.dim() == 4 else "(N, C, T, H, W)"
        raise Refused(f"Class activation maps need a layer whose output is {sizes}.", repr(request.layer), "a block")
    return output


def drawn(maps: Tensor, images: Tensor) -> Tensor:
    """Maps (N, C, *s) at the size of the images, (N, C, *S), linear between the centres of cells."""
    return F.interpolate(maps, images.shape[2:], mode="bilinear" if maps.dim() == 4 else "trilinear")


def positive(maps: Tensor, images: Tensor) -> Tensor:
    """The positive part of maps (N, *s) at the size of the images, (N, *S)."""
    return drawn(maps.relu().unsqueeze(1), images)[:, 0]


def channel_sum(weights: Tensor, maps: Tensor) -> Tensor:
    """Sum over channels of weights (N, C) times maps (N, C, *s): (N, *s)."""
    return torch.einsum("nc,nc...->n...", weights, maps)


def cam(rule: Rule, model: nn.Module, request: Request) -> Tensor:
    """The positive part of what the rule makes of activations and gradients, at the size of the images (N, *S)."""
    return positive(rule(*captured(model, request)), request.images)


def grad_cam(a: Tensor, gradient: Tensor) -> Tensor:
    """Each channel by its mean gradient, (N, *s) before the ReLU (arXiv 1610.02391, eq. 1 and 2)."""
    return channel_sum(gradient.flatten(2).mean(2), a)


def hires_cam(a: Tensor, gradient: Tensor) -> Tensor:
    """Each activation by its own gradient (arXiv 2011.08891)."""
    return (gradient * a).sum(1)


def grad_cam_plus_plus(a: Tensor, gradient: Tensor) -> Tensor:
    """Each channel by its positive gradients, weighted by alpha (arXiv 1710.11063, eq. 19, of exp(logit)).

    alpha = g^2 / (2 g^2 + sum(A) g^3) = 1 / (2 + sum(A) g) where g is not 0.
    """
    alpha = 1 / (2 + gradient * _sums(a))
    return channel_sum((alpha * gradient.relu()).flatten(2).sum(2), a)


def layer_cam(a: Tensor, gradient: Tensor) -> Tensor:
    """Each activation by its own positive gradient (doi 10.1109/TIP.2021.3089943, eq. 4 to 6)."""
    return (gradient.relu() * a).sum(1)


def xgrad_cam(a: Tensor, gradient: Tensor) -> Tensor:
    """Each channel by its gradients' mean, weighted by its activations (arXiv 2008.02312, eq. 8)."""
    sums = _sums(a)
    shares = torch.where(sums == 0, 0, a / torch.where(sums == 0, 1, sums))
    return channel_sum((gradient * shares).flatten(2).sum(2), a)


def eigen_cam(model: nn.Module, request: Request) -> Tensor:
    """The places' first principal component, (N, *S), its sign that of the activations (arXiv 2008.00299)."""
    a, _ = activations(model, request)
    places = a.flatten(2).mT  # (N, places, C)
    centred = places - places.mean(1, keepdim=True)
    first = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]  # (N, C)
    maps = torch.einsum("npc,nc->np", centred, first)
    signs = torch.einsum("np,np->n", maps, centred.sum(2)).sign()  # of a component either sign would do
    return positive((maps * signs[:, None]).view(len(a), *a.shape[2:]), request.images)


def _sums(a: Tensor) -> Tensor:
    return a.sum(tuple(range(2, a.dim())), keepdim=True)  # (N, C, 1, 1)


def needs_maps(model: nn.Module) -> str:
    """Why a class activation map does not apply to the net, "" where it does."""
    if any(isinstance(module, _CONV) for module in model.modules()):
        return ""
    return "Class activation maps need the maps of a convolution, and this net has none. Choose a method of gradients."


def back_to_the_layer(options: object, channels: int, dims: int = 2) -> Passes:
    return Passes(1, after=2)  # backward takes about twice as long as forward


def _method(title: str, rule: Rule, source: str, reading: str) -> Method:
    return Method(
        title=title,
        family="cam",
        function=partial(cam, rule),
        signed=False,
        needs_layer=True,
        source=source,
        reading=reading,
        blank=NO_EVIDENCE,
        reason=needs_maps,
        passes=back_to_the_layer,
    )


GRAD_CAM = _method(
    "Grad-CAM",
    grad_cam,
    "Selvaraju et al. 2017, arXiv 1610.02391",
    "Bright where the layer's features raise the target's logit, at that layer's coarse resolution. Most faithful at "
    "the last block; earlier, one weight for each channel is a rough average.",
)
HIRES_CAM = _method(
    "HiResCAM",
    hires_cam,
    "Draelos and Carin 2020, arXiv 2011.08891",
    "Bright at places of the layer that raise the target's logit, each by its own gradient. The same as Grad-CAM at "
    "the last block of a ResNet; earlier, it shows the places that the net really used.",
)
GRAD_CAM_PLUS_PLUS = _method(
    "Grad-CAM++",
    grad_cam_plus_plus,
    "Chattopadhay et al. 2018, arXiv 1710.11063",
    "Like Grad-CAM, but from positive gradients alone, so that several objects of the class light up. It cannot show "
    "that a feature speaks against the class, and often looks alike for different classes.",
)
LAYER_CAM = _method(
    "LayerCAM",
    layer_cam,
    "Jiang et al. 2021, doi 10.1109/TIP.2021.3089943",
    "Bright where the layer's features are strong and their own gradient is positive. Meant for early layers too, "
    "where it gives fine maps.",
)
XGRAD_CAM = _method(
    "XGrad-CAM",
    xgrad_cam,
    "Fu et al. 2020, arXiv 2008.02312",
    "Like Grad-CAM, but a channel's gradients count where the channel is active. The same as Grad-CAM at the last "
    "block of a ResNet.",
)
EIGEN_CAM = Method(
    title="Eigen-CAM",
    family="cam",
    function=eigen_cam,
    signed=False,
    needs_layer=True,
    source="Muhammad and Yeasin 2020, arXiv 2008.00299",
    reading="Bright where the layer's features differ most from their mean over the picture. It uses neither the class "
    "nor the logits: it shows what stands out, the same for every class.",
    blank="The layer's features are the same at all places.",
    reason=needs_maps,
    passes=lambda options, channels, dims=2: Passes(1),
)
