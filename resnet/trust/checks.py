"""Can the map be believed? Checks behind one contract, (model, case) -> Finding.

A new check is a module with a `Check` and a line in `CHECKS`.
"""

import dataclasses
from collections.abc import Generator, Mapping

import torch
from torch import nn

from resnet.attribution.methods import explaining
from resnet.errors import Refused, choose
from resnet.nets.borrow import borrowed
from resnet.trust.completeness import COMPLETENESS
from resnet.trust.content import CONTENT, broken
from resnet.trust.contract import Case, Check, Finding, Step
from resnet.trust.grid import DIFULL, GRID_POINTING
from resnet.trust.localisation import MASS, POINTING, TOP
from resnet.trust.randomisation import CASCADE, COMPLEXITY, HEAD
from resnet.trust.removal import DELETION, INSERTION, ROAD
from resnet.trust.single import SINGLE
from resnet.trust.targets import TARGETS

CHECKS: dict[str, Check] = {
    "content": CONTENT,
    "completeness": COMPLETENESS,
    "deletion": DELETION,
    "insertion": INSERTION,
    "road": ROAD,
    "targets": TARGETS,
    "head": HEAD,
    "cascade": CASCADE,
    "complexity": COMPLEXITY,
    "single": SINGLE,
    "difull": DIFULL,
    "grid": GRID_POINTING,
    "pointing": POINTING,
    "mass": MASS,
    "top": TOP,
}


def judge(check: str, model: nn.Module, case: Case) -> Finding:
    """What a check says of a case's maps, which it computes where the case has none.

    The net is borrowed in eval mode: nothing in it changes, but nobody else may use it meanwhile. Refused for an
    unknown check, where the check does not apply, and as `explain` refuses.
    """
    outcome: list[Finding] = []
    for _ in _judging(check, model, case, outcome):
        pass
    return outcome[0]


def judging(check: str, model: nn.Module, case: Case) -> Generator[Step, None, None]:
    """The same as `judge`, step by step; the net is borrowed until the generator is exhausted or closed."""
    outcome: list[Finding] = []
    yield from map(Step, _judging(check, model, case, outcome))
    yield Step(1.0, outcome[0])


def _judging(check: str, model: nn.Module, case: Case, outcome: list[Finding]) -> Generator[float, None, None]:
    chosen = choose("check", check, CHECKS)
    if reason := chosen.reason(model, case.method):
        raise Refused(reason)
    case = _fitting(case, model)
    case = yield from _mapped(case, model)
    if sentence := broken(case.maps):
        outcome.append(Finding(float("nan"), "bad", sentence))
        return
    with borrowed(model), torch.no_grad():
        outcome.append((yield from chosen.function(model, case)))


def _mapped(case: Case, model: nn.Module) -> Generator[float, None, Case]:
    """The case with its maps."""
    if not case.maps.numel():
        steps = explaining(case.method, model, case.images, case.target, case.layer, case.options, case.against)
        for partial in steps:
            yield 0.0
            case = dataclasses.replace(case, maps=partial.maps)
    return case


def _fitting(case: Case, model: nn.Module) -> Case:
    """The case on the model's device and in its dtype."""
    images = case.images.detach().to(next(model.parameters(), case.images))
    maps = case.maps.detach().to(images.device).float()
    target = torch.as_tensor(case.target).to(images.device).long().expand(len(images))
    return dataclasses.replace(case, images=images, maps=maps, target=target)


BLANKING = ("deletion", "insertion")  # a net that never saw blanked pixels may answer to the blanks themselves
CONFIRMING = ("deletion", "road", "completeness")


def label(findings: Mapping[str, Finding]) -> tuple[str, str]:
    """What the findings of a method on a net, by their check, say together: the label, and why.

    "do not trust": a check found the map wrong, other than by blanking pixels; "verified here": its sum holds where it
    promises one, and its order beats random orders in deletion, blanked and imputed; else "unverified".
    """
    for name, finding in findings.items():
        if finding.verdict == "bad" and name not in BLANKING:
            return "do not trust", f"{CHECKS[name].title}: {finding.sentence}"
    verdicts = {"completeness": "good"} | {name: finding.verdict for name, finding in findings.items()}
    missing = [CHECKS[name].title for name in CONFIRMING if verdicts.get(name) != "good"]
    if missing:
        return "unverified", f"No check found the map wrong, but these did not confirm it: {', '.join(missing)}."
    return "verified here", "Its order beats random orders, and its sum holds where it promises one."
