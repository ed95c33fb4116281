"""Our profile of presets beside torchinfo and fvcore on the same net: `python benchmarks/profile.py --help`.

Each of the three starts from the description of the net, so building it is in all three times. Ours and torchinfo's
nets are on the meta device; fvcore traces with torch.jit, which cannot run there, so its net is on the CPU, with memory
for its weights but no values. Rounds are interleaved; a ratio is the other's median / ours.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.pop(0)  # this folder: it would hide the standard module profile
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchinfo
from fvcore.nn import FlopCountAnalysis

from resnet.costs.profiler import profile
from resnet.devices import processor
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec

GOAL_S = 0.3
COLD = """
import time; start = time.perf_counter()
import torch; after_torch = time.perf_counter()
from resnet.costs.profiler import profile
from resnet.nets.spec import PRESETS
profile(PRESETS["ResNet-50"]); end = time.perf_counter()
print(after_torch - start, end - after_torch)
"""


def ours(spec: NetSpec) -> int:
    return profile(spec).macs


def by_torchinfo(spec: NetSpec) -> int:
    net = build(spec, device="meta")
    return torchinfo.summary(net, (1, *spec.input_shape), device="meta", mode="eval", verbose=0).total_mult_adds


def by_fvcore(spec: NetSpec) -> int:
    net = build(spec, device="meta").to_empty(device="cpu").eval()
    analysis = FlopCountAnalysis(net, torch.zeros(1, *spec.input_shape))
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


PROFILERS: dict[str, Callable[[NetSpec], int]] = {"ours": ours, "torchinfo": by_torchinfo, "fvcore": by_fvcore}


def timed(call: Callable[[NetSpec], int], spec: NetSpec) -> float:
    start = time.perf_counter()
    call(spec)
    return time.perf_counter() - start


def measure(spec: NetSpec, rounds: int) -> dict[str, list[float]]:
    for call in PROFILERS.values():
        call(one_block_each(spec))  # warm: every operation once
    times: dict[str, list[float]] = {name: [] for name in PROFILERS}
    for _ in range(rounds):
        for name, call in PROFILERS.items():
            times[name].append(timed(call, spec))
    return times


def one_block_each(spec: NetSpec) -> NetSpec:
    """A net of the same parts with one block a stage."""
    return replace(spec, stages=tuple(replace(stage, blocks=1) for stage in spec.stages))


def main(nets: list[str], rounds: int) -> None:
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} interleaved rounds")
    print(f"{'net':24} {'ours: median (range) s':>28} {'torchinfo':>24} {'fvcore':>24}   ratios")
    ratios, slow = {}, []
    for name in nets:
        times = measure(PRESETS[name], rounds)
        medians = {who: statistics.median(values) for who, values in times.items()}
        cells = [f"{medians[who]:.3f} ({min(t):.3f}-{max(t):.3f})" for who, t in times.items()]
        ratios[name] = {who: round(medians[who] / medians["ours"], 2) for who in PROFILERS if who != "ours"}
        slow += [name] * (medians["ours"] > GOAL_S)
        print(f"{name:24} {cells[0]:>28} {cells[1]:>24} {cells[2]:>24}   {ratios[name]}", flush=True)
    cold = subprocess.run([sys.executable, "-c", COLD], cwd=sys.path[0], capture_output=True, text=True, check=True)
    with_torch, own = map(float, cold.stdout.split()[-2:])
    print(f"cold, in a fresh process: {with_torch:.2f} s to import torch, then {own:.2f} s to ResNet-50's profile")
    print(f"goal of {GOAL_S} s, median: {'missed by ' + ', '.join(slow) if slow else 'met by every net'}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--nets", nargs="+", default=list(PRESETS), choices=list(PRESETS), metavar="NET", help="presets"
    )
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))
