"""The commands that count and write nets: profile, compare, budget, export."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnet.errors import Refused, choose

if TYPE_CHECKING:
    from resnet.costs.profiler import Profile
    from resnet.nets.inputs import Inputs
    from resnet.nets.model import ResNet
    from resnet.nets.spec import NetSpec
    from resnet.zoo.fitting import Report
    from resnet.zoo.weights import WeightsFile


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    option = command("profile", show, "print the stages and costs of a net, a relative or a system").add_argument
    option("net", help="a name (ResNet-50, wide_resnet50_2, DenseNet-121, ...) or a code")
    option("--count", metavar="CONVENTION", help="also count as this paper or tool does (he2015, fvcore, ...)")
    option = command("compare", compare, "print the costs of nets, and for two of them what differs").add_argument
    option("net", nargs="+", help="as for profile")
    option("--what", default="macs", help="explain the difference of two nets in macs, params or activations")
    option = command("budget", budget, "list the largest nets that fit into a budget").add_argument
    option("--params", type=amount, default=0, help="parameters at most, such as 1e6; 0 for any")
    option("--macs", type=amount, default=0, help="MACs for one image at most, such as 150e6; 0 for any")
    option("--memory", type=amount, default=0, metavar="MIB", help="MiB of a training step at most; 0 for any")
    option("--batch", type=amount, default=128, help="images in that training step")
    option("--net", default="ResNet-20", help="whose input, classes, shortcuts and norm to take")
    option("--block", action="append", help="a block to try; may be given more than once; the net's without it")
    option("--stem", action="append", help="likewise a stem")
    option = command("export", write, "write a net as source, ONNX, weights or a table").add_argument
    option("net", nargs="?", help="as for train; not with --run")
    option("form", help="pytorch, keras, torchvision, timm, onnx, weights, spec, layers, stages")
    option("--weights", type=Path, help="safetensors or a state_dict to write with it; untrained ones without it")
    option("--partial", action="store_true", help="load all of --weights that fits, and leave the rest at its start")
    option("--run", help="a run's id: its net and weights, and how its images are prepared")
    option("--opset", type=int, default=18, help="of ONNX, 11 to 23; 18 without it")
    option("--out", type=Path, help="the file to write; a name after the net without it")


def amount(text: str) -> int:
    """A whole number, also one written as 1e6."""
    number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)


class Named(NamedTuple):
    """A net by its name; relatives and systems have no `spec`."""

    name: str
    spec: "NetSpec | None"
    profile: "Profile"


def _named(net: str) -> Named:
    from resnet.zoo.catalogue import find, profile_of  # torchvision is slow to import

    name, spec = find(net)
    return Named(name, spec, profile_of(name, spec))


def _labelled(nets: list[str]) -> list[Named]:
    """The nets by their names; those that share one by what was typed."""
    found = {net: _named(net) for net in nets}
    names = Counter(net.name for net in found.values())
    return [net if names[net.name] == 1 else net._replace(name=typed) for typed, net in found.items()]


def show(args: argparse.Namespace) -> int:
    from resnet.costs.conventions import convention_of, count, ledger, unknown
    from resnet.costs.recorder import shape_text

    convention = convention_of(args.count) if args.count else None
    name, _, result = _named(args.net)
    print(result.stages().to_string(index=False))
    print(
        f"{name}, input {shape_text(result.input_shape)}: {result.params:,} params, {result.macs:,} MACs "
        f"(multiply-adds of convolutions and linear layers) = {result.flops:,} FLOPs"
    )
    if convention:
        print(ledger(result, args.count).to_string(index=False))
        print(f"{convention.title}: {count(result, args.count):,} {convention.unit}. {convention.explanation}")
        for row in unknown(result, args.count):
            print(f"not counted, because the convention has no rule for it: {row.kind} {row.name}")
    return 0


def compare(args: argparse.Namespace) -> int:
    from resnet.costs.compare import KINDS, QUANTITIES, differences, steps, totals

    quantity = choose("quantity", args.what, QUANTITIES)
    nets = _labelled(args.net)
    depths = {net.name: net.spec.depth for net in nets if net.spec}
    print(totals({net.name: net.profile for net in nets}, depths).to_string(index=False))
    if len(nets) == 2:
        a, b = nets
        if a.spec and b.spec:
            for entry, one, other in differences(a.spec, b.spec):
                print(f"{entry}: {one} -> {other}")
        for by, words in KINDS.items():
            print(f"\n{quantity}, from {a.name} to {b.name} {words}:")
            print(steps(a.profile, b.profile, args.what, by).to_string(index=False))
    return 0


def budget(args: argparse.Namespace) -> int:
    from resnet.costs.budget import Budget, search, table
    from resnet.nets.codes import from_code
    from resnet.nets.kinds import BLOCK_KINDS, STEMS

    base = from_code(args.net)
    blocks, stems = args.block or [base.block], args.stem or [base.stem]
    for block in blocks:
        choose("block", block, BLOCK_KINDS)
    for stem in stems:
        choose("stem", stem, STEMS)
    allowed = Budget(args.params, args.macs, args.memory * 2**20, args.batch)
    *_, (_, found) = search(base, allowed, tuple(blocks), tuple(stems))
    if not found:
        print("No net of the grid fits. Allow more.")
        return 0
    listed = table(found)
    peak = listed.pop("bytes") / 2**20
    if allowed.memory:
        listed["peak MiB"] = peak
    print(listed.to_string(index=False, float_format="%.0f"))
    return 0


def write(args: argparse.Namespace) -> int:
    from resnet.exports.forms import EXPORTERS, export, file_name

    if (args.net is None) == (args.run is None):
        raise Refused("Export takes a net, or a run.", choices="export NET FORM, or export FORM --run RUN")
    needs_weights = choose("form", args.form, EXPORTERS).needs_weights
    spec, model, inputs = _of_run(args) if args.run else _of_net(args, needs_weights)
    path = args.out or Path(file_name(args.form, spec))
    path.write_bytes(export(args.form, spec, model, inputs, args.opset))
    print(path)
    return 0


def _of_run(args: argparse.Namespace) -> "tuple[NetSpec, ResNet, Inputs]":
    from resnet.runs.opened import open_run
    from resnet.runs.store import find

    if args.weights:
        raise Refused("A run has weights of its own.", "--run and --weights", "one of them")
    opened = open_run(find(args.run))
    return opened.run.job.net, opened.model, opened.inputs


def _of_net(args: argparse.Namespace, needs_weights: bool) -> "tuple[NetSpec, ResNet | None, Inputs | None]":
    from resnet.nets.codes import from_code
    from resnet.nets.model import build
    from resnet.zoo.weights import read

    spec = from_code(args.net)
    if args.weights is None:
        return spec, build(spec) if needs_weights else None, None
    model, file = build(spec), read(args.weights)
    load_weights(model, file, args.weights, args.partial)
    inputs = file.inputs and file.inputs.fitted(spec)
    if inputs is None:
        print(f"{args.weights} does not say how images are prepared, so nor does the export.", file=sys.stderr)
    return spec, model, inputs


def load_weights(model: "ResNet", file: "WeightsFile", path: Path, partial: bool) -> "Report":
    """What was loaded, after saying so. Refused where nothing was, after a list of what does not fit."""
    from resnet.zoo.fitting import fit

    report = fit(model, file, partial)
    print(*report.sentences(), sep="\n", file=sys.stderr)
    if not report.loaded:
        print(report.table().to_string(index=False), file=sys.stderr)
        raise Refused(
            f"{path} does not hold the weights of {model.spec.name}: see the list above. --partial loads what fits."
        )
    return report
