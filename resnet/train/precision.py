"""The precision in which a net trains faster on a device: fp32, or bf16 where a short timing says so."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from resnet.devices import DTYPES, device_name, has_bf16, wait
from resnet.files import FOLDERS
from resnet.nets.codes import to_code
from resnet.nets.model import build, memory_format
from resnet.nets.passes import forward_backward
from resnet.nets.spec import NetSpec, plain_twin
from resnet.train.narrow import accelerate
from resnet.train.recipes import Recipe

MARGIN = 1.1  # bf16 has to be so many times faster than fp32
STEP_S = 0.1  # a timed step on a CPU, of fewer images where it would take longer: ten and the search take under 2 s


def precision_for(net: NetSpec, recipe: Recipe, device: str) -> str:
    """The recipe's precision, and for "auto" that in which the net's plain twin is faster: twins get the same."""
    twin = plain_twin(net)

    @cache
    def model(precision: str) -> nn.Module:
        return accelerate(build(twin, device=device), device, precision).train()

    def step(precision: str, batch: int) -> Callable[[], object]:
        net = model(precision)
        images = torch.rand(batch, *twin.input_shape, device=device).contiguous(memory_format=memory_format(net))
        labels = torch.zeros(batch, dtype=torch.long, device=device)
        return lambda: forward_backward(net, images, labels, precision)

    @cache
    def batch() -> int:
        return timed_batch(lambda images: step("fp32", images), recipe.batch) if device == "cpu" else recipe.batch

    def seconds(precision: str) -> float:
        return median_seconds(step(precision, batch()), device, rounds=3)

    return pick_precision(recipe.precision, device, f"{to_code(twin)} {recipe.batch}", seconds)


def pick_precision(wanted: str, device: str, key: str, seconds: Callable[[str], float]) -> str:
    """fp32 or bf16: what is `wanted`, and for "auto" what `seconds` finds faster where the device has both.

    The answer is kept on disk by `key`, device and version of PyTorch, so that a machine chooses alike each time.
    """
    if wanted != "auto":
        return wanted
    if not has_bf16(device):
        return "fp32"
    digest = hashlib.sha256(f"{key} {device_name(device)} {torch.__version__}".encode()).hexdigest()[:24]
    path = FOLDERS.user_cache_path / "precision" / f"{digest}.json"
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):  # a folder that cannot be written or locked
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))  # twins that start together measure once and choose alike
        return _remembered(path) or _measured(path, seconds)


def _remembered(path: Path) -> str | None:
    try:
        found = json.loads(path.read_text())["precision"]
        return found if found in DTYPES else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _measured(path: Path, seconds: Callable[[str], float]) -> str:
    times = {name: seconds(name) for name in DTYPES}
    chosen = "bf16" if MARGIN * times["bf16"] < times["fp32"] else "fp32"
    with suppress(OSError):  # the next run measures again
        path.write_text(json.dumps({"precision": chosen, "seconds": times}))
    return chosen


def timed_batch(step: Callable[[int], Callable[[], object]], most: int) -> int:
    """The images, 2, 4 and so on up to `most`, of which a `step(images)` on the CPU takes about STEP_S."""
    images = 2
    while images < most and 2 * median_seconds(step(images), "cpu", rounds=1) <= STEP_S:
        images *= 2
    return min(images, most)


def median_seconds(step: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Median time of `step` after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        clock = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - clock)
    return sorted(times[2:])[rounds // 2]
