"""Exported Keras source, run by Keras itself: shapes, its own counts of parameters, and our logits."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resnet.data.dataset import normalise
from resnet.exports.forms import export
from resnet.exports.plan import costs
from resnet.nets.inputs import Inputs
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, plain_twin
from tests.exports.test_forms import BY_CHANNEL, BY_PIXEL, MIXED, ODD, check_starts, small
from tests.support.export_process import Worker, worker
from tests.support.export_worker import images, loaded, pixels, shapes_of

SHALLOW = ["ResNet-20", "ResNet-18", "ResNet-50", "ResNet-50 Keras listing", "ResNet-50-D", "Pre-ResNet-50",
           "SE-ResNet-50", "ResNet-50 GN", "ResNeXt-50 32x4d", "ResNet3D-18", "ResNet3D-10 volume",
           "ResNet-50 OS8"]  # fmt: skip


def shallow(spec: NetSpec) -> NetSpec:
    """Two blocks a stage at most, and an odd image: all that is particular about the preset stays."""
    stages = tuple(replace(stage, blocks=min(2, stage.blocks)) for stage in spec.stages)
    return replace(spec, stages=stages, image_size=33, frames=min(spec.frames, 5), classes=10)


NETS = {name: shallow(PRESETS[name]) for name in SHALLOW} | ODD
NETS |= {
    "twin": plain_twin(shallow(PRESETS["ResNet-50"])),
    "means over what is left": replace(
        small(shortcut="D", image_size=11), stages=(StageSpec(2, 8, 3), StageSpec(1, 8, 4))
    ),
    "dilation and stride": replace(
        small("basic", image_size=23), stages=(StageSpec(1, 8, 2, 3), StageSpec(1, 8, 2, 2))
    ),
    "negative values into the max-pool": small("preact-basic", stem="7x7", image_size=31, activation="silu"),
    "mixed clips": replace(small("basic", "A", frames=5), stages=MIXED[:3]),
}
KEPT = ["means over what is left", "skip init, drop", "preact-basic A", "negative values into the max-pool"]


@pytest.fixture(scope="module")
def keras_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("keras")) as process:
        yield process


def moving_statistics(model: nn.Module) -> int:
    """Keras counts the mean and the variance of each batch norm's channels."""
    return sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d))


@pytest.mark.parametrize("name", NETS)
def test_keras_source(keras_process: Worker, name: str, tmp_path: Path) -> None:
    spec = NETS[name]
    model = loaded(build(spec, device="meta"))
    shape = [2, *spec.input_shape]
    saved = str(tmp_path / "net.keras") if name in KEPT else ""
    reply = keras_process.ask("keras", export("keras", spec), shapes=shapes_of(model), shape=shape, saved=saved)
    params, moving = costs(spec).params, moving_statistics(model)
    assert (reply["trainable"], reply["params"]) == (params, params + moving)
    assert f"Keras counts {params + moving:,} parameters" in export("keras", spec).decode()
    assert all(settings == [1e-5, 0.9] for settings in reply["norms"].values())
    assert bool(reply["norms"]) == bool(moving)
    assert reply["halved"]
    check_starts(spec, reply["starts"], dot="_")
    check_outputs(spec, model, reply)


def check_outputs(spec: NetSpec, model: nn.Module, reply: dict[str, Any]) -> None:
    x = images([2, *spec.input_shape])
    with torch.no_grad():
        features = model.eval().features(x)  # type: ignore[operator]
        stages = {k.replace("stage", "layer"): list(v.shape[1:]) for k, v in features.items() if k.startswith("stage")}
        assert {k: [v[-1], *v[:-1]] for k, v in reply["stages"].items()} == stages
        expected = {"logits": features["logits"]}
        if not spec.stochastic_depth and all(side > 1 for shape in stages.values() for side in shape[-2:]):
            expected["trained"] = model.train()(x)  # the batch's own statistics, of more than a pair of values
    for key, logits in expected.items():
        error = (torch.tensor(reply[key]) - logits).abs().max().item()
        assert error <= 1e-4 * max(1.0, logits.abs().max().item()), key


@pytest.mark.parametrize("inputs", [BY_CHANNEL, BY_PIXEL], ids=["by channel", "by pixel"])
def test_the_source_prepares_images_as_in_training(keras_process: Worker, inputs: Inputs) -> None:
    spec = replace(NETS["ResNet-20"], image_size=8)
    model, shape = loaded(build(spec, device="meta")), [2, *spec.input_shape]
    reply = keras_process.ask(
        "keras", export("keras", spec, inputs=inputs), shapes=shapes_of(model), shape=shape, saved=""
    )
    images = torch.from_numpy(pixels(shape)).movedim(-1, 1)
    expected = normalise(images, torch.tensor(inputs.mean), torch.tensor(inputs.std)).movedim(1, -1)
    torch.testing.assert_close(torch.tensor(reply["prepared"]), expected)
    assert reply["classes"] == list(inputs.class_names)


def test_the_full_preset_in_keras_counts() -> None:
    """Keras' own ResNet-50 has convolution biases too: 25,636,712 = ours + 26,560 biases + 53,120 statistics."""
    text = export("keras", PRESETS["ResNet-50"]).decode()
    assert f"Keras counts {25_636_712 - 26_560:,} parameters: those, and 53,120 moving statistics" in text
