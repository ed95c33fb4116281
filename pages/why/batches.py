"""Batches: whether mini-batches ask for the same step, and gradients change smoothly from input to input."""

from collections.abc import Iterator

import pandas as pd

from pages.ui import analysis
from pages.ui.analysis import Drawn
from resnet.analysis.agreement import mean_cosine
from resnet.plots import batches as plots


def tables(frame: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], dict[str, bool]]:
    """Each net's rows by its name, and whether it is plain."""
    groups = {str(net): rows for net, rows in frame.groupby("net", sort=False)}
    return groups, {net: bool(rows.plain.iloc[0]) for net, rows in groups.items()}


def agreement(frame: pd.DataFrame) -> Iterator[Drawn]:
    groups, plain = tables(frame)
    means = "; ".join(f"{mean_cosine(rows):.2f} in {net}" for net, rows in groups.items())
    yield Drawn(plots.cosine_maps(groups), f"Cosines between the gradients of mini-batches. On average: {means}.")
    yield Drawn(plots.cosine_histogram(groups, plain), "How often which cosine is between two different mini-batches.")


def shattered(frame: pd.DataFrame) -> Iterator[Drawn]:
    groups, plain = tables(frame)
    lags = {net: rows[(rows.kind == "autocorrelation") & (rows.x == 1)]["value"] for net, rows in groups.items()}
    said = "; ".join(f"{float(value.iloc[0]):.2f} in {net}" for net, value in lags.items() if len(value))
    text = "The derivative of a logit along the straight line from one picture of the batch to another, scaled to 1."
    yield Drawn(plots.line_gradient(groups, plain, "from the first picture (0) to the last one (1)"), text)
    text = "Correlation of this derivative with itself, a few points further on. White noise has 0, a smooth line 1."
    yield Drawn(plots.autocorrelations(groups, plain), f"{text} At lag 1: {said}.")


analysis.page({"agreement": agreement, "shattered": shattered})
