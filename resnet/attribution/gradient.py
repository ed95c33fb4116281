"""Gradients of a logit with respect to the pixels."""

from captum.attr import Saliency
from torch import Tensor, nn

from resnet.attribution.contract import Method, Request


def saliency(model: nn.Module, request: Request) -> Tensor:
    """max over channels of |dlogit/dx|, (N, H, W) in logits per unit of input (Simonyan et al., arXiv 1312.6034)."""
    return Saliency(model).attribute(request.images.requires_grad_(), request.target).amax(1)


SALIENCY = Method(
    title="Saliency",
    family="gradient",
    function=saliency,
    signed=False,
    needs_layer=False,
    source="Simonyan et al. 2013, arXiv 1312.6034",
    reading="Bright where a small change of a pixel would change the target's logit most, up or down.",
    blank="The gradient of the logit is 0 at every pixel: no small change of the picture changes this logit.",
)
