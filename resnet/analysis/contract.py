"""What an analysis is given, what it gives, and what it says of itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from torch import nn


class Partial(NamedTuple):
    """What an analysis knows after a `share` (0 to 1) of its work; the last one, at 1.0, has the whole table."""

    share: float
    table: pd.DataFrame


Steps = Iterator[Partial]


def _applies(model: nn.Module) -> str:
    return ""


@dataclass(frozen=True)
class Analysis:
    """A measurement of a net on a batch, and how to read it.

    `function(model, images, labels, **options)`: any nn.Module, prepared images (N, C, *S) and labels (N,) in; it
    yields a `Partial` as it goes, the last one with the whole table. It borrows the net and leaves it as it was, and
    draws random numbers from the option "seed" alone. `reason(model)` says in a sentence why the analysis does not
    apply to a net, "" where it does. `passes(blocks, options)`: so many forward passes it runs for each image on a net
    of so many blocks, where a backward pass counts as two.
    """

    title: str
    question: str  # that it answers
    function: Callable[..., Steps]
    formula: str  # Markdown with LaTeX between $
    paper: str
    look: str  # what to look for in the figure
    expect: str  # a question to answer before the figure is shown, and what to think of
    options: Mapping[str, Any] = field(default_factory=dict)  # with their usual values
    images: int = 128  # that it is usually given
    together: int = 0  # images that are in memory at once; 0 is all
    passes: Callable[[int, Mapping[str, Any]], float] = lambda blocks, options: 3
    reason: Callable[[nn.Module], str] = _applies
    kept: bool = False  # the app keeps a run's table on the disk, because it takes long


def last(steps: Steps) -> pd.DataFrame:
    """The whole table of an analysis."""
    table = pd.DataFrame()
    for partial in steps:
        table = partial.table
    return table


def beside(nets: Sequence[tuple[str, bool]], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of nets in one, with the columns net (its title, numbered where two are alike) and plain.

    `nets`: title, and whether it is a plain net. Of the last ones there may be no tables yet.
    """
    titles, named = [title for title, _ in nets], []
    for place, ((title, plain), table) in enumerate(zip(nets, tables, strict=False), 1):
        number = f" ({titles[:place].count(title)})" if titles.count(title) > 1 else ""
        named.append(table.assign(net=title + number, plain=plain))
    return pd.concat(named, ignore_index=True)
