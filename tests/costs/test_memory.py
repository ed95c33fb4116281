"""Bytes against what autograd really saves, torch's own tracker, real optimisers and a real step."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

from resnet.costs.memory import OPTIMIZERS, PRECISIONS, measure_peak, memory
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar, plain_twin

TWO = StageSpec(2, 16), StageSpec(1, 32, 2)
NETS: dict[str, NetSpec] = {
    "ResNet-20": cifar(20),
    "plain-20": plain_twin(cifar(20)),
    "D, deep stem": NetSpec(TWO, "bottleneck", shortcut="D", stem="deep", stem_width=32, image_size=33, classes=10),
    "squeeze-excitation, groups": NetSpec(TWO, "bottleneck", cardinality=4, se=8, image_size=32, classes=10),
    "Pre-ResNet": NetSpec(TWO, "preact-bottleneck", stem="3x3", stem_width=16, classes=10, image_size=16),
    "group norm": NetSpec(TWO, norm="group", image_size=32, classes=10),
    "no norm, gelu, A": NetSpec(TWO, "preact-basic", shortcut="A", norm="none", activation="gelu", stem_width=16),
    "skip init, silu": NetSpec(TWO, skip_init=True, activation="silu", stem="3x3", image_size=17),
    "clip": NetSpec(TWO, stem="3x7x7", image_size=16, frames=4, classes=10),
    "volume": NetSpec(TWO, stem="7x7", image_size=16, frames=16, classes=10),
}
# On the CPU alone autocast runs 3-D max-pools in float32 (what the prediction leaves out), and a group norm keeps its
# statistics in float32.
CPU_ONLY = {"volume": 0.7, "group norm": 0.99}
DROPS = NetSpec(TWO, stochastic_depth=0.3, stem="3x3", stem_width=16, image_size=16, classes=10)


STEPPERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgd momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def stepper(name: str, model: nn.Module) -> torch.optim.Optimizer:
    return STEPPERS[name](model.parameters(), lr=1e-9, fused=True)


@cache
def net(name: str) -> nn.Module:
    return build(NETS[name])


def step(model: nn.Module, x: Tensor, precision: str) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
    return F.cross_entropy(logits.float(), torch.zeros(len(x), dtype=torch.long))


def really_saved(model: nn.Module, x: Tensor, precision: str) -> tuple[int, bool]:
    """Bytes of the storages that autograd holds after a real forward pass, images apart; whether it holds those."""
    held: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step(model.train(), x, precision)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), x)}
    total = sum(storage.nbytes() for pointer, storage in held.items() if pointer not in own)
    loss.backward()
    return total, x.untyped_storage().data_ptr() in held


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETS)
def test_saved_is_what_autograd_saves(name: str, precision: str) -> None:
    x = torch.rand(2, *NETS[name].input_shape)
    found = memory(NETS[name], 2, precision=precision)
    total, images = really_saved(net(name), x, precision)
    if precision == "bf16" and name in CPU_ONLY:
        assert CPU_ONLY[name] * total < found.saved < total
    else:
        assert found.saved == total
    assert images == (precision == "fp32")
    assert found.input == 4 * x.numel()
    assert found.stages().saved.sum() == found.saved


def test_stochastic_depth_saves_its_coins() -> None:
    found = memory(DROPS, 4)
    torch.manual_seed(0)
    total, _ = really_saved(build(DROPS), torch.rand(4, *DROPS.input_shape), "fp32")
    assert found.saved == total > memory(replace(DROPS, stochastic_depth=0.0), 4).saved


def tracked_peak(model: nn.Module, x: Tensor, train: bool, precision: str) -> int:
    """torch's own tracker of every storage, on the whole net, in the second of two steps."""
    model.train(train)
    optimizer = stepper("sgd momentum", model)
    model.zero_grad(set_to_none=True)
    if train:
        step(model, x, precision).backward()
        optimizer.step()
    tracker = MemTracker()
    tracker.track_external(model, x, *([optimizer] if train else []))
    with tracker:
        if train:
            loss = step(model, x, precision)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        else:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                model(x)
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("train", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", [name for name in NETS if name not in CPU_ONLY])
def test_peak_is_that_of_torchs_tracker(name: str, train: bool, precision: str) -> None:
    found = memory(NETS[name], 4, "sgd momentum", precision)
    theirs = tracked_peak(build(NETS[name]), torch.rand(4, *NETS[name].input_shape), train, precision)
    ours = found.peak if train else found.inference_peak
    if train and precision == "fp32":
        assert ours == theirs
    else:  # a kilobyte of what only the meta device makes, such as a batch norm's statistics in eval mode
        assert ours == pytest.approx(theirs, rel=0.003)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state(name: str) -> None:
    model = build(cifar(8))
    optimizer = stepper(name, model)
    step(model, torch.rand(2, 3, 32, 32), "fp32").backward()
    optimizer.step()
    state = [v for values in optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
    found = memory(cifar(8), 2, name).stages().sum(numeric_only=True)
    assert found.optimizer == sum(t.nbytes for t in state)
    assert found.weights == found.gradients == sum(p.nbytes for p in model.parameters())
    assert found.buffers == sum(b.nbytes for b in model.buffers())


@pytest.mark.parametrize("name", [name for name, spec in PRESETS.items() if spec.depth <= 50])
def test_presets(name: str) -> None:
    spec = PRESETS[name]
    found = memory(spec, 2)
    assert found.peak_at.endswith((", forward", ", backward"))
    assert found.peak > found.fixed - sum(row.gradients for row in found.rows) + found.input + found.saved
    assert found.inference_peak < found.peak
    assert list(found.stages().stage) == ["stem", *(f"stage{i + 1}" for i in range(len(spec.stages))), "head"]


@pytest.mark.parametrize("name", NETS)
def test_each_image_adds_as_much(name: str) -> None:
    one, two, three = (memory(NETS[name], batch) for batch in (1, 2, 3))
    assert three.saved - two.saved == two.saved - one.saved > 0
    assert three.input == 3 * one.input
    assert three.fixed == one.fixed


def test_deep_nets_fold() -> None:
    deep, shallow, twin = memory(cifar(1202), 8), memory(cifar(26), 8), memory(cifar(20), 8)
    assert deep.saved - twin.saved == (200 - 3) * (shallow.saved - twin.saved)


def test_a_real_step() -> None:
    found = memory(cifar(8), 32, "sgd momentum").peak
    assert found == pytest.approx(measure_peak(cifar(8), 32, "cpu", "sgd momentum"), rel=0.1)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": True}, "batch"),
        ({"batch": 2.0}, "batch"),
        ({"optimizer": "lion"}, "optimiser"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_errors(values: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused, match=rf"{word}.*Received .*\. Choose "):
        memory(cifar(8), **({"batch": 2} | values))


def test_no_peak_elsewhere() -> None:
    with pytest.raises(Refused, match="Received 'mps'"):
        measure_peak(cifar(8), 2, "mps")


def test_memory_is_a_value() -> None:
    assert memory(cifar(8), 2) == memory(cifar(8), 2)
    assert hash(memory(cifar(8), 2)) == hash(memory(cifar(8), 2))
