"""Where the weights of a net come from, named so that another process can load them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet.nets.model import ResNet, build
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.weights import load_model

if TYPE_CHECKING:  # torchvision is slow to import, and takes 80 MB of each worker
    from resnet.zoo.weights import Report


@dataclass(frozen=True)
class Weights:
    """`kind` is one of SOURCES and `name` a seed, a run's id, a version as IMAGENET1K_V2 or a file's path.

    `step` tells a run's checkpoints apart.
    """

    kind: str
    name: str
    step: int = 0

    def load(self, spec: NetSpec) -> tuple[ResNet, "Report | None"]:
        """The net with these weights, and for a file what did not fit. Refused."""
        return SOURCES[self.kind](spec, self.name)


def _untrained(spec: NetSpec, name: str) -> tuple[ResNet, None]:
    return build(spec, int(name)), None


def _of_run(spec: NetSpec, name: str) -> tuple[ResNet, None]:
    return load_model(runs.find(name)), None


def _torchvisions(spec: NetSpec, name: str) -> "tuple[ResNet, Report]":
    from resnet.zoo.weights import fit, load_torchvision, offered

    model = build(spec)
    return model, fit(model, load_torchvision(offered(spec.name)[name]))


def _of_file(spec: NetSpec, name: str) -> "tuple[ResNet, Report]":
    from resnet.zoo.weights import fit, read

    model = build(spec)
    return model, fit(model, read(Path(name)))


SOURCES: "dict[str, Callable[[NetSpec, str], tuple[ResNet, Report | None]]]" = {
    "seed": _untrained,
    "run": _of_run,
    "torchvision": _torchvisions,
    "file": _of_file,
}
