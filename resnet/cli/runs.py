"""The commands that train and those that take runs: train, resume, runs, tensorboard, test, share, work."""

import argparse
import dataclasses
import functools
import logging
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from resnet.train.recipes import RECIPES, SETTINGS, Recipe

if TYPE_CHECKING:
    from resnet.nets.spec import NetSpec
    from resnet.runs.jobs import Job
    from resnet.runs.store import Run
    from resnet.work.weights import Begun

ENDED_WELL = ("finished", "paused", "stopped")


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    option = command("train", train, "train a net, and its plain twin with --twin").add_argument
    option(
        "--net", help="a preset (ResNet-20, plain-56, ...) or a net's code from the app's address; ResNet-20 without it"
    )
    option("--twin", action="store_true", help="train the plain twin beside it, on the same batches")
    option("--data", default="shapes", help="shapes, cifar10, an .npz file or a folder of class folders")
    option("--stream", action="store_true", help="leave a folder's pictures on the disk and read each when needed")
    option("--train", type=int, help="use only so many training images")
    option("--size", type=int, help="resize the images to so many pixels")
    option("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    option("--threads", type=int, default=0, help="CPU threads per run")
    option("--from", dest="begin", help="the weights that the net begins with: a file, a run, a run after an epoch "
           "(RUN@3), or torchvision; those of a head for other classes are left out")  # fmt: skip
    option("--partial", action="store_true", help="load all of these weights that fits")
    option(
        "--scratch", action="store_true", help="train the same net from drawn weights beside it, on the same batches"
    )
    option("--recipe", default="short", choices=list(RECIPES), help="a named recipe; options change it")
    for field in dataclasses.fields(Recipe):
        _recipe_option(option, field)
    command("resume", resume, "go on with runs").add_argument("run", nargs="+", help="a run's id")
    command("runs", show, "list the runs")
    option = command("tensorboard", write_events, "write runs as TensorBoard event files").add_argument
    option("run", nargs="+", help="a run's id")
    option("--out", type=Path, required=True, help="the folder for tensorboard --logdir")
    option = command("test", test_on, "test a run's final weights on other images").add_argument
    option("run", help="a run's id")
    option("--data", required=True, help="an .npz file or a folder of class folders")
    option = command("share", share, "copy runs to hand them on: weights without momentum").add_argument
    option("run", nargs="+", help="a run's id")
    option("--to", type=Path, required=True, help="the folder for the copies")
    option("--epochs", type=int, default=2, help="keep the weights after so many epochs, beside the final ones")
    option("--half", action="store_true", help="the final weights in half precision, which is half as large")
    command("work", work, "train the run in a folder (started by the others)").add_argument("folder", type=Path)


def _recipe_option(option: Callable[..., argparse.Action], field: dataclasses.Field) -> None:
    name = f"--{field.name.replace('_', '-')}"
    if field.type is bool:
        option(name, action=argparse.BooleanOptionalAction)
    else:
        option(name, type=field.type)


def train(args: argparse.Namespace) -> int:
    """Train in processes of their own, or under torchrun in this one and its siblings."""
    from resnet.data.dataset import available, load
    from resnet.data.folder import open_folder
    from resnet.nets.codes import from_code
    from resnet.nets.spec import twins
    from resnet.runs.jobs import Job, fitted
    from resnet.runs.process import race
    from resnet.runs.store import START
    from resnet.train import distributed

    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if getattr(args, f.name) is not None}
    recipe = dataclasses.replace(RECIPES[args.recipe], **given)
    named, images, size = args.net, args.train, args.size
    if setting := SETTINGS.get(args.recipe):
        named = setting.net if named is None else named
        images = setting.train_images if images is None else images
        size = setting.image_size if size is None else size
    data = (open_folder if args.stream else load)(args.data, size, images)
    net = fitted(from_code("ResNet-20" if named is None else named), data)
    nets = twins(net) if args.twin else [net]
    name = args.data if args.data in available() else str(Path(args.data).expanduser().resolve())
    job = Job(net, name, recipe, images, args.device, args.threads, only_offered=False, stream=args.stream)
    with tempfile.TemporaryDirectory() as folder:
        file = None
        if args.begin:
            content, words, pixels = _beginning(net, args)
            file = Path(folder) / START
            file.write_bytes(content)
            job = dataclasses.replace(job, start=words, pixels=pixels)
            nets = [net, *nets] if args.scratch else nets
        if distributed.under_torchrun():
            return _train_together(args.device, functools.partial(_create, job, nets, file))
        started = race(job, nets, file)
    print(*data.notes, sep="\n", end="\n" if data.notes else "", flush=True)
    return _follow(started)


