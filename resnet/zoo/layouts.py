"""Where a net's weights lie in a file: under which names, in which of its dicts and after which prefix.

A layout turns our name of a weight into another project's, so that each name in a file needs only be looked up: all
dicts, prefixes and layouts are tried in a time linear in the number of names.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

Rules = tuple[tuple[str, str], ...]  # a pattern, what takes its place; {1-1} there is group 1 minus 1

_DEEP = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")  # our names in the stem of ResNet-C and -D
_BLOCK, _CONV, _NORM = r"^layer(\d)\.(\d+)\.", r"^layer(\d)\.(\d+)\.conv(\d)\.", r"^layer(\d)\.(\d+)\.bn(\d)\."


def _renamed(*names: str) -> Rules:
    return tuple((rf"^{ours}\.", f"{name}.") for ours, name in zip(_DEEP, names, strict=False))


_TIMM_V2: Rules = (
    (_CONV, r"stages.{1-1}.blocks.\2.conv\3."),
    (_NORM, r"stages.{1-1}.blocks.\2.norm\3."),
    (_BLOCK + r"downsample\.\d\.", r"stages.{1-1}.blocks.\2.downsample.conv."),
    (r"^bn_last\.", "norm."),
)
PREACTIVATION = "timm, pre-activation"
LAYOUTS: dict[str, Rules] = {
    "torchvision": (),  # and timm, where nothing else is said
    "kuangliu or akamaster": ((r"\.downsample\.", ".shortcut."),),  # pytorch-cifar, pytorch_resnet_cifar10
    "torchvision's video nets": (
        *_renamed("stem.0", "stem.1"),
        (_CONV, r"layer\1.\2.conv\3.0."),
        (_NORM, r"layer\1.\2.conv\3.1."),
    ),
    "Hugging Face": (
        *_renamed("embedder.embedder.convolution", "embedder.embedder.normalization"),
        (_CONV, r"encoder.stages.{1-1}.layers.\2.layer.{3-1}.convolution."),
        (_NORM, r"encoder.stages.{1-1}.layers.\2.layer.{3-1}.normalization."),
        (_BLOCK + r"downsample\.0\.", r"encoder.stages.{1-1}.layers.\2.shortcut.convolution."),
        (_BLOCK + r"downsample\.1\.", r"encoder.stages.{1-1}.layers.\2.shortcut.normalization."),
    ),
    "timm, deep stem": _renamed("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1"),
    PREACTIVATION: (*_renamed("stem.conv"), *_TIMM_V2),
    "timm, pre-activation and deep stem": (
        *_renamed("stem.conv1", "stem.norm1", "stem.conv2", "stem.norm2", "stem.conv3"),
        *_TIMM_V2,
    ),
    "OpenMMLab, deep stem": (
        *_renamed("stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"),
        (r"^(layer1\.0\.downsample)\.1\.", r"\1.0."),  # no pool where there is no stride
        (r"^(layer1\.0\.downsample)\.2\.", r"\1.1."),
    ),
    "detectron2": (
        *_renamed("stem.conv1", "stem.conv1.norm"),
        (_CONV, r"res{1+1}.\2.conv\3."),
        (_NORM, r"res{1+1}.\2.conv\3.norm."),
        (_BLOCK + r"downsample\.0\.", r"res{1+1}.\2.shortcut."),
        (_BLOCK + r"downsample\.1\.", r"res{1+1}.\2.shortcut.norm."),
    ),
    "nn.Sequential of the layers": (*_renamed("0", "1"), (r"^layer(\d)\.", "{1+3}.")),
    "nn.Sequential without a pool": (*_renamed("0", "1"), (r"^layer(\d)\.", "{1+1}.")),
    "xternalz": (  # WideResNet-pytorch
        (r"^bn_last\.", "bn1."),
        (_BLOCK + r"downsample\.0\.", r"block\1.layer.\2.convShortcut."),
        (r"^layer(\d)\.", r"block\1.layer."),
    ),
}
# A head by another name, the likeliest first; a number, as in nn.Sequential, may follow.
HEADS = ("fc", "linear", "last_linear", "classifier", "head.fc", "cls_head.fc", "head", "cls_head", "output", "logits")
_HEAD = re.compile(
    rf"(?P<root>(?:.*?[./])??)(?P<head>{'|'.join(map(re.escape, HEADS))}|\d+)(?P<layer>(?:[./]\d+)?)[./]weight"
)
# Of equal copies an average over steps comes first, for it is what its trainer tests; last come the slow copies of
# MoCo and BYOL, which exist for their training alone, and what belongs to an optimiser.
AVERAGED = {"ema", "average", "averaged", "avg", "swa", "teacher"}
ASIDE = {"momentum", "k", "key", "target", "optimizer", "optim", "exp"}
_MAX_PARTS = 12  # of a name after its prefix


def renamed(ours: str, layout: str) -> str:
    """Another project's name for one of our weights."""
    for pattern, template in LAYOUTS[layout]:
        theirs = template
        if match := re.search(pattern, ours):
            for shifted, group, by in re.findall(r"(\{(\d)([+-]\d)\})", theirs):
                theirs = theirs.replace(shifted, str(int(match[int(group)]) + int(by)))
            return ours[: match.start()] + match.expand(theirs) + ours[match.end() :]
    return ours


