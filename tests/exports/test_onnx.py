"""Exported ONNX, run by onnxruntime."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from resnet.errors import Refused
from resnet.exports.forms import ONNX_OPSET, export
from resnet.nets.codes import from_json
from resnet.nets.inputs import Inputs
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec
from tests.exports.test_forms import small
from tests.support.export_worker import images, loaded

NETS = {
    "ResNet-8": replace(PRESETS["ResNet-20"], stages=tuple(replace(s, blocks=1) for s in PRESETS["ResNet-20"].stages)),
    "pre-activation, D, gelu, odd": small("preact-bottleneck", "D", stem="7x7", activation="gelu", image_size=33),
    "SE, group norm, groups, dilated": small("bottleneck", se=4, norm="group", cardinality=2, stem="deep"),
    "clips, SkipInit, drop": replace(
        small("basic", frames=4, stem="3x7x7", skip_init=True, stochastic_depth=0.5, norm="none", activation="silu"),
        stages=(StageSpec(1, 8), StageSpec(1, 8, 2, 2)),
    ),
}


@cache
def written(name: str) -> tuple[torch.nn.Module, bytes]:
    model = loaded(build(NETS[name], device="meta")).train()
    return model, export("onnx", NETS[name], model)


@pytest.mark.parametrize("name", NETS)
def test_onnx_gives_our_logits_at_any_batch_size(name: str) -> None:
    model, content = written(name)
    assert model.training  # as it was
    assert all(module.training for module in model.modules())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [("images", list(NETS[name].input_shape))]
    assert isinstance(session.get_inputs()[0].shape[0], str)
    for n in (1, 3):
        x = images([n, *NETS[name].input_shape])
        with torch.no_grad():
            expected = model.eval()(x).numpy()
        model.train()
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        assert np.abs(logits - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("name", list(NETS)[:1])
def test_onnx_states_its_opset_and_holds_its_weights(name: str) -> None:
    model, content = written(name)
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": ONNX_OPSET}
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    floats = sum(p.numel() for p in model.parameters())
    assert len(content) > 3.9 * floats


@pytest.mark.parametrize("opset", [11, 13, 17, 21, 23])
@pytest.mark.parametrize("name", NETS)
def test_onnx_in_another_opset_gives_our_logits(name: str, opset: int) -> None:
    model = loaded(build(NETS[name], device="meta")).eval()
    content = export("onnx", NETS[name], model, opset=opset)
    assert [entry.version for entry in onnx.load_from_string(content).opset_import if not entry.domain] == [opset]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for n in (1, 3):
        x = images([n, *NETS[name].input_shape])
        with torch.no_grad():
            expected = model(x).numpy()
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        assert np.abs(logits - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("opset", [ONNX_OPSET, 13])
def test_onnx_says_how_images_are_prepared(opset: int) -> None:
    spec = NETS["ResNet-8"]
    inputs = Inputs((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), tuple("abcdefghij"))
    content = export("onnx", spec, build(spec), inputs, opset)
    said = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
    assert Inputs.from_json(said["inputs"]) == inputs
    assert from_json(said["spec"]) == spec


@pytest.mark.parametrize("opset", [10, 24])
def test_other_opsets_are_refused(opset: int) -> None:
    with pytest.raises(Refused, match=rf"Received {opset}\. Choose 11 to 23"):
        export("onnx", NETS["ResNet-8"], build(NETS["ResNet-8"]), opset=opset)


def test_onnx_refuses_what_a_message_cannot_hold() -> None:
    huge = NetSpec((StageSpec(20, 4096), StageSpec(20, 4096)), classes=10, image_size=32)
    with pytest.raises(Refused, match="less than 2 GiB"):
        export("onnx", huge, build(huge, device="meta"))
