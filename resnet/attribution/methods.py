"""What a net looks at: attribution methods behind one contract, (model, request) -> maps (N, *S).

A new method is a module with a `Method` and a line in `METHODS`. All explain the LOGIT of the target class, before the
softmax.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from resnet.attribution import ablation, cam, control, gradient, paths, perturbation, relevance
from resnet.attribution.contract import Method, Partial, Request
from resnet.errors import Refused, choose
from resnet.nets.borrow import borrowed
from resnet.nets.model import blocks

METHODS: dict[str, Method] = {
    "grad-cam": cam.GRAD_CAM,
    "hires-cam": cam.HIRES_CAM,
    "grad-cam++": cam.GRAD_CAM_PLUS_PLUS,
    "layer-cam": cam.LAYER_CAM,
    "xgrad-cam": cam.XGRAD_CAM,
    "score-cam": ablation.SCORE_CAM,
    "ablation-cam": ablation.ABLATION_CAM,
    "eigen-cam": cam.EIGEN_CAM,
    "saliency": gradient.SALIENCY,
    "smooth-grad": paths.SMOOTH_GRAD,
    "input-x-gradient": gradient.INPUT_X_GRADIENT,
    "integrated-gradients": paths.INTEGRATED_GRADIENTS,
    "expected-gradients": paths.EXPECTED_GRADIENTS,
    "guided-backprop": gradient.GUIDED_BACKPROP,
    "guided-grad-cam": gradient.GUIDED_GRAD_CAM,
    "deconvolution": gradient.DECONVOLUTION,
    "deep-lift": paths.DEEP_LIFT,
    "occlusion": perturbation.OCCLUSION,
    "rise": perturbation.RISE,
    "lrp": relevance.LRP,
    "random": control.RANDOM,
}


def explain(
    method: str,
    model: nn.Module,
    images: Tensor,
    target: Tensor | Sequence[int] | int,
    layer: str = "",
    options: Mapping[str, object] | None = None,
    against: int | None = None,
) -> Tensor:
    """Maps (N, *S), float32 on the model's device, of the targets' logits for images (N, C, *S).

    With a class `against` it explains why this rather than that: each target's logit minus that class's. The net is
    borrowed in eval mode: nothing in it changes, but nobody else may use it meanwhile. Refused for an unknown method,
    layer, target or option, where the method does not apply to the net, and where a map holds NaN or infinity.
    """
    *_, last = explaining(method, model, images, target, layer, options, against)
    return last.maps


def explaining(
    method: str,
    model: nn.Module,
    images: Tensor,
    target: Tensor | Sequence[int] | int,
    layer: str = "",
    options: Mapping[str, object] | None = None,
    against: int | None = None,
) -> Generator[Partial, None, None]:
    """As `explain`, step by step: methods of many passes yield maps that get finer, the others the last ones alone.

    The net is borrowed until the generator is exhausted or closed.
    """
    chosen = choose("method", method, METHODS)
    _check(chosen, model, layer)
    for name in options or {}:
        choose("option", name, chosen.options)
    x = _fitting(images, model)
    targets = _targets(target, len(x)).to(x.device)
    return _steps(chosen, model, Request(x, targets, layer, {**chosen.options, **(options or {})}), against)


@torch.enable_grad()  # while a step is computed, not while its maps are looked at
def _steps(method: Method, model: nn.Module, request: Request, against: int | None) -> Generator[Partial, None, None]:
    with borrowed(model):  # which takes the hook away, and all that a method changes in the net
        model.register_forward_hook(_logits_hook(request.target, against))
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]  # what a hook has seen must stay
        found = method.function(model, request)
        for maps, share in [Partial(found, 1.0)] if isinstance(found, Tensor) else found:
            yield Partial(_finite(method, maps.detach().float()), share)


def _logits_hook(target: Tensor, against: int | None) -> Callable[..., Tensor]:
    """Checks that the classes are among the logits, and takes the logit of `against` from all of them."""
    classes = [*target.tolist(), *([] if against is None else [against])]

    def logits_hook(model: nn.Module, args: object, logits: Tensor) -> Tensor:
        if logits.dim() != 2:
            raise Refused("A net that can be explained gives logits (N, classes).", tuple(logits.shape), "another net")
        if wrong := [each for each in classes if not 0 <= each < logits.shape[1]]:
            raise Refused("A target must be a class of the net.", wrong[0], f"0 to {logits.shape[1] - 1}")
        return logits if against is None else logits - logits[:, [against]]

    return logits_hook


def _finite(method: Method, maps: Tensor) -> Tensor:
    broken = int((~maps.isfinite()).flatten(1).any(1).sum())
    if broken:
        rule = f"{method.title} gave NaN or infinity: the net's activations or gradients overflow on these images."
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
    """A copy of images (N, C, *S) on the model's device and in its dtype."""
    if images.dim() not in (4, 5) or not images.is_floating_point():
        received = f"{images.dtype} {tuple(images.shape)}"
        raise Refused("Images must be floats.", received, "a float tensor of (N, C, H, W) or (N, C, T, H, W)")
    return images.detach().to(next(model.parameters(), images), copy=True)


def _layers(model: nn.Module) -> str:
    """Which layers to choose from: blocks and stages of a net of ours, the children of another."""
    own = list(blocks(model))
    stages = list(dict.fromkeys(name.split(".")[0] for name in own))
    return ", ".join([*stages, *own] or [name for name, _ in model.named_children()])


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)  # (N, classes)


def _check(method: Method, model: nn.Module, layer: str) -> None:
    if reason := method.reason(model):
        raise Refused(reason)
    names = [name for name, _ in model.named_modules() if name]
    if method.needs_layer and layer not in names:
        raise Refused(f"{method.title} needs one of the net's layers.", repr(layer), _layers(model))


def _targets(target: Tensor | Sequence[int] | int, n: int) -> Tensor:
    """One class per image, (n,) int64; whether the net has these classes is seen when it runs."""
    wanted = torch.as_tensor(target)
    if wanted.is_floating_point() or wanted.dtype == torch.bool or wanted.shape not in {(), (n,)}:
        raise Refused("A target must be a class for every image.", repr(target), f"whole numbers, one for all or {n}")
    return wanted.long().expand(n)