class Place(NamedTuple):
    """A dict, a prefix and a layout: where in a file a net's weights may lie."""

    prefix: str
    layout: str


@dataclass(frozen=True)
class Found:
    """The place that fits best, the file's name of each weight there, the head's, and the other places that fit too."""

    place: Place
    keys: dict[str, str]
    head: str
    copies: tuple[str, ...]


def matches(value: Tensor, wanted: Tensor) -> bool:
    """True where a value of the file can be loaded for one of the net: the shape, and fractions for fractions."""
    return value.shape == wanted.shape and value.is_floating_point() == wanted.is_floating_point()


def is_counter(name: str) -> bool:
    """A batch norm's count of steps, which no net needs: many files lack it."""
    return name.endswith("num_batches_tracked")


def find(tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> Found:
    """The place in a file that has most of a net's weights, by name and shape.

    Of equal ones: see AVERAGED and ASIDE, then the one with more of the names, then the first in the file.
    """
    body = {name: value for name, value in needed.items() if not name.startswith("fc.")}
    places = _places(tensors, body)
    fitting = {
        place: sum(matches(tensors[key], body[ours]) for ours, key in keys.items() if not is_counter(ours))
        for place, keys in places.items()
    }
    if not places:
        return Found(Place("", "torchvision"), {}, "", ())
    best = max(places, key=lambda place: (fitting[place], -_rank(place.prefix), len(places[place])))
    most = 2 * fitting[best] > sum(not is_counter(name) for name in body)  # else a few names are no copy of the net
    equal = (p.prefix for p in places if most and fitting[p] == fitting[best] and p.prefix != best.prefix)
    head = _head(tensors, best.prefix, needed["fc.weight"].shape[1])
    return Found(best, places[best] | _head_keys(tensors, head), head, tuple(dict.fromkeys(equal)))


def _places(tensors: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> dict[Place, dict[str, str]]:
    """For each place with any of the names: our names and the file's."""
    known = defaultdict(list)
    for layout in LAYOUTS:
        for ours in body:
            known[renamed(ours, layout)].append((layout, ours))
    places: dict[Place, dict[str, str]] = defaultdict(dict)
    for key in tensors:
        dotted = key.replace("/", ".")
        for start in [0, *(match.end() for match in re.finditer(r"\.", dotted))][-_MAX_PARTS:]:
            for layout, ours in known.get(dotted[start:], ()):
                places[Place(key[:start], layout)].setdefault(ours, key)
    return dict(places)


def _rank(prefix: str) -> int:
    words = set(re.split(r"[^a-z]+", prefix.lower()))
    return 2 if words & ASIDE else 0 if words & AVERAGED else 1


def ancestors(prefix: str) -> list[str]:
    """ "", and what ends at each dot or slash of "state_dict/module.", itself the last."""
    return list(accumulate(re.findall(r"[^./]*[./]", prefix), initial=""))


def _head(tensors: Mapping[str, Tensor], prefix: str, width: int) -> str:
    """The name before .weight of the linear layer that reads `width` features, nearest to the body; "" for none.

    A 1x1 convolution will do; a stack of layers is a projector of self-supervised training, and none.
    """
    roots, matrices = ancestors(prefix), sorted(key for key, value in tensors.items() if value.dim() > 1)
    found = []
    for key in matrices:
        match, shape = _HEAD.fullmatch(key), tensors[key].shape
        if match and match["root"] in roots and shape[1] == width and set(shape[2:]) <= {1}:
            stem, order = match["root"] + match["head"], (*HEADS, match["head"]).index(match["head"])
            if bisect_left(matrices, f"{stem}0") - bisect_left(matrices, f"{stem}.") == 1:  # of . / 0 in ASCII
                found.append((-len(match["root"]), order, key[: -len(".weight")]))
    return min(found, default=(0, 0, ""))[2]


def _head_keys(tensors: Mapping[str, Tensor], head: str) -> dict[str, str]:
    """The file's names of a head's weight and bias, by ours."""
    named = {key: f"fc.{kind}" for kind in ("weight", "bias") for key in (f"{head}.{kind}", f"{head}/{kind}")}
    return {ours: key for key, ours in named.items() if head and key in tensors}
