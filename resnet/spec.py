"""What a net is, before any tensor exists: frozen, validated, and the same in JSON, in a URL and in memory."""

import dataclasses
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from resnet.blocks import BLOCKS, NORMS, SHORTCUTS, STEMS

MAX_BLOCKS, MAX_WIDTH = 600, 4096  # 1202 layers are 600 basic blocks
CIFAR_DEPTHS = range(8, 1203, 6)  # 6n+2


class SpecError(ValueError):
    """A rule that a net breaks; `field` names the entry to mend."""

    def __init__(self, field: str, rule: str, received: object, choices: str) -> None:
        super().__init__(f"{rule} Received {received!r}. Choose {choices}.")
        self.field = field


def _check_choice(field: str, value: object, choices: dict[str, Any] | tuple[str, ...]) -> None:
    if type(value) is not str or value not in choices:
        label = field.replace("_", " ").capitalize()
        raise SpecError(field, f"{label} must be one this program knows.", value, " or ".join(choices))


def _check_int(field: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        label = field.replace("_", " ").capitalize()
        raise SpecError(field, f"{label} must be a whole number in range.", value, f"{low} to {high:,}")


@dataclass(frozen=True)
class StageSpec:
    """`blocks` blocks of `width` channels (before expansion); the first one strides. SpecError where out of range."""

    blocks: int
    width: int
    stride: int = 1

    def __post_init__(self) -> None:
        _check_int("blocks", self.blocks, 1, MAX_BLOCKS)
        _check_int("width", self.width, 1, MAX_WIDTH)
        _check_int("stride", self.stride, 1, 4)


@dataclass(frozen=True)
class NetSpec:
    """A residual net (He et al. 2015, arXiv 1512.03385), or with shortcut "none" its plain twin.

    SpecError (a ValueError) where a rule is broken; a spec that constructs builds.
    """

    stages: tuple[StageSpec, ...]
    block: str = "basic"
    shortcut: str = "B"
    stem: str = "7x7"
    stem_width: int = 64
    stride_on: str = "3x3"  # where a bottleneck strides: "1x1" is v1, "3x3" is v1.5
    norm: str = "batch"
    zero_init: bool = False  # last norm of each branch starts at 0 (arXiv 1706.02677)
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224  # pixels, square

    def __post_init__(self) -> None:
        _check_choice("block", self.block, BLOCKS)
        _check_choice("shortcut", self.shortcut, SHORTCUTS)
        _check_choice("stem", self.stem, STEMS)
        _check_choice("stride_on", self.stride_on, ("3x3", "1x1"))
        _check_choice("norm", self.norm, NORMS)
        _check_int("stem_width", self.stem_width, 1, MAX_WIDTH)
        _check_int("in_channels", self.in_channels, 1, 64)
        _check_int("classes", self.classes, 2, 100_000)
        _check_int("image_size", self.image_size, 8, 1024)
        if type(self.zero_init) is not bool:
            raise SpecError("zero_init", "Zero init is a switch.", self.zero_init, "true or false")
        self._check_stages()
        if self.zero_init and self.norm == "none":
            raise SpecError(
                "zero_init", "Zero init sets the last norm to 0, so there must be one.", "none", "norm batch"
            )

    def _check_stages(self) -> None:
        stages = self.stages
        if type(stages) is not tuple or not all(isinstance(s, StageSpec) for s in stages):
            raise SpecError("stages", "Stages must be a tuple of StageSpec.", stages, "at least one stage")
        if not 1 <= len(stages) <= 8:
            raise SpecError("stages", "A net has 1 to 8 stages.", len(stages), "1 to 8")
        if sum(s.blocks for s in stages) > MAX_BLOCKS:
            total = sum(s.blocks for s in stages)
            raise SpecError("stages", "The stages together may not be deeper.", total, f"up to {MAX_BLOCKS} blocks")
        if self.shortcut != "A":
            return
        channels = [self.stem_width] + [s.width * self.expansion for s in stages]
        if any(after < before for before, after in pairwise(channels)):
            rule = "Shortcut A pads with zero channels, so the channels (width x expansion) may not shrink."
            raise SpecError("shortcut", rule, channels, "growing widths, or shortcut B")

    @property
    def expansion(self) -> int:
        """Output channels of a block / its width."""
        return BLOCKS[self.block].expansion

    @property
    def depth(self) -> int:
        """Weight layers on the longest path: the number in the name ResNet-50."""
        return 2 + BLOCKS[self.block].convs * sum(s.blocks for s in self.stages)

    @property
    def plain(self) -> bool:
        """True where no block has a shortcut."""
        return self.shortcut == "none"

    @property
    def name(self) -> str:
        """The preset's or CIFAR net's name, `plain-N` for the plain twin of one, or `ResNet-N (custom)`."""
        for name, preset in _named(self.depth).items():
            own = dataclasses.replace(
                preset, in_channels=self.in_channels, classes=self.classes, image_size=self.image_size
            )
            if self == own:
                return name
            if self == plain_twin(own):
                return name.replace("ResNet", "plain")
        return f"{'plain' if self.plain else 'ResNet'}-{self.depth} (custom)"


def plain_twin(spec: NetSpec) -> NetSpec:
    """The same net without shortcuts (He 2015, 3.3)."""
    return dataclasses.replace(spec, shortcut="none")


def _imagenet(block: str, *blocks: int, stride_on: str = "3x3") -> NetSpec:
    stages = zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True)
    return NetSpec(tuple(StageSpec(*stage) for stage in stages), block, stride_on=stride_on)


