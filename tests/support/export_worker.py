"""Runs exported source in a process that cannot import this project: one job a line on stdin, one reply on stdout.

Weights and images are drawn from the names and shapes of the tensors, so that both sides have the same ones.
"""

import importlib.util
import json
import math
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Shapes = Mapping[str, Sequence[int]]


def fill(shapes: Shapes) -> dict[str, Tensor]:
    """Random weights, and norms' statistics that no initialisation gives, at scales that keep the logits small."""
    return {key: _draw(key, tuple(shape), seed) for seed, (key, shape) in enumerate(sorted(shapes.items()))}


def _draw(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return torch.rand(shape, generator=rng) + 0.5
    if len(shape) < 2:
        return torch.randn(shape, generator=rng) * 0.3
    return torch.randn(shape, generator=rng) / math.sqrt(math.prod(shape[1:]))


def images(shape: Sequence[int]) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(9))


def pixels(shape: Sequence[int]) -> Any:
    """uint8, channels last."""
    drawn = torch.randint(0, 256, tuple(shape), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return drawn.movedim(1, -1).numpy()


def shapes_of(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def loaded(model: torch.nn.Module) -> torch.nn.Module:
    """A net that was built on the meta device, with `fill`'s weights; errors where a name or shape differs."""
    model.load_state_dict(fill(shapes_of(model)), strict=True, assign=True)
    return model


def observe(model: torch.nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Logits in eval mode, logits in training, and the statistics that training left."""
    with torch.no_grad():
        x = images(shape)
        logits = model.eval()(x)
        torch.manual_seed(7)
        trained = model.train()(x)
    after = {key: value.double().sum().item() for key, value in model.state_dict().items() if "running" in key}
    return {"logits": logits.tolist(), "trained": trained.tolist(), "statistics": after}


def flops(model: torch.nn.Module, shape: Sequence[int]) -> int:
    """torch's own count for one input, on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops()


def spread(weights: Tensor) -> list[float]:
    return [weights.std(correction=0).item(), weights.abs().max().item()]


def keras_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """The trainable weights under PyTorch's names, with _ for the dots."""
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
    for layer in model.layers:
        for weight in layer.trainable_weights:
            yield f"{layer.name}_{names.get(weight.name, weight.name)}", weight


def run_torch(source: str, name: str, full: Sequence[int], shape: Sequence[int], starts: bool) -> dict[str, Any]:
    net = runpy.run_path(source)[name]
    with torch.device("meta"):
        model = net()
    reply: dict[str, Any] = {"shapes": shapes_of(model), "params": sum(p.numel() for p in model.parameters())}
    reply |= {"flops": flops(model, full)} if full else {}
    if starts:  # how its weights start: standard deviation and largest, by name
        torch.manual_seed(1)
        reply["starts"] = {name: spread(parameter) for name, parameter in net().named_parameters()}
    return reply | (observe(loaded(model), shape) if shape else {})


def run_keras(source: str, shapes: Shapes, shape: Sequence[int], saved: str) -> dict[str, Any]:
    import keras
    import numpy as np

    code = runpy.run_path(source)
    keras.utils.set_random_seed(1)
    model = code["build"]()
    starts = {name: spread(keras.ops.convert_to_tensor(w)) for name, w in keras_weights(model)}
    weights = fill(shapes)
    code["load_torch"](model, {key: value.bfloat16() for key, value in weights.items()})
    halved = keras.ops.convert_to_numpy(model.get_layer("fc").kernel)
    code["load_torch"](model, weights if saved else {key: value.numpy() for key, value in weights.items()})
    if saved:
        model.save(saved)
        model = keras.models.load_model(saved)
    x = np.moveaxis(images(shape).numpy(), 1, -1)
    stages: dict[str, list[int]] = {}
    for layer in model.layers:
        if layer.name.startswith("layer"):
            stages[layer.name.split("_")[0]] = list(layer.output.shape[1:])
    prepared = code["prepare"](pixels(shape)).tolist() if "prepare" in code else []
    return {
        "halved": bool((weights["fc.weight"].bfloat16().float().numpy() == halved.T).all()),
        "prepared": prepared,
        "classes": code.get("CLASS_NAMES"),
        "starts": starts,
        "params": model.count_params(),
        "trainable": sum(math.prod(w.shape) for w in model.trainable_weights),
        "stages": stages,
        "logits": keras.ops.convert_to_numpy(model(x, training=False)).tolist(),
        "trained": keras.ops.convert_to_numpy(model(x, training=True)).tolist(),
        "norms": {layer.name: [layer.epsilon, layer.momentum] for layer in model.layers if hasattr(layer, "momentum")},
    }


JOBS: dict[str, Callable[..., dict]] = {"torch": run_torch, "keras": run_keras}


def main() -> None:
    assert importlib.util.find_spec("resnet") is None
    out, sys.stdout = sys.stdout, sys.stderr  # what the exported source prints is no reply
    for line in sys.stdin:
        job = json.loads(line)
        try:
            reply = JOBS[job.pop("kind")](**job)
        except Exception:  # noqa: BLE001  the test reads it
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
