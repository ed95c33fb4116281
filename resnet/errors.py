"""The library's one kind of error: what cannot be done as asked, in sentences that a page shows as they are."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class Refused(ValueError):
    """`rule`: what must hold, or what went wrong; `received`: what came instead; `choices`: what would do.

    The text is "RULE Received RECEIVED. Choose CHOICES.", without what is not given.
    """

    def __init__(self, rule: str, received: object = None, choices: str = "") -> None:
        super().__init__(rule, received, choices)  # all of them, so that it reaches another process whole
        self.rule, self.received, self.choices = rule, received, choices

    def __str__(self) -> str:
        received = "" if self.received is None else f"Received {self.received}."
        return " ".join(filter(None, [self.rule, received, self.choices and f"Choose {self.choices}."]))


def choose(what: str, name: object, table: Mapping[str, T]) -> T:
    """The entry of that name; Refused, with the names that there are, where there is none."""
    if not isinstance(name, str) or name not in table:
        raise Refused(f"The {what} must be one this program knows.", repr(name), ", ".join(table))
    return table[name]
