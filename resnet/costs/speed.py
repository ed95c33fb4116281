"""How fast a net runs on this machine, and how far that is from what the machine can do.

Generators, so that a page can show each result so far and stop: the last one is the best.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.costs.profiler import FLOPS_PER_MAC, profile
from resnet.costs.recorder import Row
from resnet.devices import DTYPES, autocast, wait
from resnet.errors import Refused, choose
from resnet.limits import MAX_BATCH
from resnet.nets.model import ResNet, build, memory_format
from resnet.nets.spec import NetSpec

WARM_UP = 2  # runs: the first ones choose kernels and fill caches
MAX_SECONDS = 600.0


@dataclass(frozen=True)
class Latency:
    """Seconds of each forward pass of `batch` images, in eval mode without gradients, after the warm-up."""

    batch: int
    device: str
    precision: str
    threads: int
    times: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.times))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.times, [0.25, 0.75])
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median: above 0.1 something else was running."""
        low, high = self.quartiles
        return (high - low) / self.median

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median


@dataclass(frozen=True)
class Ceilings:
    """The best that this machine shows, so that nothing is faster.

    flops (FLOP/s): of a matrix product, a 1x1 and a 3x3 convolution, whichever is fastest. copies: pairs of bytes, read
    and written together, and the bytes/s of a copy that moves so many, from few to many: small ones stay in a cache.
    """

    device: str
    precision: str
    flops: float
    copies: tuple[tuple[int, float], ...]

    def seconds(self, rows: Sequence[Row], batch: int, training: bool = False) -> float:
        """The least that layers take which run one by one, each as long as its sums or its bytes need (a roofline).

        A training step runs each three times, but passes no gradient to the images.
        """
        least = 0.0
        for row, size in zip(rows, traffic(rows, batch, self.precision), strict=True):
            once = max(FLOPS_PER_MAC * batch * row.macs / self.flops, size / self._bandwidth(size))
            least += (3 - row.first if training else 1) * once
        return least

    def _bandwidth(self, size: int) -> float:
        """Of the best copy of so many bytes or more."""
        smaller = sum(of <= size for of, _ in self.copies)
        return max(found for _, found in self.copies[max(0, smaller - 1) :])


def _check(batch: int, device: str, precision: str, seconds: float) -> None:
    if type(batch) is not int or not 1 <= batch <= MAX_BATCH:
        raise Refused("A batch is a whole number of images.", repr(batch), f"1 to {MAX_BATCH:,}")
    choose("precision", precision, DTYPES)
    if type(seconds) not in (int, float) or not 0 < seconds <= MAX_SECONDS:
        raise Refused("A time is in seconds.", repr(seconds), f"above 0, up to {MAX_SECONDS:g}")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device):
        found = ", ".join(name for name, there in available.items() if there)
        raise Refused("The device must be one of this machine.", repr(device), found)


def _place(module: nn.Module, shape: tuple[int, ...], batch: int, device: str) -> tuple[nn.Module, Tensor]:
    """The module in eval mode and noise for it, both in the layout that convolutions are fastest in."""
    layout = memory_format(module)
    images = torch.rand(batch, *shape, device=device).contiguous(memory_format=layout)
    return module.eval().to(device).to(memory_format=layout), images


def latencies(
    net: NetSpec | nn.Module, input_shape: tuple[int, ...], batch: int = 1, precision: str = "fp32",
    device: str = "cpu", seconds: float = 3.0,
) -> Iterator[Latency]:  # fmt: skip
    """The result so far after each forward pass, at least one, until `seconds` are over, warm-up included. Refused.

    A module is moved to the device, put in eval mode and not copied: pass a net of your own.
    """
    _check(batch, device, precision, seconds)
    end = time.perf_counter() + seconds
    module, images = _place(build(net, device=device) if isinstance(net, NetSpec) else net, input_shape, batch, device)
    times: list[float] = []
    for run in range(-WARM_UP, 10**9):
        with torch.no_grad(), autocast(device, precision):  # closed while the caller has the result
            start = time.perf_counter()
            module(images)
            wait(device)
        if run >= 0:
            times.append(time.perf_counter() - start)
            yield Latency(batch, device, precision, torch.get_num_threads(), tuple(times))
        if times and time.perf_counter() >= end:
            return


def latency(
    net: NetSpec | nn.Module, input_shape: tuple[int, ...], batch: int = 1, precision: str = "fp32",
    device: str = "cpu", seconds: float = 3.0,
) -> Latency:  # fmt: skip
    """The last of `latencies`."""
    *_, last = latencies(net, input_shape, batch, precision, device, seconds)
    return last


