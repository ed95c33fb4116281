"""Layer-wise relevance propagation, as the gradient of a net whose convolutions are replaced by ones of equal value."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from resnet.attribution.contract import Method, Passes, Request
from resnet.attribution.wiring import no_relevance
from resnet.errors import Refused


def lrp(model: nn.Module, request: Request) -> Tensor:
    """Relevance (N, *S), in logits: the gamma rule at convolutions after ReLUs, LRP-0 elsewhere (Montavon et al. 2019).

    Relevance a_i w'_ij R_j / z'_j, w' = w + gamma max(w, 0), is a_i times the gradient of z' (z / z') with the quotient
    held fixed: input x gradient does the rest, also for additions outside of modules and differences of logits, for
    which captum's LRP is wrong. A batch norm is part of the convolution before it. gamma = 0 is input x gradient.
    """
    gamma = request.options["gamma"]
    if not isinstance(gamma, int | float) or not gamma >= 0:
        raise Refused("The option gamma is a number.", repr(gamma), "0 or more")
    convolved: dict[int, tuple[Tensor, Any, Tensor]] = {}  # by the output's id: output, convolution, input

    def after_convolution(conv: Any, args: tuple[Tensor], z: Tensor) -> Tensor:
        z = _with_gamma(conv, args[0], z, conv.weight, conv.bias, gamma)
        convolved[id(z)] = z, conv, args[0]
        return z

    def after_norm(norm: Any, args: tuple[Tensor], y: Tensor) -> Tensor:
        if id(args[0]) not in convolved:
            return y
        _, conv, a = convolved[id(args[0])]
        weights = fuse_conv_bn_weights(
            *(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        )
        return _with_gamma(conv, a, y, *weights, gamma)

    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.register_forward_hook(after_convolution)  # gone when the net is given back
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(after_norm)
    x = request.images.requires_grad_()
    chosen = model(x).gather(1, request.target[:, None]).sum()
    return (x * torch.autograd.grad(chosen, x)[0]).detach().sum(1)


def _with_gamma(conv: Any, a: Tensor, z: Tensor, weight: Tensor, bias: Tensor | None, gamma: float) -> Tensor:
    """z with the gradient of the gamma rule, for those images whose input a of the convolution is nowhere negative.

    Where z is negative, as before an addition, min(w, 0) takes the place of max(w, 0): |z'| >= |z| keeps it stable.
    """
    above, below = (conv._conv_forward(a, part, None) for part in (weight.clamp(min=0), weight.clamp(max=0)))
    other = conv._conv_forward(a, weight, bias) + gamma * torch.where(z > 0, above, below)
    quotient = (z / torch.where(other == 0, 1, other)).detach()
    signed = (a < 0).flatten(1).any(1).view(-1, *[1] * (a.dim() - 1))
    return torch.where(signed, z, other * quotient)


LRP = Method(
    title="LRP",
    family="propagation",
    function=lrp,
    signed=True,
    needs_layer=False,
    source="Bach et al. 2015, doi 10.1371/journal.pone.0130140",
    reading="The logit passed back from layer to layer to the pixels, with more of it to what speaks for the class; "
    "negative where pixels speak against it. Biases keep a part of it.",
    blank="The logit is 0, or every pixel has the mean colour.",
    options={"gamma": 0.25},
    reason=no_relevance,
    passes=lambda options, channels, dims=2: Passes(5, 4),
)
