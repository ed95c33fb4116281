"""The figures of gradient norms, for the pages that show them."""

from collections.abc import Iterator

import pandas as pd

from pages.ui.analysis import Drawn
from pages.ui.widgets import amount
from resnet.analysis.gradients import OUTPUT, THEORY, WEIGHT, trend
from resnet.plots import analysis as plots


def reading(frame: pd.DataFrame, kind: str) -> str:
    """What happens to the norms of each net on the way back to the input."""
    words = []
    for net, rows in frame.groupby("net", sort=False):
        found = trend(rows, kind)
        change = "nothing to fit" if found.factor is None else f"×\N{NO-BREAK SPACE}{found.factor:#.3g} per layer"
        text = f"{change} in {net}"
        if found.ratio is not None and kind == OUTPUT:
            larger = found.ratio >= 1
            times = amount(found.ratio if larger else 1 / found.ratio)
            text += f", {times} times {'larger' if larger else 'smaller'} at the input end"
        if found.left_out:
            text += f" ({found.left_out} of {found.norms} norms are 0 or not finite: a log axis cannot show them)"
        words.append(text)
    return f"Towards the input: {'; '.join(words)} (least-squares fits to the log over the stages)"


def draw(frame: pd.DataFrame) -> Iterator[Drawn]:
    weights = frame[frame.kind == WEIGHT]
    stages = weights.assign(stage=weights.name.str.extract(r"^layer(\d+)\.", expand=False)).dropna(subset="stage")
    borders = {f"stage {stage}": float(rows.depth.min()) for stage, rows in stages.groupby("stage")}
    for kind, quantity, text in [
        (OUTPUT, "||dL/dx||", "Gradient of the loss with respect to the stem's and each block's output"),
        (WEIGHT, "||dL/dW||", "Gradient of the loss with respect to each layer's weights"),
    ]:
        rows = frame[frame.kind == kind]
        figure = plots.gradient_depth(rows, borders, f"{quantity} (L2 norm)", THEORY if kind == OUTPUT else None)
        yield Drawn(figure, f"{text}, on one batch in train mode. {reading(frame, kind)}.")
