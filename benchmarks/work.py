"""What the gradients of a net take, beside what was predicted: `python benchmarks/work.py --help`.

Seconds are of a worker's process that has done the same before; bytes are what PyTorch allocates there at its peak.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnet.analysis.batches import noise_batch
from resnet.analysis.gradients import gradient_norms
from resnet.costs.memory import allocated_peak
from resnet.devices import device_name
from resnet.nets.codes import from_code
from resnet.nets.model import build
from resnet.nets.spec import NetSpec
from resnet.work.analysing import NOISE, Analysed
from resnet.work.predict import backward
from resnet.work.process import Process
from resnet.work.weights import Model, Weights

WORK = ["ResNet-20:128", "ResNet-56:64", "ResNet-110:32", "ResNet-18:8", "ResNet-50:2", "ResNet-50:16"]
WORK += ["ResNet-152:2", "WRN-28-10:8", "SE-ResNet-50:8", "ResNeXt-50 32x4d:4"]


def seconds(process: Process, spec: NetSpec, batch: int, rounds: int) -> float:
    """The median; the first round imports, and is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        *_, answer = process.answers(
            Analysed("gradients", (Model(spec, Weights("seed", "0")),), NOISE, batch), backward(spec, batch).bytes
        )
        times.append(time.perf_counter() - start)
        if answer.kind != "done":
            raise SystemExit(str(answer.value))
    return statistics.median(times[1:])


def gradients(spec: NetSpec, batch: int) -> None:
    gradient_norms(build(spec), *noise_batch(spec, batch))


def main(work: list[str], rounds: int) -> None:
    print(f"Measured / predicted on {device_name('cpu')}; a prediction of bytes is an upper bound.")
    process, found = Process(), {}
    for entry in work:
        code, _, batch = entry.rpartition(":")
        spec, count = from_code(code), int(batch)
        predicted, taken = backward(spec, count), seconds(process, spec, count, rounds)
        memory = allocated_peak(partial(gradients, spec, count))
        found[entry] = {"seconds": taken / predicted.seconds, "bytes": memory / predicted.bytes}
        print(
            f"{entry:>20}: {taken:6.2f} s, {found[entry]['seconds']:.2f} of {predicted.seconds:.2f}; "
            f"{memory / 1e6:6,.0f} MB, {found[entry]['bytes']:.2f} of {predicted.bytes / 1e6:,.0f}"
        )
    process.kill()
    print(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", nargs="+", default=WORK, metavar="NET:BATCH")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.work, arguments.rounds)
