"""The devices of this machine and the precision in which a net trains fastest on each."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from filelock import FileLock

from resnet.files import FOLDERS

MARGIN = 1.1  # bf16 has to be so many times faster than fp32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def has_bf16(device: str) -> bool:
    """True on CUDA that has it and on a CPU with AMX tiles; on other CPUs it is 3 to 8 times slower than fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return kind == "cpu" and torch.cpu._is_amx_tile_supported() and "AMX" in (_onednn_limit() or "AMX")


def _onednn_limit() -> str:
    """The newest vector instructions that the environment lets oneDNN use, empty for all that there are."""
    named = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return "" if named.upper() in ("ALL", "DEFAULT") else named.upper()


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """bf16 where it is wanted; "auto" has to be chosen before (`pick_precision`) and counts as fp32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=DTYPES.get(precision) == torch.bfloat16)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


def device_name(device: str) -> str:
    """What makes timings comparable: the GPU's name, or the processor's, its vector instructions and the threads."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    if kind != "cpu":
        return f"{processor()}, {kind}"
    isa = torch.backends.cpu.get_cpu_capability() + (" with AMX" if has_bf16("cpu") else "")
    isa += f" (oneDNN: {limit})" if (limit := _onednn_limit()) else ""
    threads = torch.get_num_threads()
    return f"{processor()}, {isa}, {threads} thread{'s' * (threads != 1)}"


def processor() -> str:
    """The name of this machine's processor, or its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


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


def median_seconds(step: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Median time of `step` after two that warm up."""
    times = []
    for _ in range(rounds + 2):
        clock = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - clock)
    return sorted(times[2:])[rounds // 2]
