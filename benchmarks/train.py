"""Our training beside a loop in the style people use today: `python benchmarks/train.py --help`.

Same net, images, batch and threads. Chunks of steps take turns, so that a machine that slows down slows all of them;
a ratio is the loop's seconds a step over ours, round by round. Each contender has a process of its own, as a run has,
for how a process keeps its memory is part of its speed; while one computes, the others sleep. The loop: a DataLoader
with PIL transforms (the better of 0 and 2 workers), float32, memory in PyTorch's own layout, loss and hits read at each
step. Ours also records gradient norms and relative updates of all layers at each step.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image
from torch import nn
from torch.profiler import ProfilerActivity
from torch.utils.data import DataLoader
from torchvision import transforms

from resnet.costs.profiler import FLOPS_PER_MAC, profile
from resnet.costs.speed import Ceilings, ceilings
from resnet.data.dataset import Dataset, load
from resnet.devices import device_name, devices, wait
from resnet.errors import Refused
from resnet.nets.model import build, memory_format
from resnet.nets.spec import PRESETS, NetSpec, cifar
from resnet.runs import store as runs
from resnet.runs.curves import Digest, curves, follow, heat, strip
from resnet.runs.jobs import ACTIVE, Job
from resnet.runs.process import KEEP_MEMORY, start
from resnet.train.feeds import Resident
from resnet.train.loop import EpochTested, StepsTaken, fit
from resnet.train.narrow import accelerate
from resnet.train.precision import precision_for
from resnet.train.recipes import RECIPES, Recipe
from resnet.train.state import State
from resnet.train.step import Step

NETS = ["ResNet-20", "ResNet-56", "ResNet-18 CIFAR stem"]
KINDS = {  # of operations, by their names
    "convolutions": "conv",
    "batch norm": "batch_norm",
    "ReLU": "relu|clamp_min|threshold",
    "additions": "^aten::add",
}
SETTLE = 4  # steps before the clock starts, in which workers fill their queues again
Contender = Iterator[int]  # trains; gives the number of steps that it took


class Pictures(torch.utils.data.Dataset):
    """PIL images with labels, as torchvision.datasets.CIFAR10 gives them."""

    def __init__(self, data: Dataset) -> None:
        self.images, self.labels = data.train_images.permute(0, 2, 3, 1).numpy(), data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(data.size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(data.mean.tolist(), data.std.tolist()),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual(spec: NetSpec, data: Dataset, recipe: Recipe, device: str, workers: int) -> Contender:
    loader = DataLoader(
        Pictures(data), recipe.batch, shuffle=True, drop_last=True, num_workers=workers,
        persistent_workers=workers > 0, pin_memory=device == "cuda",
    )  # fmt: skip
    model, criterion = build(spec, device=device).train(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True
    )
    loss_sum, hits = 0.0, 0
    while True:
        for images, labels in loader:
            x, y = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(x)
            loss = criterion(logits, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            hits += (logits.argmax(1) == y).sum().item()
            yield 1


def prepared(spec: NetSpec, data: Dataset, recipe: Recipe, device: str) -> tuple[State, Resident]:
    model = accelerate(build(spec, recipe.seed, device), device, recipe.precision)
    state = State(model, recipe)
    return state, Resident(data, recipe, torch.device(device), memory_format(state.model))


def ours(spec: NetSpec, data: Dataset, recipe: Recipe, device: str) -> Contender:
    """The engine, with a test set of one image: the loop tests nothing."""
    data = dataclasses.replace(data, test_images=data.test_images[:1], test_labels=data.test_labels[:1])
    for event in fit(*prepared(spec, data, recipe, device), recipe):
        yield len(event.rows) if isinstance(event, StepsTaken) else 0


def recording(spec: NetSpec, data: Dataset, recipe: Recipe, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds that a step takes for the gradient norms, and for the relative updates, of all layers: these operations
    of `Step` alone.

    Beside a step without them they would drown in the noise. Before each time a copy empties the caches, as a step's
    convolutions do.
    """
    state, feed = prepared(spec, data, recipe, args.device)
    step = Step(state, feed, recipe)
    step.run(next(feed.inputs(0, 1))[0])
    large = torch.ones(2, 2**26, device=args.device)

    def seconds(operations: Callable[[], object]) -> float:
        large[0].copy_(large[1])
        wait(args.device)
        start = time.perf_counter()
        operations()
        wait(args.device)
        return time.perf_counter() - start

    updates = partial(step.layers.relative_updates, lambda: None)
    parts: dict[str, Callable[[], object]] = {"gradient norms": step.layers.gradient_norms, "updates": updates}
    return {name: [seconds(part) for _ in range(args.rounds * args.steps)] for name, part in parts.items()}


