"""The commands that ask what a net looks at, and whether the answer can be believed: explain, judge."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnet.attribution.names import NAMES
from resnet.errors import Refused

if TYPE_CHECKING:
    import numpy as np


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    option = command(
        "explain", explain, "print what a trained net says of a photo, and write what it looks at"
    ).add_argument
    option("photo", type=Path, help="a photo: JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF")
    option("--run", required=True, help="a run's id")
    option("--epoch", type=int, help="the weights kept after this epoch; the last ones without it")
    option("--method", default="grad-cam", metavar="METHOD", help=f"an attribution method: {', '.join(NAMES)}")
    option("--layer", help="where the method works at one, such as layer3; the last block without it")
    option("--target", help="the class to explain, by name or number; the likeliest without it")
    option("--against", metavar="CLASS", help="explain why the target rather than this class: their logits' difference")
    option("--out", type=Path, required=True, help="map.npy for the values, or map.png: white is the largest")
    option = command("judge", judge, "judge all attribution methods on a trained net, as a table").add_argument
    option("run", help="a run's id")
    option("--data", help="a data set to take test images from; the run's own without it")
    option("--images", type=int, default=50, help="how many")
    option("--layer", default="", help="for the methods that work at one; the last block without it")
    option("--methods", nargs="+", default=[], help="only these methods")
    option("--checks", nargs="+", default=[], help="only these checks")
    option("--out", type=Path, help="table.csv, to write the table")


def explain(args: argparse.Namespace) -> int:
    from resnet.attribution.methods import METHODS, common_layers, explain, top_k
    from resnet.data.photos import open_photo, photo_batch
    from resnet.runs.opened import open_run
    from resnet.runs.store import find

    if args.out.suffix not in (".npy", ".png"):
        raise Refused("A map is written as .npy or as .png.", repr(args.out.name), "map.npy or map.png")
    trained = open_run(find(args.run), args.epoch)
    net, names = trained.run.job.net, trained.class_names
    photo = open_photo(args.photo.read_bytes())
    print(*photo.info["notes"], sep="\n", end="\n" if photo.info["notes"] else "")
    images = trained.prepare(photo_batch(photo, net.image_size, net.in_channels))  # (1, C, S, S)
    probabilities, classes = top_k(trained.model, images)
    target = int(classes[0, 0]) if args.target is None else _class(args.target, names)
    against = None if args.against is None else _class(args.against, names)
    layer = args.layer or common_layers([trained.model])[-1]
    [values] = explain(args.method, trained.model, images, target, layer, against=against).numpy()  # (S, S)
    for probability, number in zip(probabilities[0].tolist(), classes[0].tolist(), strict=True):
        print(f"{probability:7.2%}  {names[number]}")
    method = METHODS[args.method]
    _write(args.out, values, method.signed)
    at = f" at {layer}" if method.needs_layer else ""
    logit = f"the logit of {names[target]}" + ("" if against is None else f" minus that of {names[against]}")
    print(f"{args.out}: {method.title}{at} for {logit}, {values.min():.4g} to {values.max():.4g}")
    if not values.any():
        print(f"The map is 0 everywhere. {method.blank}")
    return 0


def judge(args: argparse.Namespace) -> int:
    """Print the league of a run's net; what was judged before with the same settings is read from the disk."""
    from resnet.attribution.methods import METHODS
    from resnet.errors import choose
    from resnet.runs.store import find
    from resnet.trust.checks import CHECKS
    from resnet.trust.league import table
    from resnet.work.judging import League
    from resnet.work.weights import Model

    for kind, names, known in (("method", args.methods, METHODS), ("check", args.checks, CHECKS)):
        for name in names:
            choose(kind, name, known)
    if args.images < 1:
        raise Refused("At least one image is needed.", args.images)
    run = find(args.run)
    asked = (args.images, args.layer, tuple(args.methods), tuple(args.checks))
    shown = 0
    for progress in League(Model.of(run), args.data or run.job.data, *asked).run():
        rows = progress.so_far or []
        for row in rows[shown:]:
            print(f"{METHODS[row['method']].title}: {row['label']}. {row['why']}", flush=True)
        shown = len(rows)
    found = table(rows)
    print(found.drop(columns="why").to_string(index=False, float_format="{:.3f}".format))
    if args.out:
        found.to_csv(args.out, index=False)
    return 0


def _class(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    raise Refused("A class is one of the run's data.", repr(wanted), f"{', '.join(names)}, or its number")


def _write(path: Path, values: "np.ndarray", signed: bool) -> None:
    """A map (S, S) as an array, or as grey pixels: black at 0 and white at the largest value; signed maps grey at 0."""
    import numpy as np
    from PIL import Image

    from resnet.attribution.methods import common_scale

    if path.suffix == ".npy":
        np.save(path, values)
    else:
        shares = values / common_scale([values])  # -1..1
        shares = (shares + 1) / 2 if signed else shares
        Image.fromarray((255 * shares).round().astype("uint8")).save(path)
