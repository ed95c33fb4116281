"""Work without processes, and work made up for tests."""

import os
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch

from resnet.errors import Refused
from resnet.work.contract import Cost, Progress, Request
from resnet.work.process import Answer
from resnet.work.worker import REFUSED, answers


def done(request: Request) -> Any:
    """The request's result, in the test's own process."""
    work = request.run()
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


class Here:
    """Stands in for `Process`: at once, in the caller's thread."""

    def answers(self, request: Request, size: float) -> Iterator[Answer]:
        for kind, value in answers(request):
            yield Answer(kind, value, 0)

    def kill(self) -> None:
        pass


@dataclass(frozen=True)
class Held:
    """Work that is at its middle until it is let go: `Held.gates[name].set()`."""

    name: str
    bytes: float = 1e6
    seconds: float = 1.0
    alone: bool = False
    gates: ClassVar[dict[str, threading.Event]] = {}
    runs: ClassVar[list[str]] = []

    def __post_init__(self) -> None:
        self.gates.setdefault(self.name, threading.Event())

    def cost(self) -> Cost:
        return Cost(self.bytes, self.seconds)

    def run(self) -> Generator[Progress, None, str]:
        self.runs.append(self.name)
        half = Progress(0.5, f"at {self.name}", pd.DataFrame({"so far": [self.name]}))
        yield half
        while not self.gates[self.name].wait(0.01):
            yield half
        if self.name.startswith("refused"):
            raise Refused(f"No {self.name}.")
        if self.name.startswith("broken"):
            raise ZeroDivisionError(self.name)
        return f"result of {self.name}"


class Killable:
    """A `Here` that `kill` ends as it ends a process; its results have a size."""

    size = 10

    def __init__(self) -> None:
        self.killed = threading.Event()

    def answers(self, request: Request, size: float) -> Iterator[Answer]:
        self.killed.clear()
        for kind, value in answers(request):
            if self.killed.is_set():
                yield Answer(REFUSED, Refused("Killed."), 0)
                return
            yield Answer(kind, value, self.size)

    def kill(self) -> None:
        self.killed.set()


@dataclass(frozen=True)
class Misbehaving:
    """Work that goes wrong in a process of its own, or tells something of it."""

    how: str
    alone = False

    def cost(self) -> Cost:
        return Cost(1e6, 1.0)

    def run(self) -> Generator[Progress, None, Any]:
        yield Progress(0.25, "first half")
        yield Progress(0.75, "second half")
        if self.how == "refuse":
            raise Refused("A rule.", "something", "something else")
        if self.how == "break":
            raise ZeroDivisionError("nobody expected this")
        if self.how == "die":
            os._exit(3)
        if self.how == "print":
            print("a library says something")
        if self.how == "hang":
            threading.Event().wait()
        if self.how.startswith("take "):
            return torch.ones(int(self.how.split()[1]) // 4).sum().item()
        return os.getpid()
