"""The names that people have for nets, and the code that each stands for."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from unicodedata import normalize

from resnet.nets.spec import CIFAR_DEPTHS, PRESETS, SpecError, cifar_name

MAX_NAME = 60  # characters of an unknown name that are compared with the known ones


def key(name: str) -> str:
    """In lower case, without separators but for one between numbers: resnet50 of `ResNet-50` and of `resnet_50`.

    CIFAR-10 is CIFAR; hyphens and × of printed pages are as those of keyboards.
    """
    plain = normalize("NFKC", name.lower()).replace("+", "plus").replace("×", "x")
    joined = re.sub(r"(?<![0-9])-|-(?![0-9])", "", re.sub(r"[ ()_.\u2010-\u2015\u2212-]+", "-", plain))
    return re.sub(r"cifar10(?![0-9])", "cifar", joined)


_DEEP, _PRE, _SMALL = "~stem.deep~shortcut.D", "~block.preact-bottleneck", "~stem.3x3~classes.10~image_size.32"
_VARIANTS = {  # of a net of bottlenecks, in timm's, Keras's, NVIDIA's and Gluon's names, by `key`
    "resnet{}c": "~stem.deep",
    "resnet{}d": _DEEP,
    "resnet{}s": "~stem.deep~stem_width.128",
    "resnet{}v1-5": "",
    "resnet{}v1b": "",
    "resnet{}v1c": "~stem.deep",
    "resnet{}v1d": _DEEP,
    "resnet{}v1s": "~stem.deep~stem_width.128",
    "resnet{}v2": _PRE,
    "preresnet{}": _PRE,
    "preactresnet{}": _PRE,
    "resnetv2-{}": _PRE,
    "resnetv2-{}d": _PRE + _DEEP,
    "seresnet{}": "~se.16",
    "seresnet{}d": "~se.16" + _DEEP,
}
_R1001 = "Pre-ResNet-164~stages.111x16s1-111x32s2-111x64s2"  # He 2016, Table 4
_RESNEXTS = {
    "50-32x4d": "ResNeXt-50 32x4d",
    "101-32x4d": "ResNeXt-101 32x8d~base_width.4",
    "101-32x8d": "ResNeXt-101 32x8d",
    "101-32x16d": "ResNeXt-101 32x8d~base_width.16",
    "101-64x4d": "ResNeXt-101 64x4d",
}
_BASIC = {  # of a net of basic blocks, which has no v1 and v1.5
    "resnet{}d": _DEEP,
    "resnet{}v1": "",
    "resnet{}v1-5": "",
    "resnet{}v1b": "",
    "resnet{}v2": "~block.preact-basic",
    "resnetv2-{}": "~block.preact-basic",
    "resnetv2-{}d": "~block.preact-basic" + _DEEP,
}
_STARTS = {  # of our names, and of others' for the same nets
    "preresnet": ("preactresnet", "resnetv2-"),
    "wideresnet": ("wrn",),
    "wrn": ("wideresnet",),
    "resnet3d": ("r3d",),
}


def _presets() -> Iterator[tuple[str, str]]:
    for name in PRESETS:
        own = key(name)
        yield own, name
        for start, others in _STARTS.items():
            if own.startswith(start):
                yield from ((other + own.removeprefix(start), name) for other in others)


def _wide(n: int, times: int) -> str:
    """WRN-(6n+4)-times of arXiv 1605.07146."""
    stages = (f"{n}x{width * times}s{stride}" for width, stride in ((16, 1), (32, 2), (64, 2)))
    return f"WRN-28-10~stages.{'-'.join(stages)}"


def _keras_v2(depth: int) -> str:
    """keras.applications strides in the last block of a stage, past which it drops pixels."""
    *stages, (blocks, width) = ((stage.blocks, stage.width) for stage in PRESETS[f"ResNet-{depth}"].stages)
    early = (f"{n - 1}x{w}s1-1x{w}s2A" for n, w in stages)
    return f"ResNet-{depth}{_PRE}~stages.{'-'.join(early)}-{blocks}x{width}s1"


NAMES: dict[str, str] = {  # the code of a net, by `key` of its name; the presets' own names come last and win
    **{v.format(n): f"ResNet-{n}{change}" for n in (26, 50, 101, 152, 200) for v, change in _VARIANTS.items()},
    **{v.format(n): f"ResNet-{n}{change}" for n in (18, 34) for v, change in _BASIC.items()},
    **{
        f"{start}{6 * n + 4}-{k}": _wide(n, k)
        for start in ("wrn", "wideresnet")
        for n in range(1, 12)
        for k in range(1, 17)
    },
    **dict.fromkeys(["resnet1001", "preresnet1001", "preactresnet1001"], _R1001),
    **{f"kerasresnet{n}": f"ResNet-{n} v1" for n in (50, 101, 152)},
    **{f"kerasresnet{n}v2": _keras_v2(n) for n in (50, 101, 152)},
    **{f"seresnext{size}": f"{code}~se.16" for size, code in _RESNEXTS.items()},
    **{f"resnext{size}": code for size, code in _RESNEXTS.items()},
    **dict.fromkeys(["resnet18cifar", "cifarresnet18"], "ResNet-18 CIFAR stem"),
    **dict.fromkeys(["resnet34cifar", "cifarresnet34"], f"ResNet-34{_SMALL}"),
    "resnext50": "ResNeXt-50 32x4d",
    "resnext50d32x4d": f"ResNeXt-50 32x4d{_DEEP}",
    **dict(_presets()),
}
_SMALL_NETS = {name for name, net in PRESETS.items() if net.image_size == 32}
UNCLEAR: dict[str, tuple[str, ...]] = {  # what a name may stand for
    "resnext101": ("ResNeXt-101 32x8d", "ResNeXt-101 64x4d"),
    "resnet164": ("CIFAR ResNet-164", "Pre-ResNet-164"),
    **dict.fromkeys(["plain164", "plainresnet164"], ("CIFAR plain-164", "plain Pre-ResNet-164")),
    **{
        f"{start}{n}": (f"ResNet-{n}~block.preact-basic", f"ResNet-{n}{_SMALL}~block.preact-basic")
        for start in ("preresnet", "preactresnet")
        for n in (18, 34)
    },
    **{f"resnet{n}cifar": (f"CIFAR ResNet-{n}", f"ResNet-{n}{_SMALL}") for n in (14, 26, 50, 152, 200)},
}


def resolve(text: str, names: Mapping[str, str] = NAMES, kind: str = "ResNet") -> str:
    """What a name stands for: `ResNet50`, `timm/resnet50.a1_in1k`, `torchvision.models.resnet50`, `plain20`.

    `names` are those of a `kind` of net. SpecError for a name of two nets, with both, and for an unknown one, with the
    nearest three.
    """
    tried = _keys(text)
    for each in tried:
        bare = each.replace("cifar100", "cifar")
        end = "" if bare == each else "~classes.100"
        if bare in UNCLEAR:
            nets = " or ".join(net + end for net in UNCLEAR[bare])
            raise SpecError("net", "More than one net goes by this name.", text, nets)
        if code := _code(bare, names):
            return code + end
    near = get_close_matches(tried[0][:MAX_NAME], [k for k, code in names.items() if "~" not in code], 12, 0)
    three = list(dict.fromkeys(names[k] for k in near))[:3]
    raise SpecError("net", f"No {kind} has this name.", text, "a known one; the nearest are " + ", ".join(three))


# What a name says of its weights' origin
_AROUND = re.compile(r"(?:dino|gluon|ig|nvidia|ssl|swsl|tv)[_-](.+)|(.+)[_-](?:imagenet|ssl|swsl|weights|wsl)")


def _keys(text: str) -> list[str]:
    """Of the name without its owner; then of what stands before a dot and a tag, and behind the dots of a module."""
    name = re.split("[/:]", text.strip(" /").lower())[-1]
    parts = re.split(r"\.(?=[a-z])", name)
    start = ["keras" + parts[-1]] if "keras.applications." in name else []
    each = [*start, name, parts[0], parts[-1]]
    around = (_AROUND.fullmatch(part) for part in each)
    return [key(part) for part in [*each, *(match[1] or match[2] for match in around if match)]]


def _code(each: str, names: Mapping[str, str]) -> str:
    """The code of a key, "" where it is unknown."""
    if "plain" not in each:
        return names.get(each) or _cifar(each, names)
    residual = each.replace("plainnet", "resnet", 1), each.replace("plain", "resnet", 1), each.replace("plain", "", 1)
    codes = (names.get(name) or _cifar(name, names) for name in residual)
    return next((f"{code}~shortcut.none" for code in codes if code), "")


def _cifar(each: str, names: Mapping[str, str]) -> str:
    """SpecError for a depth that no CIFAR net has where the name says CIFAR."""
    code = names.get(each.replace("cifar", ""), "") if "cifar" in each else ""
    if code.partition("~")[0] in _SMALL_NETS:
        return code
    match = re.fullmatch(r"(?:cifar)?resnet([1-9][0-9]{0,3})(?:cifar)?", each)
    if not match or ("cifar" not in each and int(match[1]) not in CIFAR_DEPTHS):
        return ""
    name = cifar_name(int(match[1]))
    return name if "cifar" in each or key(name) == each else ""
