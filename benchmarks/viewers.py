"""What a race that many people watch costs the server: `python benchmarks/viewers.py --help`.

The race is a net and its plain twin. Nothing is trained: their records are drawn at random, and grow while they are
watched. A viewer is a websocket client that opens Train and asks for each refresh when the browser would. The cost is
the CPU time of the server's process, that of the garbage collection and of the list of runs included.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from resnet.devices import processor
from resnet.nets.model import build, weight_layers
from resnet.nets.spec import PRESETS, NetSpec, cifar, twins
from resnet.runs import store as runs
from resnet.runs.jobs import Job, Status
from resnet.runs.store import Run
from resnet.train.figures import record_type
from resnet.train.recipes import Recipe
from tests.support.visitors import Visit, app, visitor

EPOCH = 400  # steps
LONGEST = 1_000_000  # steps: no race ends while it is watched


def grow(run: Run, steps: int) -> None:
    """Append that many steps to a run's records, and the tests of the epochs that end in them."""
    draw, first = np.random.default_rng(), run.recorded_steps() + 1
    records = np.zeros(steps, record_type(len(run.layers())))
    for name in ("loss", "accuracy", "lr", "seconds", "norms", "updates"):
        records[name] = draw.random(records[name].shape) + 0.01
    records["step"] = records["batch"] = np.arange(first, first + steps)
    with open(run.path / "steps.bin", "ab") as file:
        records.tofile(file)
    with open(run.path / "epochs.jsonl", "a") as file:
        for step in filter(lambda step: step % EPOCH == 0, records["step"].tolist()):
            test = {"epoch": step // EPOCH, "step": step, "test_loss": 1.0, "test_accuracy": draw.random()}
            file.write(json.dumps(test) + "\n")


@contextmanager
def race(spec: NetSpec, steps: int) -> Iterator[list[Run]]:
    """Runs of a net and its twin that seem to train: a worker's lock is held for each."""
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, RESNET_RUNS_DIR=folder), ExitStack() as stack:
        made = runs.create_race(Job(spec, "shapes", Recipe(steps=LONGEST)), twins(spec))
        for run in made:
            layers = list(weight_layers(build(run.job.net, device="meta")))
            (run.path / "info.json").write_text(json.dumps({"layers": layers}))
            grow(run, steps)
            stack.enter_context(run.lock())
            run.write_status(Status("running", steps=LONGEST, device="cpu", phase="training"))
        yield made


@asynccontextmanager
async def training(group: list[Run], rate: float) -> AsyncIterator[None]:
    """The runs grow meanwhile, by `rate` steps a second."""

    async def steps() -> None:
        while True:
            await asyncio.sleep(1 / rate)
            for run in group:
                grow(run, 1)

    task = asyncio.create_task(steps())
    yield
    task.cancel()


async def watched(group: list[Run], args: argparse.Namespace) -> tuple[float, list[Visit]]:
    """CPU seconds of the server while the viewers watch, and what they saw."""
    with TemporaryDirectory() as folder, app(Path(folder), RESNET_RUNS_DIR=os.environ["RESNET_RUNS_DIR"]) as server:
        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(visitor(server)) for _ in range(args.viewers)]
            await stack.enter_async_context(training(group, args.rate))
            for viewer in viewers:
                await viewer.open("train", f"run={group[0].id}")
                await asyncio.sleep(1 / args.viewers)  # so that they do not refresh in step
            await asyncio.sleep(2)
            visits = [viewer.visit for viewer in viewers]
            for visit in visits:
                visit.refreshes, visit.received = [], 0
            before = server.process.cpu_times()
            await asyncio.sleep(args.seconds)
            after = server.process.cpu_times()
    return after.user + after.system - before.user - before.system, visits


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--net", default="ResNet-20", help="a preset, or ResNet-6n+2")
    parser.add_argument("--viewers", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20, help="that they watch")
    parser.add_argument("--steps", type=int, default=6000, help="that were recorded before")
    parser.add_argument("--rate", type=float, default=20, help="steps that each net takes in a second")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    spec = PRESETS[args.net] if args.net in PRESETS else cifar(int(args.net.removeprefix("ResNet-")))
    print(f"{processor()}; {args.viewers} viewers of {spec.name} and its twin for {args.seconds:g} s, "
          f"from step {args.steps:,} on, {args.rate:g} steps/s", flush=True)  # fmt: skip
    with race(spec, args.steps) as group:
        taken, visits = asyncio.run(watched(group, args))
    if errors := [error for visit in visits for error in visit.errors]:
        raise SystemExit(errors[0])
    answers = sorted(1000 * seconds for visit in visits for seconds in visit.refreshes)
    kilobytes = sum(visit.received for visit in visits) / len(answers) / 1000
    cost, median = 1000 * taken / args.viewers / args.seconds, statistics.median(answers)
    print(f"the server takes {cost:.1f} ms of CPU time per viewer and second, {taken / args.seconds:.0%} of a core")
    print(f"{len(answers)} refreshes, after {median:.0f} ms (at most {answers[-1]:.0f}), of {kilobytes:.0f} kB each")
    print(json.dumps({spec.name: {"CPU ms": round(cost, 2), "refresh ms": round(median, 1)}}))


if __name__ == "__main__":
    main(arguments())
