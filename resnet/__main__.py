"""`python -m resnet`: train, resume, list, profile, export and fetch data without the app."""

import argparse
import dataclasses
import functools
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from resnet.costs.conventions import CONVENTIONS, convention_of, count, ledger, unknown
from resnet.costs.profiler import Profile, profile, shape_text
from resnet.data.dataset import available, download_cifar10, load
from resnet.data.folder import open_folder
from resnet.devices import devices
from resnet.errors import Refused
from resnet.exports.forms import EXPORTERS, export, file_name
from resnet.nets.codes import from_code
from resnet.nets.model import ResNet, build
from resnet.nets.spec import NetSpec, twins
from resnet.runs import store as runs
from resnet.runs.jobs import Job, fitted
from resnet.runs.process import make_ready, race, start, wait
from resnet.runs.sharing import share, test_on
from resnet.runs.worker import help_with, work
from resnet.train import distributed
from resnet.train.recipes import RECIPES, Recipe

ENDED_WELL = ("finished", "paused", "stopped")


def train(args: argparse.Namespace) -> int:
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if getattr(args, f.name) is not None}
    recipe = dataclasses.replace(RECIPES[args.recipe], **given)
    data = (open_folder if args.stream else load)(args.data, args.size, args.train)
    net = fitted(from_code(args.net), data)
    nets = twins(net) if args.twin else [net]
    name = args.data if args.data in available() else str(Path(args.data).expanduser().resolve())
    job = Job(net, name, recipe, args.train, args.device, args.threads, only_offered=False, stream=args.stream)
    if distributed.launched():
        return _train_together(args.device, functools.partial(_create, job, nets))
    return _follow(race(job, nets))


def _create(job: Job, nets: list[NetSpec]) -> list[runs.Run]:
    distributed.check(job.recipe)
    return runs.create_race(job, nets)


def resume(args: argparse.Namespace) -> int:
    found = [runs.find(run_id) for run_id in args.run]
    if distributed.launched():
        return _train_together(found[0].job.device, lambda: found)
    start(*found)
    return _follow(found)


def _train_together(device: str, find: Callable[[], list[runs.Run]]) -> int:
    """This process's part in training the runs one after the other; the first process finds, records and tells."""
    with distributed.joined(devices()[0] if device == "auto" else device):
        for run in distributed.agreed(find):
            distributed.check(run.job.recipe)
            distributed.agreed(functools.partial(make_ready, run))
            _pause_on_signals(run)
            state = _record(run) if distributed.rank() == 0 else help_with(run)
            if state != "finished":
                break
    return 0 if state in ENDED_WELL else 1


def _record(run: runs.Run) -> str:
    """Train in this process, with a line for each test; the state it ends in."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    print(f"{run.job.net.name}: {run.path}", flush=True)
    status = work(run.path)
    print(f"{run.job.net.name}: {status.state}. {status.message}", flush=True)
    return status.state


def _pause_on_signals(run: runs.Run) -> None:
    """Ctrl-C and the end of a cluster's time let the processes end together, after a step and with a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.request("pause") if distributed.rank() == 0 else None)


def _follow(started: list[runs.Run]) -> int:
    """Print a line per new test result and at the end; Ctrl-C pauses the runs."""
    for run in started:
        print(f"{run.job.net.name}: {run.path}", flush=True)
    shown = dict.fromkeys(started, 0)
    try:
        for _ in wait(started):
            for run in started:
                for row in run.epochs().iloc[shown[run] :].itertuples():
                    print(
                        f"{run.job.net.name}: epoch {row.epoch}, step {row.step}, test accuracy {row.test_accuracy:.2%}"
                    )
                    shown[run] += 1
    except KeyboardInterrupt:
        for run in started:
            run.request("pause")
        list(wait(started))
    statuses = [run.status() for run in started]
    for run, status in zip(started, statuses, strict=True):
        print(f"{run.job.net.name}: {status.state}. {status.message}")
    return 0 if all(status.state in ENDED_WELL for status in statuses) else 1


def show_runs(args: argparse.Namespace) -> int:
    for run in runs.all_runs():
        status = run.status()
        print(f"{run.id}  {status.state:9} {len(run.steps()):>6}/{status.steps}  {run.job.net.name} on {run.job.data}")
    return 0


def write_events(args: argparse.Namespace) -> int:
    from resnet.runs.tensorboard import write  # slow to import

    for run_id in args.run:
        print(write(runs.find(run_id), args.out))
    return 0


