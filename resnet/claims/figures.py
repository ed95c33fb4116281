"""Figures: numbers of residual nets and their plain twins, measured here, beside what others found.

`python -m resnet analyses --table` prints them, and writes those that the app ships (`SHIPPED`).
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from resnet.analysis.agreement import agreement, mean_cosine
from resnet.analysis.batches import noise_batch
from resnet.analysis.contract import last
from resnet.analysis.gradients import OUTPUT, Trend, gradient_norms, trend
from resnet.analysis.landscape import line
from resnet.analysis.lesions import lesions
from resnet.analysis.paths import mean_length, path_lengths
from resnet.analysis.shattered import AUTOCORRELATION, on_a_grid
from resnet.analysis.signal import responses, signal
from resnet.analysis.travel import travel
from resnet.files import ROOT, replace_file
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, cifar, plain_twin
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.runs.store import Run

SHIPPED = ROOT / "assets" / "figures.json"
BATCH, IMAGES, SEEDS = 128, 1000, 3
COSTS = 0.035  # of accuracy: what most single deletions cost less than


class Figure(NamedTuple):
    """A number of a net, and what `others` found for it; `id` is the same from one version to the next."""

    id: str
    analysis: str  # a key of ANALYSES, or "training"
    quantity: str
    net: str
    measure: Callable[[int], float]  # of a seed
    others: str = ""
    drawn: bool = True  # it depends on the seed


def figures() -> list[Figure]:
    """All of them: of untrained nets of depth 20, 56 and 110, and of the recorded runs."""
    families = (_gradients, _signal, _travel, _paths, _agreement, _shattered, _trained)
    return [figure for family in families for figure in family()]


def measured(found: Sequence[Figure], seeds: int = SEEDS) -> Iterator[pd.DataFrame]:
    """The table so far, after each: id, analysis, quantity, net, mean, low, high (over seeds), others, seconds."""
    rows = []
    for figure in found:
        start = time.perf_counter()
        values = [figure.measure(seed) for seed in range(seeds if figure.drawn else 1)]
        rows.append({
            "id": figure.id, "analysis": figure.analysis, "quantity": figure.quantity, "net": figure.net,
            "mean": statistics.fmean(values), "low": min(values), "high": max(values),
            "others": figure.others, "seconds": (time.perf_counter() - start) / len(values),
        })  # fmt: skip
        yield pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path = SHIPPED) -> None:
    """Keep a table of `measured` for `read`."""
    replace_file(path, json.dumps(table.to_dict("records"), indent=1, allow_nan=False) + "\n")


def read(path: Path = SHIPPED) -> pd.DataFrame:
    """The figures that came with the program."""
    return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))


def _twins(depth: int, norm: str = "batch") -> tuple[NetSpec, NetSpec]:
    net = dataclasses.replace(cifar(depth), norm=norm)
    return plain_twin(net), net


def _gradients() -> Iterator[Figure]:
    known = {
        ("batch", 20): (("26", "1.198"), ("10", "1.138")),
        ("batch", 56): (("11,300", "1.189"), ("45", "1.073")),
        ("batch", 110): (("1.9e7", "1.168"), ("78", "1.041")),
        ("none", 20): (("0.43", ""), ("11", "")),
        ("none", 56): (("0.18", ""), ("1e4", "")),
        ("none", 110): (("0.12", ""), ("3e8", "")),
    }
    for (norm, depth), texts in known.items():
        for spec, (ratio, factor) in zip(_twins(depth, norm), texts, strict=True):
            name, own = f"{'plain' if spec.plain else 'ResNet'}-{depth}", f"{norm}-{_kind(spec)}-{depth}"
            net = name + (", no norm" if norm == "none" else "")
            quantity = "gradient at the first block's input over that at the last one's output"
            yield Figure(f"ratio-{own}", "gradients", quantity, net, partial(_ratio, spec), ratio)
            quantity = "growth of the gradient per layer towards the input, fitted"
            yield Figure(f"factor-{own}", "gradients", quantity, net, partial(_factor, spec), factor)


def _kind(spec: NetSpec) -> str:
    return "plain" if spec.plain else "resnet"


@lru_cache(8)
def _trend(spec: NetSpec, seed: int) -> Trend:
    return trend(gradient_norms(build(spec, seed), *noise_batch(spec, BATCH, seed)), OUTPUT)


def _ratio(spec: NetSpec, seed: int) -> float:
    return _trend(spec, seed).ratio or 0.0


def _factor(spec: NetSpec, seed: int) -> float:
    return _trend(spec, seed).factor or 0.0


def _signal() -> Iterator[Figure]:
    spec = dataclasses.replace(cifar(8), block="preact-basic", stages=(StageSpec(27, 16, 1),))
    known = {1: "0.655", 2: "0.406", 3: "0.290", 5: "0.192", 9: "0.109", 15: "0.065", 27: "0.0375"}
    for block, text in known.items():
        quantity = f"variance of the branch over that of the shortcut at block {block}; in theory {1 / block:.3g}"
        yield Figure(
            f"share-{block}", "signal", quantity, "27 pre-activation blocks", partial(_share, spec, block), text
        )


def _share(spec: NetSpec, block: int, seed: int) -> float:
    return float(signal(build(spec, seed), noise_batch(spec, BATCH, seed)[0]).share.iloc[block - 1])


def _travel() -> Iterator[Figure]:
    for depth in (20, 56):
        _, spec = _twins(depth)
        for place, name in ((0, "first"), (-1, "last")):
            quantity = f"gradient through the branch over that through the shortcut, {name} block"
            yield Figure(f"ways-{name}-{depth}", "travel", quantity, spec.name, partial(_ways, spec, place))


def _ways(spec: NetSpec, place: int, seed: int) -> float:
    row = travel(build(spec, seed), *noise_batch(spec, BATCH, seed)).iloc[place]
    return float(row.branch / row.shortcut)


def _paths() -> Iterator[Figure]:
    for depth, text in ((20, ""), (56, "11.3")):
        _, spec = _twins(depth)
        blocks = (depth - 2) // 2
        quantity = f"mean length of the paths of {blocks} blocks, weighted by gradient; by number {blocks / 2:g}"
        yield Figure(f"length-{depth}", "paths", quantity, spec.name, partial(_length, spec), text)


def _length(spec: NetSpec, seed: int) -> float:
    return mean_length(last(path_lengths(build(spec, seed), *noise_batch(spec, 16, seed), seed=seed)))


def _agreement() -> Iterator[Figure]:
    for depth, texts in {20: ("0.02", "0.66"), 56: ("0.00", "0.87")}.items():
        for spec, text in zip(_twins(depth), texts, strict=True):
            quantity = "mean cosine between the gradients of 16 mini-batches of 64"
            yield Figure(
                f"cosine-{_kind(spec)}-{depth}", "agreement", quantity, spec.name, partial(_cosine, spec), text
            )


def _cosine(spec: NetSpec, seed: int) -> float:
    return mean_cosine(last(agreement(build(spec, seed), *noise_batch(spec, 16 * 64, seed))))


def _shattered() -> Iterator[Figure]:
    quantity = "autocorrelation of df/dx at lag 1 on a grid, mean of 20 nets"
    for layers, text in {2: "0.98", 10: "0.46", 24: "0.00", 50: "-0.01"}.items():
        measure = partial(_lag_1, (layers,), (), 1.0)
        yield Figure(f"lag-plain-{layers}", "shattered", quantity, f"plain, {layers} layers", measure, text)
    for layers, beta, text in ((10, 1.0, "0.90"), (24, 1.0, "0.81"), (50, 1.0, "0.70"), (50, 0.1, "0.93")):
        measure = partial(_lag_1, (), (layers,), beta)
        name = f"residual, {layers} blocks, beta {beta:g}"
        yield Figure(f"lag-residual-{layers}-{beta:g}", "shattered", quantity, name, measure, text)


def _lag_1(plain: tuple[int, ...], residual: tuple[int, ...], beta: float, seed: int) -> float:
    table = last(on_a_grid(plain, residual, beta, range(20 * seed, 20 * seed + 20)))
    rows = table[(table.kind == AUTOCORRELATION) & (table.x == 1) & (table.layers > 0)]
    return float(rows["value"].iloc[0])


def _trained() -> Iterator[Figure]:
    """Of the recorded nets and their plain twins; tests and lesions are of test images, as far as these are here."""
    for run in runs.recorded_twins():
        net, own = f"{run.job.net.name}, recorded", f"{_kind(run.job.net)}-{run.job.net.depth}"
        entries: dict[str, tuple[str, str, Callable[[Run, int], float]]] = {
            "accuracy": ("training", "test accuracy after the last epoch", _accuracy),
            "loss": ("training", "mean training loss of the last epoch", _loss),
            "response": ("responses", "mean standard deviation of the layers' responses", _response),
            "spared": ("lesions", f"share of the single cuts that cost less than {COSTS:.1%} of the images", _spared),
            "cut": ("lesions", "median accuracy with one block cut", _cut),
            "rise": ("line", "rise of the loss at a distance of 0.5 in a random direction", _rise),
        }
        for name, (analysis, quantity, measure) in entries.items():
            yield Figure(f"{name}-{own}", analysis, quantity, net, partial(measure, run), drawn=name == "rise")


def _accuracy(run: Run, seed: int) -> float:
    return float(run.epochs().test_accuracy.iloc[-1])


def _loss(run: Run, seed: int) -> float:
    losses, epochs = run.steps()["loss"], len(run.epochs())
    return float(losses[-len(losses) // epochs :].mean())


def _response(run: Run, seed: int) -> float:
    opened = open_run(run)
    return float(responses(opened.model, opened.test_batch(BATCH)[0])["std"].mean())


@lru_cache(1)
def _cuts(run: Run) -> tuple[float, pd.Series]:
    """The accuracy, and what is left of it with each block that can be cut."""
    opened = open_run(run)
    table = last(lesions(opened.model, *opened.test_batch(IMAGES)))
    return float(table.accuracy.iloc[0]), table[table["mode"] == "cut"].accuracy


def _spared(run: Run, seed: int) -> float:
    whole, cut = _cuts(run)
    return float((whole - cut < COSTS).mean())


def _cut(run: Run, seed: int) -> float:
    return float(_cuts(run)[1].median())


def _rise(run: Run, seed: int) -> float:
    opened = open_run(run)
    table = last(line(opened.model, *opened.test_batch(IMAGES), points=3, span=0.5, seed=seed)).set_index("a")
    return float(table.loss.drop(0.0).mean() - table.loss[0.0])
