"""The league: every attribution method that applies to a net, judged by every check on the same pictures.

A row is plain values, so that it can be kept as JSON.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Passes
from resnet.attribution.methods import METHODS, explaining
from resnet.errors import Refused
from resnet.files import FOLDERS, ROOT, digest, replace_file
from resnet.trust.checks import CHECKS, judging, label
from resnet.trust.contract import Case, Facts, Finding, Spread, Verdict

PASSES = 10_000  # forward passes that a check may run, a backward pass counts as two; beyond, it sees fewer pictures
LEAST_IMAGES = 5  # that any check sees
CHUNK = 10  # pictures that are explained at once
COUNTED = "resnet/attribution", "resnet/trust", "resnet/nets", "resnet/data"  # code that a league depends on
PACKAGES = "torch", "captum"
VERSION = 1  # of the file

Row = dict[str, Any]  # method, label, why, and findings: by check its value, verdict, sentence and random


class Part(NamedTuple):
    """How far a league is: the share of its work, what it is at, and the rows of the methods that are judged."""

    share: float
    text: str
    rows: list[Row]


def league(model: nn.Module, case: Case, methods: Sequence[str] = (), checks: Sequence[str] = ()) -> Iterator[Part]:
    """Judge the methods, all that apply to the net by default, by the checks on the case's pictures.

    The case's own method and maps do not count; its layer is that of the methods that work at one, and the one at which
    all are judged in a grid. Whatever applies is judged, on the first pictures alone where it costs much.
    """
    chosen = [name for name in methods or METHODS if not METHODS[name].reason(model)]
    rows: list[Row] = []
    for number, method in enumerate(chosen):
        yield Part(number / len(chosen), METHODS[method].title, rows)
        own = dataclasses.replace(case, method=method, options={}, maps=torch.empty(0))
        findings: dict[str, Finding] = {}
        try:
            for share, text in _judged(model, own, checks or list(CHECKS), findings):
                yield Part((number + share) / len(chosen), f"{METHODS[method].title}: {text}", rows)
            rows = [*rows, _row(method, *label(findings), findings)]
        except Refused as refused:  # a map with NaN
            rows = [*rows, _row(method, "do not trust", str(refused), findings)]
    yield Part(1.0, "done", rows)


def _judged(
    model: nn.Module, case: Case, checks: Sequence[str], findings: dict[str, Finding]
) -> Iterator[tuple[float, str]]:
    """Fill in the findings; yields the share that is done, and the check."""
    facts, own = Facts(tuple(case.images.shape[2:]), model(case.images[:1]).shape[1]), method_passes(model, case)
    applying = [check for check in checks if not CHECKS[check].reason(model, case.method)]
    maps: list[Tensor] = []
    for part in range(0, len(case.images), CHUNK):
        which = slice(part, part + CHUNK)
        for found in explaining(case.method, model, case.images[which], case.target[which], case.layer):
            last = found.maps
            yield 0.0, "maps"
        maps.append(last)
    case = dataclasses.replace(case, maps=torch.cat(maps))
    for number, check in enumerate(applying):
        count = judged_images(len(case.images), check_passes(check, facts, own))
        for step in judging(check, model, first(case, count)):
            if step.finding:
                few = f"On the first {count} pictures: " if count < len(case.images) else ""
                findings[check] = dataclasses.replace(step.finding, sentence=few + step.finding.sentence)
            yield (number + step.share) / len(applying), CHECKS[check].title


def check_passes(check: str, facts: Facts, own: Passes) -> Passes:
    """What a check runs for each image whose map, which takes `own`, is there already."""
    all_in = CHECKS[check].passes(facts, own)
    return Passes(all_in.forward - own.forward, all_in.backward - own.backward)


def judged_images(images: int, passes: Passes) -> int:
    """How many of the images a check sees that runs so much for each."""
    affordable = int(PASSES / max(1, passes.forward + 2 * passes.backward))
    return min(images, max(LEAST_IMAGES, affordable))


def first(case: Case, count: int) -> Case:
    """The case of its first images alone; the others may still stand beside them in a grid."""
    if count == len(case.images):
        return case
    return dataclasses.replace(
        case, images=case.images[:count], target=case.target[:count], maps=case.maps[:count],
        objects=case.objects[:count], others=case.images[count:], shared={},
    )  # fmt: skip


def method_passes(model: nn.Module, case: Case) -> Passes:
    """What the case's method runs for one picture, by the channels of its layer."""
    method = METHODS[case.method]
    widths = [p.shape[0] for p in model.get_submodule(case.layer).parameters() if p.dim() > 1] if case.layer else []
    return method.passes(method.options, widths[-1] if widths else 0)


def _row(method: str, found: str, why: str, findings: Mapping[str, Finding]) -> Row:
    kept = {name: _plain(finding) for name, finding in findings.items()}
    return {"method": method, "label": found, "why": why, "findings": kept}


def _plain(finding: Finding) -> dict[str, Any]:
    value = None if math.isnan(finding.value) else finding.value
    random = None if finding.random is None else list(finding.random)
    return {"value": value, "verdict": finding.verdict, "sentence": finding.sentence, "random": random}


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a method: its title, the value of each check, NaN where it was not judged, the label and why."""
    columns = [check for check in CHECKS if any(check in row["findings"] for row in rows)]
    lines = [
        {"method": METHODS[row["method"]].title if row["method"] in METHODS else row["method"]}
        | {CHECKS[check].title: row["findings"].get(check, {}).get("value") for check in columns}
        | {"label": row["label"], "why": row["why"]}
        for row in rows
    ]
    names = ["method", *(CHECKS[check].title for check in columns), "label", "why"]
    return pd.DataFrame(lines, columns=names).astype({CHECKS[check].title: float for check in columns})


def finding_of(row: Row, check: str) -> Finding:
    """A finding of a row, without what is not kept: the values of single pictures, curves and examples."""
    kept = row["findings"][check]
    verdict: Verdict = kept["verdict"]
    value = math.nan if kept["value"] is None else kept["value"]
    return Finding(value, verdict, kept["sentence"], kept["random"] and Spread(*kept["random"]))


# A league on the disk


def settings(**own: object) -> dict[str, Any]:
    """All that a league depends on beside `own` (net, weights, pictures): methods' options, versions, our code."""
    return own | {
        "version": VERSION,
        "options": {name: dict(method.options) for name, method in METHODS.items()},
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "code": _code(),
    }


def _code() -> str:
    code = hashlib.sha256()
    for path in sorted(path for folder in COUNTED for path in (ROOT / folder).glob("*.py")):
        code.update(path.name.encode() + b"\0" + path.read_bytes())
    return code.hexdigest()


def kept_at(depends_on: Mapping[str, Any]) -> Path:
    """Where a league with these settings is kept: a file named by their SHA-256."""
    return FOLDERS.user_cache_path / "leagues" / f"{digest(depends_on)}.json"


def keep(depends_on: Mapping[str, Any], rows: Sequence[Row]) -> Path:
    """Write a league's rows, with its settings, for `kept` to find."""
    path = kept_at(depends_on)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps({"settings": dict(depends_on), "rows": list(rows)}, indent=1, allow_nan=False))
    return path


def kept(depends_on: Mapping[str, Any]) -> list[Row] | None:
    """The rows of a league with exactly these settings, None where there is none that can be read."""
    try:
        held = json.loads(kept_at(depends_on).read_text(encoding="utf-8"))
        rows = held["rows"]
        [finding_of(row, check) for row in rows for check in row["findings"]]
        return rows if held["settings"] == json.loads(json.dumps(depends_on)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