def chunk(contender: Contender, steps: int, device: str) -> float:
    """Seconds a step."""
    settled = done = 0
    while settled < SETTLE:
        settled += next(contender)
    wait(device)
    start = time.perf_counter()
    while done < steps:
        done += next(contender)
    wait(device)
    return (time.perf_counter() - start) / done


def compete(turns: Connection, make: Callable[..., Contender], spec: NetSpec, recipe: Recipe, args: Any) -> None:
    """What a contender's process does: a chunk for each number of steps that it gets."""
    multiprocessing.set_start_method(args.start_method, force=True)  # a DataLoader's workers begin as they usually do
    torch.set_num_threads(args.threads)
    contender = make(spec, load(args.data).resized(spec.image_size), recipe, args.device)
    while True:
        turns.send(chunk(contender, turns.recv(), args.device))


@contextmanager
def process(*job: Any, environment: dict[str, str]) -> Iterator[Connection]:
    """Where to send numbers of steps to and get seconds a step from."""
    context = multiprocessing.get_context("spawn")
    ours_end, its_end = context.Pipe()
    with mock.patch.dict(os.environ, environment):
        started = context.Process(target=compete, args=(its_end, *job))
        started.start()
    its_end.close()  # so that its death is seen here
    try:
        yield ours_end
    finally:
        started.terminate()
        started.join()


