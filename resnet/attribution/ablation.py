"""Class activation maps without gradients: each channel of a layer weighs what the logit says of it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from resnet.attribution.batches import batched, scores
from resnet.attribution.cam import NO_EVIDENCE, activations, channel_sum, drawn, needs_maps, positive
from resnet.attribution.contract import Method, Partial, Passes, Request


def score_cam(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Each channel by the softmax, over channels, of the logit of the image seen through it (arXiv 1910.01279).

    A channel brought to 0..1 and drawn at the image's size is the mask. Channels that are the same everywhere are masks
    of zeros, and share one pass.
    """
    images, target = request.images, request.target
    a, _ = activations(model, request)
    masks, flat = _between_0_and_1(a), (a.flatten(2).amin(2) == a.flatten(2).amax(2)).all(0)  # (C,)
    found = scores(model, torch.zeros_like(images)[None], target).mT.repeat(1, a.shape[1])  # (N, C)
    seen, live = flat.clone(), (~flat).nonzero()[:, 0]
    for batch in batched(len(live), images):
        channels = live[batch]
        seen[channels] = True
        copies = torch.stack([images * drawn(masks[:, [channel]], images) for channel in channels.tolist()])
        found[:, channels] = scores(model, copies, target).mT
        so_far = channel_sum(found[:, seen].softmax(1), a[:, seen])
        yield Partial(positive(so_far, images), float(seen[live].float().mean()))
    if not len(live):
        yield Partial(positive(a.mean(1), images), 1.0)


def _between_0_and_1(a: Tensor) -> Tensor:
    places = tuple(range(2, a.dim()))
    low, high = a.amin(places, keepdim=True), a.amax(places, keepdim=True)
    return (a - low) / torch.where(high == low, 1, high - low)


def ablation_cam(model: nn.Module, request: Request) -> Iterator[Partial]:
    """Each channel by what the logit loses when it is 0 (doi 10.1109/WACV45572.2020.9093360).

    The paper also divides by the logit: that scales the map, and turns it round where the logit is negative.
    """
    a, whole = activations(model, request)
    chain = _begin_after(model, request.layer)
    weights, done = a.new_zeros(a.shape[:2]), 0  # (N, C)
    for batch in batched(a.shape[1], request.images):
        copies = a.expand(len(batch), *a.shape).clone()  # (K, N, C, *s)
        for copy, channel in zip(copies, batch, strict=True):
            copy[:, channel] = 0
        found = scores(model, copies, request.target) if chain else _replaced(model, request, copies)
        weights[:, batch] = whole[:, None] - found.mT
        done += len(batch)
        yield Partial(positive(channel_sum(weights, a), request.images), done / a.shape[1])


def _begin_after(model: nn.Module, layer: str) -> bool:
    """Let the net, which is borrowed, begin after the layer, if it is a link of a chain; tell whether it is."""
    *path, last = layer.split(".")
    chains = [model.get_submodule(".".join(path[:i])) for i in range(len(path) + 1)]
    if any(type(chain).forward is not nn.Sequential.forward for chain in chains):
        return False
    for chain, link in zip(chains, [*path, last], strict=True):
        names = list(chain._modules)
        for name in names[: names.index(link)]:
            setattr(chain, name, nn.Identity())
    setattr(chains[-1], last, nn.Identity())
    return True


def _replaced(model: nn.Module, request: Request, copies: Tensor) -> Tensor:
    """The targets' logits (K, N) with these outputs (K, N, C, *s) of the layer instead of its own."""
    handle = model.get_submodule(request.layer).register_forward_hook(lambda *_: copies.flatten(0, 1))
    try:
        return scores(model, request.images.expand(len(copies), *request.images.shape), request.target)
    finally:
        handle.remove()


SCORE_CAM = Method(
    title="Score-CAM",
    family="cam",
    function=score_cam,
    signed=False,
    needs_layer=True,
    source="Wang et al. 2020, arXiv 1910.01279",
    reading="Bright where those channels of the layer are active through which alone the net still sees the class. "
    "No gradients; where no channel stands out, it is the mean of them all, whatever the class.",
    blank="The layer's features are 0 or negative everywhere.",
    reason=needs_maps,
    passes=lambda options, channels, dims=2: Passes(channels + 2),
)
ABLATION_CAM = Method(
    title="Ablation-CAM",
    family="cam",
    function=ablation_cam,
    signed=False,
    needs_layer=True,
    source="Desai and Ramaswamy 2020, doi 10.1109/WACV45572.2020.9093360",
    reading="Bright where those channels of the layer are active without which the target's logit is lower. "
    "No gradients; channels that stand in for each other look unimportant.",
    blank=NO_EVIDENCE,
    reason=needs_maps,
    passes=lambda options, channels, dims=2: Passes(1, after=channels),
)
