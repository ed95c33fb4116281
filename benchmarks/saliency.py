"""Attribution beside pytorch-grad-cam and torch-cam, same net and picture: `python benchmarks/saliency.py --help`.

Random weights, one picture at the size that the net is made for, the last stage. Rounds are interleaved, medians over
them; a ratio is ours / the faster of the two, or ours / one forward pass where neither has the method. Methods that run
the net once for every channel take minutes a round on ResNet-50: `--methods` chooses, and `--rounds` is for each.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

sys.path.pop(0)  # this folder: its profile.py would hide the standard module
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from resnet.attribution.methods import METHODS, explain
from resnet.devices import processor
from resnet.nets.codes import from_code
from resnet.nets.model import blocks, build

PYTORCH_GRAD_CAM = {
    "grad-cam": "GradCAM",
    "hires-cam": "HiResCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "layer-cam": "LayerCAM",
    "xgrad-cam": "XGradCAM",
    "score-cam": "ScoreCAM",
    "ablation-cam": "AblationCAM",
    "eigen-cam": "EigenCAM",
}
TORCH_CAM = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMpp",
    "layer-cam": "LayerCAM",
    "xgrad-cam": "XGradCAM",
    "score-cam": "ScoreCAM",
}
Calls = dict[str, Callable[[], object]]


def calls(method: str, net: nn.Module, picture: Tensor, layer: str) -> Calls:
    """What explains class 1 of the picture, by whose it is."""
    found: Calls = {"forward": lambda: forward(net, picture), "ours": lambda: explain(method, net, picture, 1, layer)}
    if method in PYTORCH_GRAD_CAM:
        found["pytorch-grad-cam"] = lambda: by_pytorch_grad_cam(PYTORCH_GRAD_CAM[method], net, picture, layer)
    if method in TORCH_CAM:
        found["torch-cam"] = lambda: by_torch_cam(TORCH_CAM[method], net, picture, layer)
    return found


@torch.no_grad()
def forward(net: nn.Module, picture: Tensor) -> None:
    net(picture)


def by_pytorch_grad_cam(name: str, net: nn.Module, picture: Tensor, layer: str) -> None:
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # its progress bars
        peer = getattr(pytorch_grad_cam, name)(net, [net.get_submodule(layer)])
        peer(picture, [ClassifierOutputTarget(1)])
        peer.activations_and_grads.release()


def by_torch_cam(name: str, net: nn.Module, picture: Tensor, layer: str) -> None:
    with getattr(torchcam.methods, name)(net, layer) as peer:
        peer(1, net(picture))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(found: Calls, rounds: int) -> dict[str, float]:
    """Medians; the first round of what takes less than a second only warms up."""
    times: dict[str, list[float]] = {who: [] for who in found}
    for _ in range(rounds + 1):
        for who, call in found.items():
            if len(times[who]) < rounds or times[who][0] < 1:
                times[who].append(seconds(call))
    return {who: statistics.median(taken[-rounds:]) for who, taken in times.items()}


def main(net: str, methods: list[str], rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    spec = from_code(net)
    model = build(spec, seed=0).eval().requires_grad_(True)
    picture = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    layer = list(blocks(model))[-1].partition(".")[0]
    print(f"{processor()}, {threads} threads, torch {torch.__version__}, {net} at {layer}, {rounds} interleaved rounds")
    ratios = {}
    for method in methods:
        medians = measure(calls(method, model, picture, layer), rounds)
        peers = [medians[who] for who in ("pytorch-grad-cam", "torch-cam") if who in medians]
        ratios[method] = {"forward": medians["ours"] / medians["forward"]}
        ratios[method] |= {"peers": medians["ours"] / min(peers)} if peers else {}
        cells = ", ".join(f"{who} {1e3 * taken:,.0f} ms" for who, taken in medians.items())
        print(f"{METHODS[method].title:>20}: {cells}; {ratios[method]['forward']:.2f} forward passes", end="")
        print(f", {ratios[method]['peers']:.2f} of the faster peer" if peers else "", flush=True)
    print(
        json.dumps({method: {who: round(ratio, 3) for who, ratio in each.items()} for method, each in ratios.items()})
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--net", default="ResNet-50", help="a preset or a code")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    main(**vars(parser.parse_args()))
