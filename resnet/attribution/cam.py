"""Class activation maps: where a layer's features raise a logit."""

from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from resnet.attribution.contract import Method, Request
from resnet.errors import Refused


def cam(model: nn.Module, request: Request) -> Tensor:
    """Grad-CAM before its ReLU, at the layer's resolution (N, h, w): sum over channels of mean(gradient) x activation.

    Refused where the layer's output is no map.
    """
    method = LayerGradCam(model, model.get_submodule(request.layer))
    maps = method.attribute(request.images.requires_grad_(), request.target, relu_attributions=False)  # (N, 1, h, w)
    if maps.dim() != 4:
        raise Refused("Grad-CAM needs a layer whose output is (N, C, H, W).", repr(request.layer), "a block")
    return maps[:, 0]


def grad_cam(model: nn.Module, request: Request) -> Tensor:
    """Grad-CAM >= 0 at the input's resolution (N, H, W), bilinear (Selvaraju et al., arXiv 1610.02391)."""
    maps = cam(model, request).relu().unsqueeze(1)
    return LayerAttribution.interpolate(maps, tuple(request.images.shape[-2:]), "bilinear")[:, 0]


def _reason(model: nn.Module) -> str:
    maps = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return "" if maps else "Grad-CAM needs the maps of a convolution over images, and this net has none."


GRAD_CAM = Method(
    title="Grad-CAM",
    family="cam",
    function=grad_cam,
    signed=False,
    needs_layer=True,
    source="Selvaraju et al. 2017, arXiv 1610.02391",
    reading="Bright where the layer's features raise the target's logit, at that layer's coarse resolution.",
    blank="No place of this layer has positive evidence for the class, and Grad-CAM shows nothing else. "
    "Choose a later layer or another class.",
    reason=_reason,
)
