"""Which precision a machine trains in: by what it has, then by a timing that is kept."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from resnet.train import precision as precisions
from resnet.train.precision import MARGIN, STEP_S, median_seconds, pick_precision, precision_for
from resnet.train.recipes import Recipe
from tests.support.tiny import TINY as NET


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that nothing has made yet, on a machine with bf16."""
    monkeypatch.setattr(precisions, "FOLDERS", SimpleNamespace(user_cache_path=tmp_path / "cache"))
    monkeypatch.setattr(precisions, "has_bf16", lambda device: True)
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return list(cache.glob("precision/*.json"))


class Timer:
    """Answers with the seconds of each precision, and keeps what it was asked."""

    def __init__(self, fp32: float, bf16: float) -> None:
        self.times, self.asked = {"fp32": fp32, "bf16": bf16}, list[str]()

    def __call__(self, precision: str) -> float:
        self.asked.append(precision)
        return self.times[precision]


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_is_wanted_is_taken_without_a_look(wanted: str, cache: Path) -> None:
    timer = Timer(1.0, 1.0)
    assert pick_precision(wanted, "cpu", "net", timer) == wanted
    assert timer.asked == kept(cache) == []


def test_a_machine_without_bf16_is_not_timed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "has_bf16", lambda device: False)
    timer = Timer(1.0, 0.1)
    assert pick_precision("auto", "cpu", "net", timer) == "fp32"
    assert timer.asked == kept(cache) == []


@pytest.mark.parametrize(("share", "chosen"), [(0.99, "bf16"), (1.01, "fp32")])
def test_bf16_has_to_be_faster_by_the_margin(share: float, chosen: str, cache: Path) -> None:
    timer = Timer(1.1, share)  # the margin is 1.1
    assert pick_precision("auto", "cpu", "net", timer) == chosen
    assert MARGIN == 1.1
    assert sorted(timer.asked) == ["bf16", "fp32"]


def test_a_timing_is_made_once_for_a_key_device_and_version(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_precision("auto", "cpu", "net", Timer(1.0, 0.5)) == "bf16"
    again = Timer(0.5, 1.0)
    assert pick_precision("auto", "cpu", "net", again) == "bf16"
    assert again.asked == []
    assert pick_precision("auto", "cpu", "another net", again) == "fp32"
    monkeypatch.setattr(precisions, "device_name", lambda device: "another machine")
    assert pick_precision("auto", "cpu", "net", again) == "fp32"
    monkeypatch.setattr(torch, "__version__", "another PyTorch")
    assert pick_precision("auto", "cpu", "net", again) == "fp32"
    assert again.asked == ["fp32", "bf16"] * 3
    assert len(kept(cache)) == 4


FOREIGN = {
    "torn": b'{"precision": "bf',
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[1]",
    "a number": b"7",
    "no answer": b'{"seconds": {}}',
    "another answer": b'{"precision": "fp8"}',
    "no word": b'{"precision": ["bf16"]}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=list(FOREIGN))
def test_a_damaged_or_foreign_file_is_measured_anew_and_replaced(content: bytes, cache: Path) -> None:
    pick_precision("auto", "cpu", "net", Timer(1.0, 2.0))
    (path,) = kept(cache)
    path.write_bytes(content)
    timer = Timer(1.0, 0.5)
    assert pick_precision("auto", "cpu", "net", timer) == "bf16"
    assert sorted(timer.asked) == ["bf16", "fp32"]
    assert json.loads(path.read_text())["precision"] == "bf16"


def test_a_folder_in_the_files_place_is_no_error(cache: Path) -> None:
    pick_precision("auto", "cpu", "net", Timer(1.0, 2.0))
    (path,) = kept(cache)
    path.unlink()
    path.mkdir()
    assert pick_precision("auto", "cpu", "net", Timer(1.0, 0.5)) == "bf16"


@pytest.mark.parametrize("where", ["", "precision"])
def test_a_cache_folder_that_cannot_be_made_is_no_error(where: str, cache: Path) -> None:
    blocked = cache / where
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file where the folder would be")
    for _ in range(2):
        timer = Timer(1.0, 0.5)
        assert pick_precision("auto", "cpu", "net", timer) == "bf16"
        assert sorted(timer.asked) == ["bf16", "fp32"]


def test_twins_that_start_together_measure_once_and_choose_alike(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's timing lasts until the second one comes to the lock."""
    queued, begun, answers, late = threading.Event(), threading.Event(), dict[str, str](), Timer(0.5, 1.0)

    class Watched(FileLock):
        def acquire(self, *args: Any, **options: Any) -> Any:
            if begun.is_set():
                queued.set()
            return super().acquire(*args, **options)

    def first(precision: str) -> float:
        begun.set()
        assert queued.wait(10)
        return {"fp32": 1.0, "bf16": 0.5}[precision]

    def second() -> None:
        begun.wait(10)
        answers["second"] = pick_precision("auto", "cpu", "twin", late)

    monkeypatch.setattr(precisions, "FileLock", Watched)
    thread = threading.Thread(target=second)
    thread.start()
    answers["first"] = pick_precision("auto", "cpu", "twin", first)
    thread.join()
    assert answers == {"first": "bf16", "second": "bf16"}
    assert late.asked == []


@pytest.mark.parametrize("image_s", [1e-5, 1e-4, 1e-3, 5e-3, 1e-2])
@pytest.mark.parametrize("bf16", [0.5, 1.25])
def test_a_timing_takes_less_than_two_seconds(
    image_s: float, bf16: float, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that knows what an image takes; the larger batch is timed, the more it is like the training's."""
    now, batches = [0.0], list[int]()

    def run(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str) -> None:
        now[0] += 1e-3 + image_s * len(images) * (bf16 if precision == "bf16" else 1.0)
        batches.append(len(images))

    monkeypatch.setattr(precisions, "forward_backward", run)
    monkeypatch.setattr(precisions.time, "perf_counter", lambda: now[0])
    assert precision_for(NET, Recipe(batch=128), "cpu") == ("bf16" if bf16 < 1 else "fp32")
    assert now[0] < 2
    assert batches[-1] == 128 or image_s * 2 * batches[-1] > STEP_S / 2
    assert len(set(batches[-10:])) == 1, "both precisions get the same batch"


def test_median_seconds_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the steps move: two that warm up, then five."""
    now, left = [0.0], [0.5, 0.25, 3.0, 1.0, 9.0, 2.0, 5.0]

    def step() -> None:
        now[0] += left.pop(0)

    monkeypatch.setattr(precisions.time, "perf_counter", lambda: now[0])
    assert median_seconds(step, "cpu") == 3.0
    assert left == []


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps"])
def test_median_seconds_waits_for_the_device_in_each_round(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: calls.append("wait"))
    median_seconds(lambda: calls.append("step"), device, rounds=1)
    assert calls == (["step"] if device == "cpu" else ["step", "wait"]) * 3
