"""The commands that measure nets: gradients, and the figures of all analyses."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from resnet.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

    from resnet.nets.spec import NetSpec


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    parser = command("gradients", gradients, "print the gradient norms along a net and along its plain twin")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("net", nargs="?", help="a preset or a code, with weights as drawn from --seed")
    which.add_argument("--run", help="a run's id: its trained weights, on test images of its data")
    option = parser.add_argument
    option("--alone", action="store_true", help="leave out the plain twin, or the other runs of the race")
    option("--count", type=int, default=128, help="images in the batch")
    option("--csv", type=Path, help="write the norms to this file as well")
    option("--epoch", type=int, help="of a run: the weights kept after this epoch; the last ones without it")
    option("--images", help="of a net: a data set whose test images to take; Gaussian noise without it")
    option("--norm", help="of a net: batch, group or none; its own without it")
    option("--seed", type=int, default=0, help="of a net: from which the weights are drawn")

    parser = command("analyses", figures, "measure what is said of residual nets: the figures of all analyses")
    option = parser.add_argument
    option("--table", action="store_true", help="as a Markdown table at the end, beside what others found")
    option("--only", nargs="+", default=(), metavar="ANALYSIS", help="only the figures of these analyses")
    option("--seeds", type=int, default=3, help="of the weights and the noise")
    option("--out", type=Path, help="write them to this file (.json), as the app reads them from assets/figures.json")

    parser = command("surface", surface, "compute the loss around a run's weights, and keep it for the Landscape page")
    parser.add_argument("run", help="a run's id")
    option = parser.add_argument
    option("--points", type=int, default=17, help="a side of the grid")
    option("--span", type=float, default=1.0, help="from the middle to an edge, in lengths of the filters")
    option("--images", type=int, default=250, help="test images of the run's data")
    option("--out", type=Path, help="a folder to keep it in, as assets/landscapes; the user's own without it")


def surface(args: argparse.Namespace) -> int:
    from resnet.runs.opened import test_batch
    from resnet.runs.store import find
    from resnet.work.analysing import OWN, Analysed
    from resnet.work.weights import Model

    run = find(args.run)
    if (images := len(test_batch(run, args.images)[1])) < args.images:
        raise Refused("A surface is kept of as many test images as are asked for.", args.images, f"{images} at most")
    model, options = Model.of(run), (("points", args.points), ("span", args.span))
    asked, line = (Analysed(name, (model,), OWN, args.images, options=options) for name in ("surface", "line"))
    for step in asked.run():
        print(f"\r{step.share:.0%}", end="", flush=True)
    kept, kept_line = asked.kept(model), line.kept(model)
    if kept is None or kept_line is None or (table := kept.read()) is None:
        raise Refused("The surface was not kept, because the user's cache folder cannot be written.")
    kept_line.keep(table[table.b == 0])
    if args.out:
        kept.keep(table, args.out)
        kept_line.keep(table[table.b == 0], args.out)
    middle = table[(table.a == 0) & (table.b == 0)].iloc[0]
    print(f"\r{model.title}: {middle.loss:.4g} nats and {middle.accuracy:.1%} right in the middle, "
          f"{table.loss.max():.4g} at most")  # fmt: skip
    return 0


def figures(args: argparse.Namespace) -> int:
    from resnet.claims.figures import figures as every
    from resnet.claims.figures import measured, write

    chosen = [figure for figure in every() if not args.only or figure.analysis in args.only]
    if not chosen:
        names = sorted({figure.analysis for figure in every()})
        raise Refused("There are no such analyses.", ", ".join(args.only), ", ".join(names))
    for table in measured(chosen, args.seeds):
        row = table.iloc[-1]
        known = f" (elsewhere {row.others})" if row.others else ""
        print(f"{row.net}, {row.quantity}: {row['mean']:.4g}{known}, {row.seconds:.1f} s", flush=True)
    if args.out:
        write(table, args.out)
    if args.table:
        print("\n| analysis | net | quantity | here (range) | elsewhere | seconds |\n|---|---|---|---|---|---|")
        for entry in table.to_dict("records"):
            here = f"{entry['mean']:.4g} ({entry['low']:.4g} to {entry['high']:.4g})"
            print(f"| {entry['analysis']} | {entry['net']} | {entry['quantity']} | {here} | {entry['others']} | "
                  f"{entry['seconds']:.1f} |")  # fmt: skip
    return 0


def gradients(args: argparse.Namespace) -> int:
    from resnet.analysis.contract import beside
    from resnet.analysis.gradients import OUTPUT, WEIGHT, trend

    specs, frames = zip(*(_of_runs(args) if args.run else _of_nets(args)), strict=True)
    table = beside([(spec.name, spec.plain) for spec in specs], frames)
    print(table.drop(columns="plain").to_string(index=False))
    for spec, frame in zip(specs, frames, strict=True):
        for kind, norm in ((OUTPUT, "||dL/dx||"), (WEIGHT, "||dL/dW||")):
            found = trend(frame, kind)
            ends = "nothing to fit"
            if found.factor is not None:
                ends = f"x {found.factor:#.4g} per layer towards the input, first / last {found.ratio:#.4g}"
            left_out = f" ({found.left_out} of {found.norms} norms left out: 0 or not finite)" if found.left_out else ""
            print(f"{spec.name}, {norm}: {ends}{left_out}")
    if args.csv:
        table.to_csv(args.csv, index=False)
    return 0


def _of_nets(args: argparse.Namespace) -> "list[tuple[NetSpec, pd.DataFrame]]":
    """The norms of the untrained net, and of its plain twin on the same batch."""
    from resnet.analysis.batches import noise_batch
    from resnet.analysis.gradients import gradient_norms
    from resnet.data.dataset import load
    from resnet.nets.codes import from_code
    from resnet.nets.model import build
    from resnet.nets.spec import twins
    from resnet.runs.jobs import fitted

    net = from_code(args.net)
    if args.norm:
        net = dataclasses.replace(net, norm=args.norm)
    _check_count(net, args.count)
    if args.images is None:
        batch = noise_batch(net, args.count)
    else:
        if net.frames:
            raise Refused("A data set's images are for a net that reads images.", f"{net.frames} frames", "noise")
        data = load(args.images, net.image_size, 2000)
        net, batch = fitted(net, data), data.test_batch(args.count)
    nets = [net] if args.alone else twins(net)
    return [(each, gradient_norms(build(each, args.seed), *batch)) for each in nets]


def _of_runs(args: argparse.Namespace) -> "list[tuple[NetSpec, pd.DataFrame]]":
    """The norms of a run, and of the others of its race that have weights."""
    from resnet.analysis.gradients import gradient_norms
    from resnet.runs.opened import open_run
    from resnet.runs.store import find, race_of

    if args.images or args.norm:
        raise Refused("A run is measured with its own norm, on its own data.", "--images or --norm", "a net for these")
    run, found = find(args.run), []
    race = [run] if args.alone else race_of(run)
    for each in (other for other in race if other == run or other.checkpoint_step()):
        _check_count(each.job.net, args.count)
        trained = open_run(each, args.epoch)
        found.append((each.job.net, gradient_norms(trained.model, *trained.test_batch(args.count))))
    return found


def _check_count(net: "NetSpec", count: int) -> None:
    from resnet.work.predict import batch_limit

    limit = batch_limit(net)
    if not 2 <= count <= limit:
        raise Refused(f"A batch of {net.name} has 2 images or more, and must fit into memory.", count, f"2 to {limit}")
