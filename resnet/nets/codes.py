"""A net's description as text: plain dicts and JSON for files, a short code for addresses and command lines."""

import dataclasses
import json
import re
from typing import Any

from resnet.nets.names import resolve
from resnet.nets.spec import PRESETS, NetSpec, SpecError, StageSpec, cifar, named_nets


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


_STAGE = re.compile(r"([0-9]{1,4})x([0-9]{1,5})s([0-9])(?:d([0-9]{1,2}))?([A-Z]|[a-z]{3,})?")


def _stages_code(stages: tuple[StageSpec, ...]) -> str:
    dilated = (f"d{s.dilation}" if s.dilation > 1 else "" for s in stages)
    return "-".join(f"{s.blocks}x{s.width}s{s.stride}{d}{s.shortcut}" for s, d in zip(stages, dilated, strict=True))


def _stages_from_code(text: str) -> tuple[StageSpec, ...]:
    found = [_STAGE.fullmatch(part) for part in text.split("-")]
    if not all(found):
        rule = "Stages are written BLOCKSxWIDTHsSTRIDE, then dDILATION and a shortcut where they are not the usual."
        raise SpecError("stages", rule, text, "for instance 3x16s1-3x32s2 or 3x16s1-3x32s1d2B")
    groups = [match.groups() for match in found if match]
    return tuple(StageSpec(int(b), int(w), int(s), int(d or 1), kind or "") for b, w, s, d, kind in groups)


def to_code(spec: NetSpec) -> str:
    """A short name for URLs and command lines: the nearest preset and what differs, as `ResNet-20~shortcut.B`."""

    def changes(base: NetSpec) -> list[str]:
        pairs = [(f.name, getattr(spec, f.name)) for f in dataclasses.fields(spec) if f.init]
        differ = [(name, value) for name, value in pairs if value != getattr(base, name)]
        return [f"{name}.{_stages_code(value) if name == 'stages' else value}" for name, value in differ]

    named = named_nets(spec.depth)
    base = min(named, key=lambda name: len(changes(named[name])))
    return "~".join([base.replace(" ", "_"), *changes(named[base])])


def from_code(code: str) -> NetSpec:
    """The inverse of `to_code`; takes any name that `resolve` knows for its first part. SpecError for anything else."""
    name, *changed = str(code).split("~")
    base, *changes = [*resolve(name).split("~"), *changed]
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
    if kind is float:
        if not re.fullmatch(r"[0-9](\.[0-9]{1,17})?(e-[0-9]{1,3})?", text):
            raise SpecError(name, "This entry is a number below 10.", text, "for instance 0.2")
        return float(text)
    if kind is bool:
        return {"True": True, "False": False}.get(text, text)
    return text


def _preset(name: str) -> NetSpec:
    return PRESETS[name] if name in PRESETS else cifar(int(name.rpartition("-")[2]))
