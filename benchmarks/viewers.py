"""What a race that many people watch costs the server: `python benchmarks/viewers.py --help`. Linux alone.

The race is a net and its plain twin. Nothing is trained: their records are drawn at random, and grow while they are
watched. A viewer is a websocket client that opens Train and asks for each refresh when the browser would. The cost is
the CPU time of the server's process, that of the garbage collection and of the list of runs included.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from resnet.devices import processor
from resnet.files import ROOT
from resnet.nets.model import build, weight_layers
from resnet.nets.spec import PRESETS, NetSpec, cifar, twins
from resnet.runs import store as runs
from resnet.runs.jobs import Job, Status
from resnet.runs.store import Run
from resnet.train.figures import record_type
from resnet.train.recipes import Recipe

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


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running app's process and its address."""
    options = ["--server.headless=true", "--server.port=0", "--server.address=127.0.0.1"]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as app:
        try:
            assert app.stdout
            line = next(line for line in app.stdout if "URL" in line)
            yield app, line.split("http://")[1].strip()
        finally:
            app.terminate()


def cpu_seconds(process: int) -> float:
    """User's and system's time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Viewer:
    """One open page: `answers` are the seconds that its refreshes took, `received` the bytes that it got."""

    def __init__(self, socket: ClientConnection, run: Run) -> None:
        self.socket, self.run = socket, run
        self.answers: list[float] = []
        self.received = 0
        self.every: dict[str, float] = {}  # seconds between the refreshes of each fragment

    async def ask(self, fragment: str = "") -> None:
        """Have the page, or a fragment of it, drawn, and take all that it is."""
        asked = BackMsg()
        asked.rerun_script.page_name, asked.rerun_script.query_string = "train", f"run={self.run.id}"
        asked.rerun_script.fragment_id, asked.rerun_script.is_auto_rerun = fragment, bool(fragment)
        begin = time.perf_counter()
        await self.socket.send(asked.SerializeToString())
        kind = ""
        while kind != "script_finished":
            raw = await self.socket.recv(decode=False)
            message = ForwardMsg.FromString(raw)
            kind = message.WhichOneof("type") or ""
            self.received += len(raw)
            if kind == "auto_rerun":
                self.every[message.auto_rerun.fragment_id] = message.auto_rerun.interval
            if message.delta.new_element.HasField("exception"):
                raise SystemExit(message.delta.new_element.exception.message)
        self.answers.append(time.perf_counter() - begin)

    async def watch(self, seconds: float, late: float) -> None:
        """Refresh each fragment at its interval, from `late` seconds on; one that is late is left out."""
        start = time.monotonic() + late
        due = dict.fromkeys(self.every, start)
        while (next_due := min(due.items(), key=lambda item: item[1]))[1] < start + seconds:
            fragment, when = next_due
            await asyncio.sleep(when - time.monotonic())
            await self.ask(fragment)
            missed = max(0.0, time.monotonic() - when) // self.every[fragment]
            due[fragment] = when + (1 + missed) * self.every[fragment]


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


async def watched(group: list[Run], args: argparse.Namespace) -> tuple[float, list[Viewer]]:
    """CPU seconds of the server while the viewers watch, and the viewers."""
    lates = np.linspace(0, 1, args.viewers, endpoint=False)

    async def watch(seconds: float) -> None:
        await asyncio.gather(*(viewer.watch(seconds, late) for viewer, late in zip(viewers, lates, strict=True)))

    with server() as (app, address):
        async with AsyncExitStack() as stack:
            viewers = []
            for _ in range(args.viewers):
                socket = connect(
                    f"ws://{address}/_stcore/stream", subprotocols=[Subprotocol("streamlit")], max_size=None
                )
                viewers.append(Viewer(await stack.enter_async_context(socket), group[0]))
            await stack.enter_async_context(training(group, args.rate))
            for viewer in viewers:
                await viewer.ask()
            await watch(2)
            for viewer in viewers:
                viewer.answers, viewer.received = [], 0
            before = cpu_seconds(app.pid)
            await watch(args.seconds)
            return cpu_seconds(app.pid) - before, viewers


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
        taken, viewers = asyncio.run(watched(group, args))
    answers = sorted(1000 * answer for viewer in viewers for answer in viewer.answers)
    kilobytes = sum(viewer.received for viewer in viewers) / len(answers) / 1000
    cost, median = 1000 * taken / args.viewers / args.seconds, statistics.median(answers)
    print(f"the server takes {cost:.1f} ms of CPU time per viewer and second, {taken / args.seconds:.0%} of a core")
    print(f"{len(answers)} refreshes, after {median:.0f} ms (at most {answers[-1]:.0f}), of {kilobytes:.0f} kB each")
    print(json.dumps({spec.name: {"CPU ms": round(cost, 2), "refresh ms": round(median, 1)}}))


if __name__ == "__main__":
    main(arguments())
