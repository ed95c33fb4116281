"""The devices of this machine and the precision in which a net trains fastest on each."""

import os
import platform
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def devices() -> list[str]:
    """The devices of this machine, the fastest first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def cores(workers: int = 1) -> int:
    """CPU threads for each of `workers` that share this process's cores: half each is 1.16x as fast as taking turns."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, here // workers)


BF16_UNITS = {  # of CPUs: the processor's capability, the name, and what a limit on oneDNN says that leaves it in use
    "amx_bf16": ("AMX", ("AMX",)),
    "avx512_bf16": ("AVX512_BF16", ("BF16", "FP16", "AMX", "AVX10")),
    "bf16": ("bf16", ("",)),  # Arm
}


def has_bf16(device: str) -> bool:
    """Whether it has instructions for products in bf16; without them a CPU is 3 to 8 times slower than in fp32."""
    kind = torch.device(device).type
    return torch.cuda.is_bf16_supported() if kind == "cuda" else kind == "cpu" and bool(_bf16_unit())


def _bf16_unit() -> str:
    """The name of this CPU's unit for bf16, "" without one."""
    able, limit = torch.cpu.get_capabilities(), _onednn_limit()
    usable = (
        name
        for capability, (name, words) in BF16_UNITS.items()
        if able.get(capability) and (not limit or any(word in limit for word in words))
    )
    return next(usable, "")


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
    isa = torch.backends.cpu.get_cpu_capability() + (f" with {unit}" if (unit := _bf16_unit()) else "")
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
