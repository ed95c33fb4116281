"""What the scheduler, its processes and whoever asks for work agree on."""

import math
from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

from resnet.limits import UNASKED_BYTES, UNASKED_S


class Cost(NamedTuple):
    """What work is predicted to take on the CPU: bytes at its peak and seconds."""

    bytes: float
    seconds: float

    @property
    def light(self) -> bool:
        """Whether a page may start it without being asked."""
        return self.seconds <= UNASKED_S and self.bytes <= UNASKED_BYTES

    def __str__(self) -> str:
        memory = f"{self.bytes / 1e9:.1f} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:.0f} MB"
        return f"about {duration(max(1.0, self.seconds))}, {memory}"


def duration(seconds: float) -> str:
    """9 s, 3 min, 1.5 h."""
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress(NamedTuple):
    """How much of the work is done (0 to 1), what it is at, and what is known so far, where a page can show that."""

    share: float
    text: str = ""
    so_far: Any = None


class Request(Protocol):
    """Work to be done: a frozen dataclass of plain values, so that equal requests are the same work.

    `cost()` predicts from the net's profile what it takes, without doing it; Refused where it cannot be done.
    `run()` does it in a process of its own: it yields how far it is and returns the result. `alone`: it measures time,
    so nothing else may run meanwhile.
    """

    @property
    def alone(self) -> bool: ...

    def cost(self) -> Cost: ...

    def run(self) -> Generator[Progress, None, Any]: ...