def show_profile(args: argparse.Namespace) -> int:
    name, result = _profiled(args.net)
    print(result.stages().to_string(index=False))
    print(
        f"{name}, input {shape_text(result.input_shape)}: {result.params:,} params, {result.macs:,} MACs "
        f"(multiply-adds of convolutions and linear layers) = {result.flops:,} FLOPs"
    )
    if args.count:
        convention = convention_of(args.count)
        print(ledger(result, args.count).to_string(index=False))
        print(f"{convention.title}: {count(result, args.count):,} {convention.unit}. {convention.explanation}")
        for row in unknown(result, args.count):
            print(f"not counted, because the convention has no rule for it: {row.kind} {row.name}")
    return 0


def _profiled(net: str) -> tuple[str, Profile]:
    """A relative or system by its name, else one of our nets by its code."""
    from resnet.zoo.relatives import RELATIVES, profile_relative  # torchvision is slow to import
    from resnet.zoo.systems import SYSTEMS, profile_system

    if net in RELATIVES:
        return net, profile_relative(net)
    if net in SYSTEMS:
        return net, profile_system(net)
    spec = from_code(net)
    return spec.name, profile(spec)


def write_export(args: argparse.Namespace) -> int:
    spec = from_code(args.net)
    model = build(spec) if EXPORTERS[args.form].needs_weights else None
    if model and args.weights:
        _load(model, args.weights)
    path = args.out or Path(file_name(args.form, spec))
    path.write_bytes(export(args.form, spec, model))
    print(path)
    return 0


def _load(model: ResNet, path: Path) -> None:
    """Refused where the file does not hold this net's weights, after a list of what does not fit."""
    from resnet.zoo.weights import fit, read  # torchvision is slow to import

    try:
        report = fit(model, read(path))
    except Refused as error:
        raise Refused(str(error)) from None
    if not report.fits:
        print(report.table().to_string(index=False), file=sys.stderr)
        raise Refused(f"{path} does not hold the weights of {model.spec.name}: see the list above.")


def fetch_data(args: argparse.Namespace) -> int:
    for done, total in download_cifar10():
        print(f"\rCIFAR-10: {done / 1e6:.0f} of {total / 1e6:.0f} MB", end="", flush=True)
    print()
    return 0


def test_run(args: argparse.Namespace) -> int:
    run = runs.find(args.run)
    found = test_on(run, load(args.data, run.job.net.image_size))
    print(f"{run.job.net.name}: {found['accuracy']:.2%} of {found['images']:,} test images. {found['source']}")
    return 0


def share_runs(args: argparse.Namespace) -> int:
    for run_id in args.run:
        print(share(runs.find(run_id), args.to, args.epochs).path)
    return 0


def run_worker(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    return 0 if work(args.folder, alone=True).state != "failed" else 1


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
    add("--stream", action="store_true", help="leave a folder's pictures on the disk and read each when it is needed")
    add("--train", type=int, help="use only so many training images")
    add("--size", type=int, help="resize the images to so many pixels")
    add("--device", default="auto", choices=["auto", "cuda", "mps", "cpu"])
    add("--threads", type=int, default=0, help="CPU threads per run")
    add("--recipe", default="short", choices=list(RECIPES), help="a named recipe; the options below change it")
    for field in dataclasses.fields(Recipe):
        kind = field.type if callable(field.type) else str
        if kind is bool:
            add(f"--{field.name.replace('_', '-')}", action=argparse.BooleanOptionalAction)
        else:
            add(f"--{field.name.replace('_', '-')}", type=kind)
    command("resume", resume, "go on with runs").add_argument("run", nargs="+", help="a run's id")
    command("runs", show_runs, "list the runs")
    add = command("tensorboard", write_events, "write runs as TensorBoard event files").add_argument
    add("run", nargs="+", help="a run's id")
    add("--out", type=Path, required=True, help="the folder for tensorboard --logdir")
    add = command("test", test_run, "test a run's final weights on other images").add_argument
    add("run", help="a run's id")
    add("--data", required=True, help="an .npz file or a folder of class folders")
    add = command("share", share_runs, "copy runs to hand them on: weights without momentum").add_argument
    add("run", nargs="+", help="a run's id")
    add("--to", type=Path, required=True, help="the folder for the copies")
    add("--epochs", type=int, default=2, help="keep the weights after so many epochs, beside the final ones")
    show = command("profile", show_profile, "print the stages and costs of a net, a relative or a system").add_argument
    show("net")
    show("--count", choices=list(CONVENTIONS), help="also count as this paper or tool does, with the ledger")
    add = command("export", write_export, "write a net as source, ONNX, weights or a table").add_argument
    add("net")
    add("form", choices=list(EXPORTERS))
    add("--weights", type=Path, help="safetensors or a state_dict to write with it; untrained ones without it")
    add("--out", type=Path, help="the file to write; a name after the net without it")
    command("data", fetch_data, "download CIFAR-10 into the data folder").add_argument("name", choices=["cifar10"])
    command("work", run_worker, "train the run in a folder (started by the others)").add_argument("folder", type=Path)
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
