"""Structure and arithmetic of what is timed; no test expects a speed."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from resnet.costs.profiler import profile
from resnet.costs.speed import (
    WARM_UP,
    Ceilings,
    Latency,
    _by_stage,
    ceilings,
    latencies,
    latency,
    rooflines,
    traffic,
)
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import NetSpec, StageSpec, cifar

TINY = NetSpec((StageSpec(1, 8), StageSpec(1, 16, 2)), stem="3x3", stem_width=8, classes=4, image_size=8)
CLIP = replace(TINY, stem="3x7x7", frames=4)
LIMITS = Ceilings("cpu", "fp32", flops=1e12, bandwidth=1e11)


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
    assert found.bandwidth > 1e7
    assert LIMITS.bound(0) == 0
    assert LIMITS.bound(5) == pytest.approx(5e11)  # bytes are the limit
    assert LIMITS.bound(10) == LIMITS.bound(1e9) == 1e12  # sums are


@pytest.mark.parametrize("spec", [TINY, CLIP], ids=["images", "clips"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_roofline(spec: NetSpec, precision: str) -> None:
    *_, frame = rooflines(spec, 2, precision=precision, seconds=0.05, limits=LIMITS)
    stages = profile(spec).stages()
    assert list(frame.stage) == list(stages.stage)
    assert list(frame.flops) == [2 * 2 * macs for macs in stages.macs]
    assert (frame.seconds > 0).all()
    assert list(frame.intensity) == list(frame.flops / frame.bytes)
    assert list(frame.bound) == pytest.approx([min(1e12, i * 1e11) for i in frame.intensity])
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
    assert traffic([rows["conv1"]], 1) == 4 * (192 + 512 + 216)
    assert traffic([rows["conv1"]], 10) == 4 * (10 * (192 + 512) + 216)
    assert traffic([rows["conv1"]], 10, "bf16") == 2 * 10 * (192 + 512) + 4 * 216
    assert traffic([rows["layer1.0.add"]], 1) == 4 * 3 * 512
    assert traffic([rows["flatten"]], 1) == 0


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