def interleaved(contenders: dict[str, Connection], steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each round, after one that compiles, records and chooses kernels."""

    def turn(contender: Connection, steps: int) -> float:
        contender.send(steps)
        return contender.recv()

    for contender in contenders.values():
        turn(contender, 1)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(turn(contender, steps))
    return times


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def spread(values: list[float], form: str = ".2f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def compare(spec: NetSpec, recipe: Recipe, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step of every contender, by round."""
    with ExitStack() as stack:
        contenders = {}
        for workers in (0, 2):
            job = process(partial(usual, workers=workers), spec, recipe, args, environment={})
            contenders[f"usual, {workers} workers"] = stack.enter_context(job)
        for name in ("ours", "compiled")[: 1 + args.compile]:
            made = dataclasses.replace(recipe, compile=name == "compiled")
            job = process(ours, spec, made, args, environment=KEEP_MEMORY)
            contenders[name] = stack.enter_context(job)
        return interleaved(contenders, args.steps, args.rounds)


def starts(spec: NetSpec, recipe: Recipe, args: argparse.Namespace) -> None:
    """Prints how long a new process takes to the end of its first steps: not compiled, compiled, and compiled again.

    The second time Inductor finds what it compiled in its cache, which is empty at first.
    """
    with TemporaryDirectory() as cache:
        for name in ("not compiled", "compiled", "compiled again"):
            made = dataclasses.replace(recipe, compile=name != "not compiled")
            environment = KEEP_MEMORY | {"TORCHINDUCTOR_CACHE_DIR": cache}
            begin = time.perf_counter()
            with process(ours, spec, made, args, environment=environment) as contender:
                contender.send(1)
                contender.recv()
            seconds = time.perf_counter() - begin
            print(f"{spec.name}: {name}, the first {SETTLE + 1} steps end after {seconds:.1f} s", flush=True)


def report(spec: NetSpec, recipe: Recipe, times: dict[str, list[float]], limits: dict[str, Ceilings]) -> bool:
    """A line each: images/s, FLOP/s, and the shares of the fastest kernel and of a step with each layer at its limit.

    False where a step is faster than a ceiling, which then is none.
    """
    net, shares = profile(spec), list[float]()
    for name, seconds in times.items():
        precision = "fp32" if name.startswith("usual") else recipe.precision
        limit, batch, step = limits[precision], recipe.batch, statistics.median(seconds)
        flops = FLOPS_PER_MAC * net.training_macs * batch
        shares += [flops / limit.flops / step, limit.seconds(net.rows, batch, training=True) / step]
        print(
            f"  {name:26} {precision} {spread([batch / s for s in seconds], ',.0f')} images/s, "
            f"{flops / step / 1e12:.3f} TFLOP/s: {shares[-2]:.0%} of the fastest kernel, "
            f"{shares[-1]:.0%} of what kernels and memory allow",
            flush=True,
        )
    return max(shares) <= 1


def headline(name: str, times: dict[str, list[float]]) -> dict[str, float]:
    """Prints how many times as fast ours is; the medians by name."""
    best = min((name for name in times if name.startswith("usual")), key=lambda name: statistics.median(times[name]))
    found = {}
    for who, label in (("ours", name), ("compiled", f"{name} compiled")):
        if who in times:
            by_round = ratios(times[best], times[who])
            print(f"{label}: {spread(by_round)} times as fast as {best}", flush=True)
            found[label] = round(statistics.median(by_round), 3)
    return found


def where(spec: NetSpec, data: Dataset, recipe: Recipe, args: argparse.Namespace) -> None:
    """Prints which operations the CPU's time goes to in steps that are not compiled."""
    contender, taken = ours(spec, data, recipe, args.device), Counter[str]()
    chunk(contender, 1, args.device)
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiled:
        chunk(contender, args.steps, args.device)
    for event in profiled.key_averages():
        kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), "all the rest")
        taken[kind] += event.self_cpu_time_total
    shares = [f"{kind} {taken[kind] / taken.total():.0%}" for kind in [*KINDS, "all the rest"]]
    print(f"{spec.name}: where a step's time goes: {', '.join(shares)}", flush=True)


def dashboard(spec: NetSpec, recipe: Recipe, args: argparse.Namespace) -> None:
    """Prints how much slower a worker's steps are while this process looks at its run each second, as the page does.

    And, because that drowns in the noise, the share of one core that the looking takes: no more can be lost, even
    where all of a step's threads wait for the one that gave way.
    """
    times: dict[bool, list[float]] = {False: [], True: []}
    looking = watching = 0.0
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, RESNET_RUNS_DIR=folder):
        job = Job(spec, args.data, recipe, device=args.device, threads=args.threads)
        run = runs.create(job)
        start(run)
        try:
            made = look(run, Digest())
            for watched in [False, *[False, True] * args.rounds]:
                first = made.count
                while made.count < first + args.steps:
                    begin, busy = time.perf_counter(), time.process_time()
                    time.sleep(1)
                    made = look(run, made) if watched else follow(made, run.path / "steps.bin", run.record_type())
                    if watched:
                        looking += time.process_time() - busy
                        watching += time.perf_counter() - begin
                    if run.status().state not in ACTIVE:
                        raise SystemExit(run.status().message)
                times[watched].append(float(run.steps()["seconds"][first : made.count].mean()))
        finally:
            run.delete()
    slower = [ratio - 1 for ratio in ratios(times[True], times[False][1:])]
    print(f"{spec.name}: with the page attached a step takes {spread(slower, '+.1%')} longer; "
          f"looking takes {looking / watching:.2%} of one core", flush=True)  # fmt: skip


