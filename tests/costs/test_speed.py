"""Structure and arithmetic of what is timed; no test expects a speed."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet.costs.profiler import profile
from resnet.costs.speed import (
    WARM_UP,
    Ceilings,
    Latency,
    _by_stage,
    _kernels,
    ceilings,
    latencies,
    latency,
    rooflines,
    traffic,
)
from resnet.devices import DTYPES
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, cifar

TINY = NetSpec((StageSpec(1, 8), StageSpec(1, 16, 2)), stem="3x3", stem_width=8, classes=4, image_size=8)
CLIP = replace(TINY, stem="3x7x7", frames=4)
LIMITS = Ceilings("cpu", "fp32", flops=1e9, copies=((1_000, 8e9), (20_000, 4e9), (10**6, 1e9)))


class Counted(nn.Module):
    """Sleeps for the given times, and keeps what it saw."""

    def __init__(self, *naps: float) -> None:
        super().__init__()
        self.naps, self.calls = [*naps], 0
        self.seen: list[tuple[bool, bool, torch.Size]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), x.shape))
        time.sleep(self.naps.pop(0) if self.naps else 0.001)
        return x


def test_latency_is_that_of_the_runs_after_the_warm_up() -> None:
    net = Counted(*[0.05] * WARM_UP, 0.001)
    results = list(latencies(net, (3, 8, 8), 4, seconds=0.2))
    assert len(net.seen) == WARM_UP + len(results)
    assert set(net.seen) == {(False, False, torch.Size((4, 3, 8, 8)))}
    assert [len(result.times) for result in results] == list(range(1, len(results) + 1))
    assert results[-1].times[0] < 0.05
    assert all(t >= 0.001 for t in results[-1].times)


def test_the_statistics_of_a_latency() -> None:
    result = Latency(8, "cpu", "fp32", 2, (0.1, 0.2, 0.3, 0.4, 9.0))
    assert result.median == pytest.approx(0.3)
    assert result.quartiles == pytest.approx((0.2, 0.4))
    assert result.spread == pytest.approx(2 / 3)
    assert result.images_per_second == pytest.approx(8 / 0.3)


def test_time_is_bounded_and_a_page_can_stop() -> None:
    net = Counted()
    runs: Any = latencies(net, (3, 8, 8), seconds=60)
    next(runs)
    runs.close()
    assert len(net.seen) == WARM_UP + 1
    start = time.perf_counter()
    latency(Counted(), (3, 8, 8), seconds=0.1)
    assert time.perf_counter() - start < 5
    assert len(latency(Counted(0.1, 0.1, 0.1), (3, 8, 8), seconds=0.05).times) == 1


def test_the_callers_settings_stay_while_it_looks() -> None:
    for results in (latencies(TINY, TINY.input_shape, seconds=0.1), rooflines(TINY, seconds=0.1, limits=LIMITS)):
        for _ in results:
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision(precision: str) -> None:
    class Seen(nn.Linear):
        dtypes: list[torch.dtype] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            self.dtypes.append(out.dtype)
            return out

    net = Seen(8, 8)
    assert latency(net, (3, 8, 8), precision=precision, seconds=0.01).precision == precision
    assert set(net.dtypes) == {torch.bfloat16 if precision == "bf16" else torch.float32}
    net.dtypes.clear()


def test_ceilings() -> None:
    start = time.perf_counter()
    found = ceilings(seconds=0.1)
    assert time.perf_counter() - start < 10
    assert found.flops > 1e8
    assert [size for size, _ in found.copies] == sorted({size for size, _ in found.copies})
    assert all(bandwidth > 1e7 for _, bandwidth in found.copies)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_kernels_of_a_ceiling_do_the_sums_that_are_counted(precision: str) -> None:
    with torch.no_grad():
        for macs, run in _kernels("cpu", DTYPES[precision]):
            out: Any = run()
            assert out.dtype == DTYPES[precision]
            with FlopCounterMode(display=False) as counted:
                run()
            assert counted.get_total_flops() == 2 * macs


def test_the_least_time_of_layers_by_hand() -> None:
    """conv1 of the tiny net: 216 weights at 64 places; its bytes at the speed of copies as small or larger."""
    rows = {row.name: row for row in profile(TINY).rows}
    conv, add = rows["conv1"], rows["layer1.0.add"]
    assert LIMITS.seconds([conv], 1) == pytest.approx(2 * 216 * 64 / 1e9)  # sums are the limit
    assert LIMITS.seconds([add], 1) == pytest.approx(4 * 3 * 512 / 8e9)  # bytes are: 6,144 of them
    assert LIMITS.seconds([add], 4) == pytest.approx(4 * 4 * 3 * 512 / 4e9)
    assert LIMITS.seconds([add], 10**6) == pytest.approx(10**6 * 4 * 3 * 512 / 1e9)
    assert replace(LIMITS, precision="bf16").seconds([add], 1) == pytest.approx(2 * 3 * 512 / 8e9)
    assert LIMITS.seconds([conv, add], 1) == pytest.approx(LIMITS.seconds([conv], 1) + LIMITS.seconds([add], 1))
    assert LIMITS.seconds([conv], 1, training=True) == pytest.approx(2 * LIMITS.seconds([conv], 1))  # reads the image
    assert LIMITS.seconds([add], 1, training=True) == pytest.approx(3 * LIMITS.seconds([add], 1))


def test_a_slow_copy_of_few_bytes_is_no_ceiling() -> None:
    odd = replace(LIMITS, copies=((1_000, 1e9), (20_000, 4e9)))
    [add] = [row for row in profile(TINY).rows if row.name == "layer1.0.add"]
    assert odd.seconds([add], 1) == pytest.approx(4 * 3 * 512 / 4e9)


@pytest.mark.parametrize("spec", [TINY, CLIP], ids=["images", "clips"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_roofline(spec: NetSpec, precision: str) -> None:
    limits = replace(LIMITS, precision=precision)
    *_, frame = rooflines(spec, 2, precision=precision, seconds=0.05, limits=limits)
    stages = profile(spec).stages()
    assert list(frame.stage) == list(stages.stage)
    assert list(frame.flops) == [2 * 2 * macs for macs in stages.macs]
    assert (frame.seconds > 0).all()
    assert list(frame.intensity) == list(frame.flops / frame.bytes)
    parts = [[row for row in profile(spec).rows if row.stage == stage] for stage in frame.stage]
    least = [replace(LIMITS, precision=precision).seconds(part, 2) for part in parts]
    assert list(frame.bound) == pytest.approx([flops / t for flops, t in zip(frame.flops, least, strict=True)])
    assert list(frame.achieved) == pytest.approx(list(frame.flops / frame.seconds))
    assert list(frame.fraction) == pytest.approx(list(frame.achieved / frame.bound))


def test_roofline_measures_the_ceilings_itself() -> None:
    *_, frame = rooflines(TINY, seconds=0.2)
    assert (frame.bound > 0).all()


def test_stages_run_the_whole_net() -> None:
    """Each stage's time is that of its own layers: together they run every leaf once a pass."""
    passes = list(rooflines(cifar(8), seconds=0.05, limits=LIMITS))
    assert len(passes) >= 1
    model = build(cifar(8)).eval()
    x = torch.rand(1, 3, 32, 32)
    y = x
    for part in _by_stage(model).values():
        y = part(y)
    assert torch.equal(y, model(x))


def test_traffic_by_hand() -> None:
    """conv1 of the tiny net: 3 x 8 x 8 in, 8 x 8 x 8 out, 216 weights; its block's addition reads two maps."""
    rows = {row.name: row for row in profile(TINY).rows}
    assert traffic([rows["conv1"]], 1) == [4 * (192 + 512 + 216)]
    assert traffic([rows["conv1"]], 10) == [4 * (10 * (192 + 512) + 216)]
    assert traffic([rows["conv1"]], 10, "bf16") == [2 * 10 * (192 + 512) + 4 * 216]
    assert traffic([rows["layer1.0.add"], rows["flatten"]], 1) == [4 * 3 * 512, 0]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": 1.5}, "batch"),
        ({"precision": "int8"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"device": "cuda:9"}, "device"),
        ({"seconds": 0}, "time"),
        ({"seconds": float("nan")}, "time"),
        ({"seconds": 1e9}, "time"),
    ],
)
def test_errors(values: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused, match=rf"{word}.*Received .*\. Choose "):
        latency(TINY, TINY.input_shape, **values)
    with pytest.raises(Refused, match=word):
        next(rooflines(TINY, **values))
