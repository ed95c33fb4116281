"""Paths: where the gradient travels, and how long the paths are that it takes."""

from collections.abc import Iterator

import pandas as pd

from pages.ui import analysis
from pages.ui.analysis import Drawn
from resnet.analysis.paths import mean_length
from resnet.plots import signal as plots


def travel(frame: pd.DataFrame) -> Iterator[Drawn]:
    first = frame.groupby("net", sort=False).first()
    ways = "; ".join(
        f"{row.branch:.3g} through the branch and {row.shortcut:.3g} through the shortcut in {net}"
        for net, row in first.iterrows()
    )
    text = "Norm of the part of each block's dL/dx that came through either way, and the cosine between the two."
    yield Drawn(plots.gradient_ways(frame), f"{text} In the first block: {ways}.")


def lengths(frame: pd.DataFrame) -> Iterator[Drawn]:
    means = "; ".join(
        f"{mean_length(rows):.1f} branches in {net}, where half of the blocks are {rows.length.max() / 2:g}"
        for net, rows in frame.groupby("net", sort=False)
    )
    text = "How many paths there are of each length, the mean gradient that comes through one, and the product."
    yield Drawn(plots.lengths_of_paths(frame), f"{text} Weighted by gradient, the mean length is {means}.")


analysis.page({"travel": travel, "paths": lengths})