def ceilings(device: str = "cpu", precision: str = "fp32", seconds: float = 1.0) -> Ceilings:
    """Measure them in about `seconds`. Refused."""
    _check(1, device, precision, seconds)
    from torch.utils.benchmark import Timer  # warns on import where a CUDA compiler is, and no GPU

    sizes = [4**power for power in (range(9, 14) if device == "cpu" else range(11, 16))]  # bytes of a tensor
    kernels = _kernels(device, DTYPES[precision])
    for_each = seconds / (len(sizes) + len(kernels))

    def best(run: Callable[[], object]) -> float:
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        return min(timer.blocked_autorange(min_run_time=for_each).times)

    with torch.no_grad():
        flops = max(FLOPS_PER_MAC * macs / best(run) for macs, run in kernels)
        copies = []
        for size in sizes:
            source = torch.zeros(size // 4, device=device)
            copies.append((2 * size, 2 * size / best(partial(torch.empty_like(source).zero_().copy_, source))))
    return Ceilings(device, precision, flops, tuple(copies))


def _kernels(device: str, dtype: torch.dtype) -> list[tuple[int, Callable[[], object]]]:
    """MACs and calls: products, a square one and one of many rows, as a convolution's pixels are; convolutions."""
    made: list[tuple[int, Callable[[], object]]] = []
    for rows, side in ((1024, 1024), (16_384, 256)) if device == "cpu" else ((8192, 8192),):
        a, b = (torch.rand(n, side, device=device).to(dtype) for n in (rows, side))
        made.append((rows * side**2, partial(torch.mm, a, b, out=torch.empty_like(a))))
    batch = 16 if device == "cpu" else 256
    for kernel, channels in ((1, 256), (3, 64), (3, 256)):
        x = torch.rand(batch, channels, 28, 28, device=device).to(dtype, memory_format=torch.channels_last)
        w = torch.rand(channels, channels, kernel, kernel, device=device).to(dtype, memory_format=torch.channels_last)
        made.append((x[:, 0].numel() * w.numel(), partial(F.conv2d, x, w, padding=kernel // 2)))
    return made


def traffic(rows: Sequence[Row], batch: int, precision: str = "fp32") -> list[int]:
    """Bytes that each layer moves if they run one by one: inputs read, outputs written, weights read once (float32)."""
    width = DTYPES[precision].itemsize
    moved = []
    for row in rows:
        inputs = 0 if row.op == "none" else 2 if row.op == "add" else 1
        maps = inputs * row.reads + row.activations if inputs else 0
        moved.append(batch * width * maps + (4 * row.params if inputs else 0))
    return moved


def _by_stage(model: ResNet) -> dict[str, nn.Sequential]:
    """The net's children, in order, as one chain per stage."""
    groups = groupby(model.named_children(), key=lambda item: model.stages[item[0]])
    return {stage: nn.Sequential(*(child for _, child in group)) for stage, group in groups}


def rooflines(
    spec: NetSpec, batch: int = 1, device: str = "cpu", precision: str = "fp32", seconds: float = 5.0,
    limits: Ceilings | None = None,
) -> Iterator[pd.DataFrame]:  # fmt: skip
    """The table so far after each pass: a row per stage; `limits` are measured first where none are given. Refused.

    Columns: stage, seconds (median), flops (2 x MACs), bytes, intensity (FLOPs per byte), achieved and bound (FLOP/s),
    fraction = achieved / bound: the roofline (Williams et al. 2009), with copies as large as each layer's maps.
    """
    _check(batch, device, precision, seconds)
    end = time.perf_counter() + seconds
    limits = limits or ceilings(device, precision, min(1.0, seconds / 4))
    model = build(spec, device=device)
    _, images = _place(model, spec.input_shape, batch, device)
    stages, rows = _by_stage(model), profile(spec).rows
    times: dict[str, list[float]] = {stage: [] for stage in stages}
    for run in range(-WARM_UP, 10**9):
        x = images
        with torch.no_grad(), autocast(device, precision):
            for stage, part in stages.items():
                start = time.perf_counter()
                x = part(x)
                wait(device)
                times[stage] += [time.perf_counter() - start] if run >= 0 else []
        if run >= 0:
            yield _table({stage: float(np.median(t)) for stage, t in times.items()}, rows, batch, precision, limits)
            if time.perf_counter() >= end:
                return


def _table(
    medians: dict[str, float], rows: tuple[Row, ...], batch: int, precision: str, limits: Ceilings
) -> pd.DataFrame:
    parts = [[row for row in rows if row.stage == stage] for stage in medians]
    frame = pd.DataFrame({"stage": list(medians), "seconds": list(medians.values())})
    frame["flops"] = [FLOPS_PER_MAC * batch * sum(row.macs for row in part) for part in parts]
    frame["bytes"] = [sum(traffic(part, batch, precision)) for part in parts]
    frame["intensity"] = frame.flops / frame.bytes
    frame["achieved"] = frame.flops / frame.seconds
    frame["bound"] = frame.flops / [limits.seconds(part, batch) for part in parts]
    frame["fraction"] = frame.achieved / frame.bound
    return frame
