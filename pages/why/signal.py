"""Signal: how much each block and each layer adds on the way forward."""

from collections.abc import Iterator

import pandas as pd

from pages.ui import analysis
from pages.ui.analysis import Drawn
from resnet.plots import signal as plots


def variance(frame: pd.DataFrame) -> Iterator[Drawn]:
    last = frame.dropna(subset="share").groupby("net", sort=False).tail(1)
    ends = "; ".join(f"{row.share:.3g} in the last block of {row.net}" for row in last.itertuples())
    text = "Variance of each block's output, and that of its branch over that of its shortcut, in train mode"
    yield Drawn(plots.forward_variance(frame), f"{text}. The share: {ends}." if ends else f"{text}.")


def responses(frame: pd.DataFrame) -> Iterator[Drawn]:
    means = "; ".join(f"{net} {value:.3g}" for net, value in frame.groupby("net", sort=False)["std"].mean().items())
    text = "Standard deviation of each convolution's response after its norm, in running order and sorted."
    yield Drawn(plots.layer_responses(frame), f"{text} On average: {means}.")


analysis.page({"signal": variance, "responses": responses})
