"""Gradients of a logit with respect to the pixels, as they are or with the rules of guided methods for ReLUs."""

import warnings

from captum.attr import Deconvolution, GuidedBackprop, InputXGradient, Saliency
from torch import Tensor, nn

from resnet.attribution.cam import NO_EVIDENCE, cam, grad_cam, needs_maps
from resnet.attribution.contract import Method, Passes, Request
from resnet.attribution.wiring import rectifiers_hidden


def saliency(model: nn.Module, request: Request) -> Tensor:
    """max over channels of |dlogit/dx|, (N, *S) in logits per unit of input (Simonyan et al., arXiv 1312.6034)."""
    return Saliency(model).attribute(request.images.requires_grad_(), request.target).amax(1)


def input_x_gradient(model: nn.Module, request: Request) -> Tensor:
    """Sum over channels of x dlogit/dx, (N, *S) in logits (Shrikumar et al., arXiv 1605.01713)."""
    return InputXGradient(model).attribute(request.images.requires_grad_(), request.target).sum(1)


def guided_backprop(model: nn.Module, request: Request) -> Tensor:
    """max over channels of the gradient's size, of which each ReLU lets the positive part pass (arXiv 1412.6806)."""
    return _through_relus(GuidedBackprop, model, request)


def deconvolution(model: nn.Module, request: Request) -> Tensor:
    """As guided backprop, but a ReLU's own state plays no part (Zeiler and Fergus, arXiv 1311.2901)."""
    return _through_relus(Deconvolution, model, request)


def guided_grad_cam(model: nn.Module, request: Request) -> Tensor:
    """Guided backprop times Grad-CAM (arXiv 1610.02391, 3.2)."""
    return cam(grad_cam, model, request) * guided_backprop(model, request)


def _through_relus(rule: type[GuidedBackprop] | type[Deconvolution], model: nn.Module, request: Request) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks")  # that they will be removed
        return rule(model).attribute(request.images.requires_grad_(), request.target).abs().amax(1)


NO_GRADIENT = "The gradient of the logit is 0 at every pixel: no small change of the picture changes this logit."

SALIENCY = Method(
    title="Saliency",
    family="gradient",
    function=saliency,
    signed=False,
    needs_layer=False,
    source="Simonyan et al. 2013, arXiv 1312.6034",
    reading="Bright where a small change of a pixel would change the target's logit most, up or down. Noisy in deep "
    "nets: it tells what the net is sensitive to, not what it saw.",
    blank=NO_GRADIENT,
)
INPUT_X_GRADIENT = Method(
    title="Input x gradient",
    family="gradient",
    function=input_x_gradient,
    signed=True,
    needs_layer=False,
    source="Shrikumar et al. 2016, arXiv 1605.01713",
    reading="Each pixel's share of the logit if the net were linear: positive for the target, negative against it. "
    "Pixels of the mean colour get 0 whatever they show.",
    blank=f"{NO_GRADIENT} Or every pixel has the mean colour.",
)
GUIDED_BACKPROP = Method(
    title="Guided backprop",
    family="gradient",
    function=guided_backprop,
    signed=False,
    needs_layer=False,
    source="Springenberg et al. 2014, arXiv 1412.6806",
    reading="Sharp edges of what excites the net. It hardly depends on the class or on the last layers' weights, so do "
    "not take it for the reason of an answer (arXiv 1810.03292).",
    blank="No path from a pixel to the logit is positive at every ReLU.",
    reason=lambda model: rectifiers_hidden("Guided backprop", model),
)
DECONVOLUTION = Method(
    title="Deconvolution",
    family="gradient",
    function=deconvolution,
    signed=False,
    needs_layer=False,
    source="Zeiler and Fergus 2013, arXiv 1311.2901",
    reading="The pattern of pixels that would excite the logit, projected back without asking which units were on. "
    "It shows the filters more than this picture.",
    blank="No path from a pixel to the logit is positive at every ReLU.",
    reason=lambda model: rectifiers_hidden("Deconvolution", model),
)
GUIDED_GRAD_CAM = Method(
    title="Guided Grad-CAM",
    family="gradient",
    function=guided_grad_cam,
    signed=False,
    needs_layer=True,
    source="Selvaraju et al. 2017, arXiv 1610.02391",
    reading="Guided backprop's sharp edges, but only where Grad-CAM finds evidence for the class. The place comes from "
    "Grad-CAM; the detail does not depend on the class.",
    blank=NO_EVIDENCE,
    reason=lambda model: needs_maps(model) or rectifiers_hidden("Guided Grad-CAM", model),
    passes=lambda options, channels, dims=2: Passes(2, 1, after=2),
)