def look(run: runs.Run, made: Digest) -> Digest:
    """Read and average all that the page draws."""
    made = follow(made, run.path / "steps.bin", run.record_type())
    run.status(), run.epochs(), curves(made), heat(strip(made), run.layers())
    return made


def seconds_to(spec: NetSpec, data: Dataset, recipe: Recipe, device: str, targets: list[float]) -> dict[float, float]:
    """Seconds of training and tests until the test accuracy in % first reaches each target that it reaches."""
    start, found = time.perf_counter(), dict[float, float]()
    for event in fit(*prepared(spec, data, recipe, device), recipe):
        if isinstance(event, EpochTested):
            seconds = time.perf_counter() - start
            reached = [target for target in targets if 100 * event.result.accuracy >= target]
            found |= {target: seconds for target in reached if target not in found}
            if len(found) == len(targets):
                break
    return found


def races(spec: NetSpec, data: Dataset, precision: str, args: argparse.Namespace) -> None:
    for seed in range(args.seeds):
        recipe = dataclasses.replace(RECIPES["fast"], seed=seed, precision=precision)
        found = seconds_to(spec, data, recipe, args.device, args.to)
        words = [
            f"{target:g} % " + (f"after {found[target]:.1f} s" if target in found else "never") for target in args.to
        ]
        print(f"{spec.name}, fast recipe, seed {seed}: test accuracy of {', '.join(words)}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--nets", nargs="+", default=NETS, help="presets, or ResNet-6n+2")
    parser.add_argument("--data", default="cifar10", help="where it is not here, drawn shapes take its place")
    parser.add_argument("--device", default=devices()[0], choices=devices())
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="3 or more for a ratio to quote")
    parser.add_argument("--steps", type=int, default=320 if devices()[0] == "cuda" else 10, help="of a chunk")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--starts", action="store_true", help="also how long the start takes, compiled and not")
    parser.add_argument("--norms", action="store_true", help="also what norms and updates take")
    parser.add_argument("--where", action="store_true", help="also which operations the time goes to, on a CPU")
    parser.add_argument("--dashboard", action="store_true", help="also with the page attached")
    parser.add_argument("--to", nargs="+", type=float, default=[], help="seconds to these test accuracies in %%")
    parser.add_argument("--seeds", type=int, default=3, help="of --to")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left
    args.start_method = multiprocessing.get_start_method()
    torch.set_num_threads(args.threads)
    try:
        data = load(args.data)
    except Refused:
        args.data, data = "shapes", load("shapes")
    print(f"{device_name(args.device)}, torch {torch.__version__}, {args.data}, batch {args.batch}, "
          f"{args.rounds} rounds of {args.steps} steps; medians (ranges)")  # fmt: skip
    found: dict[str, float] = {}
    sound = True
    for name in args.nets:
        spec = PRESETS[name] if name in PRESETS else cifar(int(name.removeprefix("ResNet-")))
        images, recipe = data.resized(spec.image_size), Recipe(epochs=1000, batch=args.batch)
        recipe = dataclasses.replace(recipe, precision=precision_for(spec, recipe, args.device))
        limits = {precision: ceilings(args.device, precision) for precision in {"fp32", recipe.precision}}
        times = compare(spec, recipe, args)
        sound &= report(spec, recipe, times, limits)
        found |= headline(name, times)
        if args.norms:
            step = statistics.median(times["ours"])
            for part, taken in recording(spec, images, recipe, args).items():
                print(
                    f"{name}: {part} take {spread([seconds / step for seconds in taken], '.2%')} of a step", flush=True
                )
        if args.starts:
            starts(spec, recipe, args)
        if args.where:
            where(spec, images, recipe, args)
        if args.dashboard:
            dashboard(spec, recipe, args)
        if args.to:
            races(spec, images, recipe.precision, args)
    print(json.dumps(found))
    if not sound:
        sys.exit("A share is above 100 %, so what was taken for a ceiling is none.")


if __name__ == "__main__":
    main(arguments())
