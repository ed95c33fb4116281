"""Weights of a file into a net: what was taken, what does not fit, what was left out, in sentences."""

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from resnet.errors import Refused
from resnet.nets.model import ResNet
from resnet.nets.spec import NetSpec, SpecError
from resnet.zoo.layouts import PREACTIVATION, Found, ancestors, find, is_counter, matches
from resnet.zoo.weights import WeightsFile

_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")  # the latter two are thop's
_LISTED = 4  # names in a sentence
PROBLEMS = {  # of a weight, and the sentence's reason
    "missing": "the file has none",
    "shape": "the file has another shape",
    "type": "the file has numbers of another type",
    "unexpected": "",
}


class Misfit(NamedTuple):
    """What does not fit: "missing" in the file, of another "shape" or "type", or "unexpected" inside the net."""

    key: str
    problem: str
    net: str  # shape or type, "" where it has none
    file: str


@dataclass(frozen=True)
class Report:
    """How a file's weights fit a net, and what `fit` loaded of them.

    `fitting` of `total` weights fit; `taken` says where in the file they lie, `left_out` what else is there;
    with `changes` to its spec the net would take them all, as {"classes": 10}.
    """

    net: str
    loaded: tuple[str, ...]
    misfits: tuple[Misfit, ...]
    fitting: int
    total: int
    taken: str
    left_out: tuple[str, ...]
    changes: dict[str, Any]

    @property
    def fits(self) -> bool:
        """True where the file has all that the net needs, and is of no larger net."""
        return not self.misfits

    def table(self) -> pd.DataFrame:
        """One row per misfit: key, problem, the net's shape, the file's shape."""
        return pd.DataFrame(list(self.misfits), columns=list(Misfit._fields))

    def sentences(self) -> tuple[str, ...]:
        """All that a reader should know, most important first."""
        left_out = f"Left out: {_listed(self.left_out, 8)}." if self.left_out else ""
        return tuple(filter(None, [self._outcome(), self._advice(), self.taken, left_out]))

    def _outcome(self) -> str:
        if self.fits:
            return f"All {self.total} weights were loaded."
        count, lacking = f"{self.fitting} of {self.total} weights", "; ".join(self._lacking())
        if self.loaded:
            return f"{count} were loaded; {lacking}."
        return f"Nothing was loaded: {count} fit {self.net}; {lacking}."

    def _lacking(self) -> Iterator[str]:
        """For each kind of misfit "fc.weight and fc.bias stay at their start (the file has none)" or the like."""
        for problem, why in PROBLEMS.items():
            keys = [misfit.key for misfit in self.misfits if misfit.problem == problem]
            names, many = _listed(keys), len(keys) > 1
            if keys and problem == "unexpected":
                yield f"the net lacks {names}, so the file is another net's"
            elif keys and self.loaded:
                why = f"the file has {self._changed()}" if problem == "shape" and self.changes else why
                yield f"{names} {'stay at their' if many else 'stays at its'} start ({why})"
            elif keys:
                yield f"for {names} {why}"

    def _changed(self) -> str:
        """What the file has instead: "10 classes and 1 input channel"."""
        channel = "input channel" if self.changes.get("in_channels") == 1 else "input channels"
        words = {"classes": "classes", "in_channels": channel}
        return " and ".join(f"{value} {words[name]}" for name, value in self.changes.items())

    def _advice(self) -> str:
        if self.loaded:
            return ""
        if self.changes:
            return f"This file has {self._changed()}: choose a net with {self._changed()}, or load all that fits."
        return "Load all that fits, or choose another net." if 2 * self.fitting > self.total else "Choose another net."


def _listed(names: Sequence[str], most: int = _LISTED) -> str:
    """ "a, b and c", or "a, b, c, d and 57 more"."""
    shown = [f"{name:.80}" for name in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most:,} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def fit(model: ResNet, file: WeightsFile, partial: bool = False) -> Report:
    """Load a file's weights into a net where all that it needs fits, else load nothing; `partial` loads what fits.

    Refused where the net is on the meta device, or the file is timm's BiT.
    """
    needed = model.state_dict()
    if any(value.is_meta for value in needed.values()):
        raise Refused("Weights need a net in memory.", "one on the meta device", "device cpu")
    found = find(file.tensors, needed)
    if found.place.layout == PREACTIVATION and model.spec.norm == "group":
        what = "standardise their weights in each pass, which no net here does: its answers would be others"
        raise Refused(f"timm's pre-activation nets with group norms (BiT) {what}.", choices="resnetv2_50's weights")
    values = {ours: file.tensors[key] for ours, key in found.keys.items()}
    if "fc.weight" in values:  # perhaps a 1x1 convolution
        values["fc.weight"] = values["fc.weight"].squeeze(tuple(range(2, values["fc.weight"].dim())))
    fitting = {ours: value for ours, value in values.items() if matches(value, needed[ours])}
    unexpected = _unexpected(model, file, found)
    misfits = *_misfits(needed, values), *unexpected.values()
    loading = fitting if partial or not misfits else {}
    model.load_state_dict(loading, strict=False)
    return Report(
        net=model.spec.name,
        loaded=tuple(name for name in needed if name in loading),
        misfits=misfits,
        fitting=len(fitting),
        total=sum(name in fitting or not is_counter(name) for name in needed),
        taken=_taken(found),
        left_out=(*_left_out(file, found, unexpected), *file.others),
        changes=_changes(model.spec, misfits, needed, values),
    )