def cifar(depth: int) -> NetSpec:
    """He 2015, 4.2: 6n+2 layers in three stages of 16, 32, 64 channels, option A. SpecError for another depth."""
    _check_int("depth", depth, 8, 1202)
    n, rest = divmod(depth - 2, 6)
    if rest:
        near = f"{6 * n + 2} or {6 * n + 8}"
        raise SpecError("depth", "A CIFAR ResNet has 6n+2 layers.", depth, near)
    stages = StageSpec(n, 16, 1), StageSpec(n, 32, 2), StageSpec(n, 64, 2)
    return NetSpec(stages, shortcut="A", stem="3x3", stem_width=16, classes=10, image_size=32)


PRESETS: dict[str, NetSpec] = {f"ResNet-{depth}": cifar(depth) for depth in (20, 32, 44, 56, 110)} | {
    "ResNet-18": _imagenet("basic", 2, 2, 2, 2),
    "ResNet-34": _imagenet("basic", 3, 4, 6, 3),
    "ResNet-50": _imagenet("bottleneck", 3, 4, 6, 3),
    "ResNet-50 v1": _imagenet("bottleneck", 3, 4, 6, 3, stride_on="1x1"),
    "ResNet-101": _imagenet("bottleneck", 3, 4, 23, 3),
    "ResNet-152": _imagenet("bottleneck", 3, 8, 36, 3),
}


def _named(depth: int) -> dict[str, NetSpec]:
    """The presets, and the CIFAR net of that depth where there is one and no preset has its name."""
    name = f"ResNet-{depth}"
    return PRESETS if name in PRESETS or depth not in CIFAR_DEPTHS else PRESETS | {name: cifar(depth)}


def to_dict(spec: NetSpec) -> dict[str, Any]:
    """Plain dicts and lists, ready for JSON."""
    return dataclasses.asdict(spec) | {"stages": [dataclasses.asdict(s) for s in spec.stages]}


def from_dict(data: Any) -> NetSpec:
    """The inverse of `to_dict`; SpecError for anything else."""
    try:
        stages = tuple(StageSpec(**stage) for stage in data["stages"])
        return NetSpec(**{**data, "stages": stages})
    except (TypeError, KeyError, RecursionError) as error:
        raise SpecError(
            "spec", "This is not a net's description.", str(error), "a file that this program wrote"
        ) from None


def to_json(spec: NetSpec) -> str:
    return json.dumps(to_dict(spec), indent=1)


def from_json(text: str) -> NetSpec:
    """The inverse of `to_json`; SpecError for any other text."""
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:  # not JSON, too many digits, no text, nested too deep
        raise SpecError("spec", "A net's description is JSON.", str(error), "a file that this program wrote") from None
    return from_dict(data)


def _stages_code(stages: tuple[StageSpec, ...]) -> str:
    return "-".join(f"{s.blocks}x{s.width}s{s.stride}" for s in stages)


def _stages_from_code(text: str) -> tuple[StageSpec, ...]:
    found = [re.fullmatch(r"([0-9]{1,4})x([0-9]{1,5})s([0-9])", part) for part in text.split("-")]
    if not all(found):
        raise SpecError("stages", "Stages are written BLOCKSxWIDTHsSTRIDE.", text, "for instance 3x16s1-3x32s2")
    return tuple(StageSpec(*map(int, match.groups())) for match in found if match)


def to_code(spec: NetSpec) -> str:
    """A short name for URLs and command lines: the nearest preset and what differs, as `ResNet-20~shortcut.B`."""

    def changes(base: NetSpec) -> list[str]:
        pairs = [(f.name, getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.init]
        differ = [(name, value) for name, value in pairs if value != getattr(base, name)]
        return [f"{name}.{_stages_code(value) if name == 'stages' else value}" for name, value in differ]

    named = _named(spec.depth)
    base = min(named, key=lambda name: len(changes(named[name])))
    return "~".join([base.replace(" ", "_"), *changes(named[base])])


def from_code(code: str) -> NetSpec:
    """The inverse of `to_code`; takes `plain-20` and any CIFAR depth (`ResNet-26`) too. SpecError for anything else."""
    base, *changes = str(code).split("~")
    values: dict[str, Any] = {}
    types = {f.name: f.type for f in dataclasses.fields(NetSpec)}
    for change in changes:
        name, dot, text = change.partition(".")
        if not dot or name not in types:
            raise SpecError("net", "A change is written NAME.VALUE.", change, ", ".join(types))
        values[name] = _stages_from_code(text) if name == "stages" else _from_text(name, types[name], text)
    return dataclasses.replace(_preset(base), **values)


def _from_text(name: str, kind: Any, text: str) -> Any:
    if kind is int:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise SpecError(name, "This entry is a whole number.", text, "digits only")
        return int(text)
    if kind is bool:
        return {"True": True, "False": False}.get(text, text)
    return text


def _preset(name: str) -> NetSpec:
    name = name.replace("_", " ")
    residual = re.sub(r"^plain", "ResNet", name)
    if residual in PRESETS:
        spec = PRESETS[residual]
    elif (match := re.fullmatch(r"ResNet-([0-9]{1,4})", residual)) and (int(match[1]) - 2) % 6 == 0:
        spec = cifar(int(match[1]))
    else:
        raise SpecError("net", "A net's name starts with a preset.", name, ", ".join(PRESETS))
    return plain_twin(spec) if residual != name else spec