def _create(job: "Job", nets: "list[NetSpec]", start: Path | None) -> "list[Run]":
    from resnet.runs.store import create_race
    from resnet.train import distributed

    distributed.check(job.recipe)
    return create_race(job, nets, start)


def _beginning(net: "NetSpec", args: argparse.Namespace) -> "Begun":
    from resnet.work.weights import Weights, begin

    return begin(net, dataclasses.replace(Weights.named(args.begin, net), partial=args.partial))


def resume(args: argparse.Namespace) -> int:
    from resnet.runs.process import start
    from resnet.runs.store import find
    from resnet.train import distributed

    found = [find(run_id) for run_id in args.run]
    if distributed.under_torchrun():
        return _train_together(found[0].job.device, lambda: found)
    start(*found)
    return _follow(found)


def _train_together(device: str, find: "Callable[[], list[Run]]") -> int:
    """This process's part in training the runs one after the other; the first process finds, records and prints."""
    from resnet.devices import devices
    from resnet.runs.process import make_ready
    from resnet.runs.worker import help_with
    from resnet.train import distributed

    with distributed.process_group(devices()[0] if device == "auto" else device):
        for run in distributed.broadcast_object(find):
            distributed.check(run.job.recipe)
            distributed.broadcast_object(functools.partial(make_ready, run))
            _pause_on_signals(run, first=distributed.rank() == 0)
            state = _record(run) if distributed.rank() == 0 else help_with(run)
            if state != "finished":
                break
    return 0 if state in ENDED_WELL else 1


def _record(run: "Run") -> str:
    """Train in this process, with a line for each test; the state it ends in."""
    from resnet.runs.worker import work

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    print(f"{run.job.title}: {run.path}", flush=True)
    status = work(run.path)
    print(f"{run.job.title}: {status.state}. {status.message}", flush=True)
    return status.state


def _pause_on_signals(run: "Run", first: bool) -> None:
    """Ctrl-C and the end of a cluster's time let the processes end together, after a step and with a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.request("pause") if first else None)


def _follow(started: "list[Run]") -> int:
    """Print a line per new test result and at the end; Ctrl-C pauses the runs."""
    from resnet.runs.process import wait

    for run in started:
        print(f"{run.job.title}: {run.path}", flush=True)
    shown = dict.fromkeys(started, 0)
    try:
        for _ in wait(started):
            for run in started:
                for row in run.epochs().iloc[shown[run] :].itertuples():
                    print(f"{run.job.title}: epoch {row.epoch}, step {row.step}, test accuracy {row.test_accuracy:.2%}")
                    shown[run] += 1
    except KeyboardInterrupt:
        for run in started:
            run.request("pause")
        list(wait(started))
    statuses = [run.status() for run in started]
    for run, status in zip(started, statuses, strict=True):
        print(f"{run.job.title}: {status.state}. {status.message}")
    return 0 if all(status.state in ENDED_WELL for status in statuses) else 1


def show(args: argparse.Namespace) -> int:
    from resnet.runs.store import all_runs

    for run in all_runs():
        status = run.status()
        print(f"{run.id}  {status.state:9} {len(run.steps()):>6}/{status.steps}  {run.job.title} on {run.job.data}")
    return 0


def write_events(args: argparse.Namespace) -> int:
    from resnet.runs.store import find
    from resnet.runs.tensorboard import write

    for run_id in args.run:
        print(write(find(run_id), args.out))
    return 0


def test_on(args: argparse.Namespace) -> int:
    from resnet.data.dataset import load_tests
    from resnet.runs.sharing import test_on
    from resnet.runs.store import find

    run = find(args.run)
    found = test_on(run, load_tests(args.data, run.job.net.image_size))
    said = " ".join([found["source"], *found["notes"]])
    print(f"{run.job.title}: {found['accuracy']:.2%} of {found['images']:,} test images. {said}")
    return 0


def share(args: argparse.Namespace) -> int:
    from resnet.runs.sharing import share
    from resnet.runs.store import find

    for run_id in args.run:
        print(share(find(run_id), args.to, args.epochs, args.half).path)
    return 0


def work(args: argparse.Namespace) -> int:
    from resnet.runs.worker import work

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return 0 if work(args.folder, alone=True).state != "failed" else 1
