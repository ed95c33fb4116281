"""A net in files that others read: source code, ONNX, weights, its description, its tables."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import nn

from resnet.costs.profiler import profile
from resnet.errors import Refused, choose
from resnet.exports.calls import timm_call, timm_reason, torchvision_call, torchvision_reason
from resnet.exports.keras import keras_source
from resnet.exports.plan import source_reason
from resnet.exports.pytorch import torch_source
from resnet.nets.codes import to_json
from resnet.nets.spec import NetSpec

ONNX_OPSET = 18
ONNX_BYTES = 2**31  # a protobuf message is smaller


def _always(spec: NetSpec) -> str:
    return ""


@dataclass(frozen=True)
class Exporter:
    """One form of file. `reason(spec)` says in a sentence why a net cannot be written in it, "" where it can."""

    title: str
    suffix: str
    mime: str
    reading: str
    write: Callable[[NetSpec, nn.Module | None], str | bytes]
    needs_weights: bool = False
    reason: Callable[[NetSpec], str] = _always


def export(name: str, spec: NetSpec, model: nn.Module | None = None) -> bytes:
    """The file's content; Refused where the net cannot be written so, or where its weights are missing."""
    exporter = choose("export", name, EXPORTERS)
    reason = exporter.reason(spec)
    if reason:
        raise Refused(reason, spec.name, "another export, or another net")
    if exporter.needs_weights and model is None:
        raise Refused(f"{exporter.title} holds weights.", "no model", "one that is built or trained")
    content = exporter.write(spec, model)
    return content.encode() if isinstance(content, str) else content


def file_name(name: str, spec: NetSpec) -> str:
    """A name for the file, as `resnet-50.keras.py`: letters, digits, dots and dashes alone."""
    stem = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")
    return f"{stem}{EXPORTERS[name].suffix}"


def size_text(size: int) -> str:
    """A file's bytes in kB or MB."""
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def onnx_file(spec: NetSpec, model: nn.Module | None) -> bytes:
    """The net in eval mode as an ONNX model, weights inside: images (batch, C, H, W) -> logits."""
    import onnxscript  # noqa: F401  torch writes ONNX through it, and it takes seconds to import

    net = copy.deepcopy(_given(model)).cpu().eval()
    images = torch.zeros(2, *spec.input_shape)  # of 1, torch would make a constant
    program = torch.onnx.export(
        net,
        (images,),
        dynamo=True,
        opset_version=ONNX_OPSET,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    if program is None:
        raise Refused("PyTorch wrote no ONNX model.")
    return program.model_proto.SerializeToString()


def _onnx_reason(spec: NetSpec) -> str:
    params = profile(spec).params
    return f"An ONNX file holds less than 2 GiB; {params:,} parameters take more." if 4 * params >= ONNX_BYTES else ""


def weights_file(spec: NetSpec, model: nn.Module | None) -> bytes:
    """The state_dict as safetensors; its metadata hold the spec as JSON and this program's name."""
    state = {key: value.detach().cpu().contiguous() for key, value in _given(model).state_dict().items()}
    return save(state, {"format": "pt", "program": "ResNet Explorer", "spec": to_json(spec)})


def _given(model: nn.Module | None) -> nn.Module:
    if model is None:
        raise Refused("This file holds weights.", "no model", "one that is built or trained")
    return model


EXPORTERS: dict[str, Exporter] = {
    "pytorch": Exporter(
        "PyTorch source", ".py", "text/x-python",
        "A file that needs PyTorch only and loads this net's weights.",
        lambda spec, model: torch_source(spec), reason=source_reason,
    ),
    "keras": Exporter(
        "Keras 3 source", ".keras.py", "text/x-python",
        "A file for Keras on TensorFlow, JAX or PyTorch; its load_torch takes this net's weights.",
        lambda spec, model: keras_source(spec), reason=source_reason,
    ),
    "torchvision": Exporter(
        "torchvision call", ".torchvision.py", "text/x-python",
        "The call with which torchvision builds the same net.",
        lambda spec, model: torchvision_call(spec), reason=torchvision_reason,
    ),
    "timm": Exporter(
        "timm call", ".timm.py", "text/x-python",
        "The call with which timm builds the same net.",
        lambda spec, model: timm_call(spec), reason=timm_reason,
    ),
    "onnx": Exporter(
        "ONNX", ".onnx", "application/octet-stream",
        f"The net in eval mode with its weights, for any batch size, opset {ONNX_OPSET}; a deep net takes minutes.",
        onnx_file, needs_weights=True, reason=_onnx_reason,
    ),
    "weights": Exporter(
        "Weights (safetensors)", ".safetensors", "application/octet-stream",
        "The weights under torchvision's names, with the net's description beside them; no code inside.",
        weights_file, needs_weights=True,
    ),
    "spec": Exporter(
        "Description (JSON)", ".json", "application/json",
        "All that this program needs to build the net again.",
        lambda spec, model: to_json(spec),
    ),
    "layers": Exporter(
        "Layer table (CSV)", ".layers.csv", "text/csv",
        "One row per layer: shape, parameters, multiply-adds, receptive field.",
        lambda spec, model: profile(spec).layers().to_csv(index=False),
    ),
    "stages": Exporter(
        "Stage table (CSV)", ".stages.csv", "text/csv",
        "One row per stage: its last shape, and sums of the costs.",
        lambda spec, model: profile(spec).stages().to_csv(index=False),
    ),
}  # fmt: skip