def _misfits(needed: dict[str, Tensor], values: dict[str, Tensor]) -> Iterator[Misfit]:
    for name, wanted in needed.items():
        value = values.get(name)
        if is_counter(name) or (value is not None and matches(value, wanted)):
            continue
        if value is None:
            yield Misfit(name, "missing", _shape(wanted), "")
        elif value.shape != wanted.shape:
            yield Misfit(name, "shape", _shape(wanted), _shape(value))
        else:
            yield Misfit(name, "type", str(wanted.dtype), str(value.dtype))


def _unexpected(model: ResNet, file: WeightsFile, found: Found) -> dict[str, Misfit]:
    """Entries beside the net's in the parts that the net has too: the file is of a larger or another net.

    A part is what a name begins with, but for its digits: layer, conv, bn, maxpool.
    """
    prefix, used = found.place.prefix, set(found.keys.values())
    names = [key.removeprefix(prefix) for ours, key in found.keys.items() if not ours.startswith("fc.")]
    parts = {_part(name) for name in [*names, *dict(model.named_children())]} - {"fc"} if names else set()
    rest = [key for key in file.tensors if key.startswith(prefix) and key not in used and not key.endswith(_COUNTERS)]
    inside = [key for key in rest if _part(key.removeprefix(prefix)) in parts]
    return {key: Misfit(key, "unexpected", "", _shape(file.tensors[key])) for key in inside}


def _part(name: str) -> str:
    return re.sub(r"\d+", "#", re.split(r"[./]", name)[0])


def _taken(found: Found) -> str:
    where, _, prefix = found.place.prefix.rpartition("/")
    head = found.head.removeprefix(found.place.prefix)
    said = [
        where,
        prefix and f"names after {prefix[:-1]}",
        "" if found.place.layout == "torchvision" else f"names as in {found.place.layout}",
        "" if head in ("", "fc") else f"head {head}",
    ]
    return f"Taken: {', '.join(filter(None, said))}." if any(said) else ""


def _left_out(file: WeightsFile, found: Found, said: Collection[str]) -> Iterator[str]:
    """Each dict or prefix beside the one taken, with its number of tensors, and whether it is a copy of the net."""
    used, roots = {*found.keys.values(), *said}, ancestors(found.place.prefix)[::-1]

    def group(key: str) -> str:
        root = next(root for root in roots if key.startswith(root))
        return root + re.split(r"[./]", key.removeprefix(root))[0]

    copies = {group(prefix) for prefix in found.copies}
    for name, count in Counter(group(key) for key in file.tensors if key not in used).items():
        tensors = f"{count:,} tensor{'s' if count > 1 else ''}"
        yield f"{name:.80} ({tensors}{', a copy of the net' if name in copies else ''})"


def _changes(
    spec: NetSpec, misfits: tuple[Misfit, ...], needed: dict[str, Tensor], values: dict[str, Tensor]
) -> dict[str, Any]:
    """The number of classes, of channels in, or both, with which the file would fit; {} where that is not all."""
    changes: dict[str, Any] = {}
    for misfit in misfits:
        name, axis = {"fc.weight": ("classes", 0), "fc.bias": ("classes", 0)}.get(misfit.key, ("in_channels", 1))
        shape = list(needed[misfit.key].shape) if misfit.problem == "shape" else []
        if not shape or (name == "in_channels" and misfit.key != "conv1.weight") or values[misfit.key].dim() <= axis:
            return {}
        changes[name] = shape[axis] = values[misfit.key].shape[axis]
        if tuple(shape) != values[misfit.key].shape:
            return {}
    try:
        dataclasses.replace(spec, **changes)
    except SpecError:
        return {}
    return changes


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"
