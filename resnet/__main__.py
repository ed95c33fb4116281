"""`python -m resnet`: train, resume, list, profile and fetch data without the app."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from resnet import runs
from resnet.codes import from_code
from resnet.data import DataError, available, download_cifar10, load
from resnet.profiler import profile
from resnet.spec import NetSpec, SpecError, plain_twin
from resnet.trainer import Recipe, RecipeError
from resnet.worker import work


def train(args: argparse.Namespace) -> int:
    recipe = Recipe(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)})
    spec = from_code(args.net)
    data = load(args.data, args.size, args.train)
    spec = dataclasses.replace(spec, classes=data.classes, in_channels=data.channels, image_size=data.size)
    nets = [spec, plain_twin(spec)] if args.twin and not spec.plain else [spec]
    name = args.data if args.data in available() else str(Path(args.data).expanduser().resolve())
    return _follow(runs.start_race(nets, name, vars(recipe), args.train, args.device, args.threads, only_offered=False))


def resume(args: argparse.Namespace) -> int:
    found = [runs.find(run_id) for run_id in args.run]
    for run in found:
        runs.start(run)
    return _follow(found)


def _follow(started: list[runs.Run]) -> int:
    """Print a line per new test result and at the end; Ctrl-C pauses the runs."""
    for run in started:
        print(f"{run.job.net.name}: {run.path}", flush=True)
    shown = dict.fromkeys(started, 0)
    try:
        for _ in runs.wait(started):
            for run in started:
                for row in run.epochs().iloc[shown[run] :].itertuples():
                    print(
                        f"{run.job.net.name}: epoch {row.epoch}, step {row.step}, test accuracy {row.test_accuracy:.2%}"
                    )
                    shown[run] += 1
    except KeyboardInterrupt:
        for run in started:
            run.request("pause")
        list(runs.wait(started))
    statuses = [run.status() for run in started]
    for run, status in zip(started, statuses, strict=True):
        print(f"{run.job.net.name}: {status.state}. {status.message}")
    return 0 if all(status.state in ("finished", "paused", "stopped") for status in statuses) else 1


def show_runs(args: argparse.Namespace) -> int:
    for run in runs.all_runs():
        status = run.status()
        print(f"{run.id}  {status.state:9} {len(run.steps()):>6}/{status.steps}  {run.job.net.name} on {run.job.data}")
    return 0


def show_profile(args: argparse.Namespace) -> int:
    spec: NetSpec = from_code(args.net)
    result = profile(spec)
    print(result.stages().to_string(index=False))
    print(
        f"{spec.name} at {spec.image_size} px: {result.params:,} params, {result.macs:,} MACs "
        f"(multiply-adds of convolutions and linear layers) = {result.flops:,} FLOPs"
    )
    return 0


def fetch_data(args: argparse.Namespace) -> int:
    for done, total in download_cifar10():
        print(f"\rCIFAR-10: {done / 1e6:.0f} of {total / 1e6:.0f} MB", end="", flush=True)
    print()
    return 0


def run_worker(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return 0 if work(args.folder).state != "failed" else 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m resnet", description=__doc__)
    commands = top.add_subparsers(required=True)

    def command(name: str, function: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text)
        added.set_defaults(function=function)
        return added

    add = command("train", train, "train a net, and its plain twin with --twin").add_argument
    add("--net", default="ResNet-20", help="a preset (ResNet-20, plain-56, ...) or a net's code from the app's address")
    add("--twin", action="store_true", help="train the plain twin beside it, on the same batches")
    add("--data", default="shapes", help="shapes, cifar10, an .npz file or a folder of class folders")
    add("--train", type=int, help="use only so many training images")
    add("--size", type=int, help="resize the images to so many pixels")
    add("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    add("--threads", type=int, default=0, help="CPU threads per run")
    for field in dataclasses.fields(Recipe):
        kind = field.type if callable(field.type) else str
        if kind is bool:
            add(f"--{field.name}", action=argparse.BooleanOptionalAction, default=field.default)
        else:
            add(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    command("resume", resume, "go on with runs").add_argument("run", nargs="+", help="a run's id")
    command("runs", show_runs, "list the runs")
    command("profile", show_profile, "print a net's stages and costs").add_argument("net")
    command("data", fetch_data, "download CIFAR-10 into the data folder").add_argument("name", choices=["cifar10"])
    command("work", run_worker, "train the run in a folder (started by the others)").add_argument("folder", type=Path)
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except (SpecError, RecipeError, DataError, runs.RunError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
