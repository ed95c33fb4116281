"""Published accuracies, each with the place where it stands; torchvision's are read from its weights' own metadata."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd
from torchvision.models import WeightsEnum, get_model_weights

from resnet.nets.spec import PRESETS, NetSpec
from resnet.zoo.he2015 import HE_2015
from resnet.zoo.hub import TORCHVISION
from resnet.zoo.relatives import RELATIVES
from resnet.zoo.systems import SYSTEMS


class Published(NamedTuple):
    """One figure: `net` as in PRESETS, RELATIVES or SYSTEMS, `resolution` in pixels a side, per cent or AP."""

    net: str
    data_set: str
    metric: str
    value: float
    resolution: int
    source: str  # a paper's arXiv id, or torchvision's weights
    recipe: str  # how it was trained, where the source tells


METRICS = {
    "acc@1": "top-1 accuracy (%)",
    "acc@5": "top-5 accuracy (%)",
    "box_map": "box AP",
    "mask_map": "mask AP",
    "miou": "mean IoU (%)",
    "pixel_acc": "pixel accuracy (%)",
}


def _he_2015() -> Iterator[Published]:
    for depth, error in HE_2015.items():
        yield Published(
            f"ResNet-{depth}", "CIFAR-10", "test error (%)", error, 32, "arXiv 1512.03385, Table 6", "section 4.2"
        )


def _torchvision() -> Iterator[Published]:
    nets = TORCHVISION | {name: entry.builder for name, entry in (RELATIVES | SYSTEMS).items() if entry.builder}
    for net, builder in nets.items():
        for weights in get_model_weights(builder):
            for data_set, metrics in weights.meta["_metrics"].items():
                for metric, value in metrics.items():
                    if math.isnan(value):  # VGG-16's features were never a classifier
                        continue
                    source = f"torchvision {type(weights).__name__}.{weights.name}"
                    recipe = weights.meta.get("recipe", "")
                    yield Published(net, data_set, METRICS[metric], value, _resolution(net, weights), source, recipe)


def _resolution(net: str, weights: WeightsEnum) -> int:
    """Pixels a side that the net sees: the crop, else what the system scales to."""
    crop = getattr(weights.transforms, "keywords", {}).get("crop_size")
    if crop is None:
        return SYSTEMS[net].image_size
    return crop[0] if isinstance(crop, tuple) else crop


PUBLISHED: tuple[Published, ...] = (*_he_2015(), *_torchvision())


def condition(figure: Published, spec: NetSpec | None, input_shape: tuple[int, ...]) -> str:
    """Under which other condition a figure was measured than a net of this spec and input; "" where it is the same.

    `spec` is None for a net that is not described by one, as torchvision's relatives and systems.
    """
    if input_shape[-1] != figure.resolution:
        return f"measured at {figure.resolution} px"
    if spec is not None and spec != PRESETS.get(figure.net):
        return f"measured with the preset {figure.net}, which differs from this net"
    return ""


def published_of(nets: Mapping[str, NetSpec | None], input_shapes: Mapping[str, tuple[int, ...]]) -> pd.DataFrame:
    """One row per net and figure: the columns of `Published` with the net's key as `net`; note: `condition`; and what:
    data set and metric.

    `nets` as `catalogue.nets` gives them. One of which nothing is published has no row.
    """
    rows = [
        (label, *figure[1:], condition(figure, spec, input_shapes[label]), f"{figure.data_set}: {figure.metric}")
        for label, spec in nets.items()
        for figure in PUBLISHED
        if figure.net == (spec.name if spec else label)
    ]
    return pd.DataFrame(rows, columns=[*Published._fields, "note", "what"])
