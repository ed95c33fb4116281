"""A net in files that others read: source code, ONNX, weights, its description, its tables."""

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from resnet.costs.profiler import profile
from resnet.errors import Refused, choose
from resnet.exports.calls import timm_call, timm_reason, torchvision_call, torchvision_reason
from resnet.exports.keras import keras_source
from resnet.exports.plan import source_reason
from resnet.exports.preparing import constants
from resnet.exports.pytorch import torch_source
from resnet.nets.codes import to_json
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec

ONNX_OPSET, ONNX_OPSETS = 18, range(11, 24)
DYNAMO_FROM = 18  # the first opset of torch.export's way to ONNX; older ones take the way through TorchScript
ONNX_BYTES = 2**31  # a protobuf message is smaller


def _always(spec: NetSpec) -> str:
    return ""


@dataclass(frozen=True, eq=False)
class Content:
    """What a file is written of; `inputs` says how images are prepared for the weights, and the classes' names."""

    spec: NetSpec
    model: nn.Module | None = None
    inputs: Inputs | None = None
    opset: int = ONNX_OPSET

    @property
    def given(self) -> nn.Module:
        """The model. Refused where there is none."""
        if self.model is None:
            raise Refused("This file holds weights.", "no model", "one that is built or trained")
        return self.model


@dataclass(frozen=True)
class Exporter:
    """One form of file. `reason(spec)` says in a sentence why a net cannot be written in it, "" where it can."""

    title: str
    suffix: str
    mime: str
    reading: str
    write: Callable[[Content], str | bytes]
    needs_weights: bool = False
    reason: Callable[[NetSpec], str] = _always


def export(
    name: str,
    spec: NetSpec,
    model: nn.Module | None = None,
    inputs: Inputs | None = None,
    opset: int = ONNX_OPSET,
) -> bytes:
    """The file's content, with what a user of the net needs to prepare its images where `inputs` says it.

    `opset` is for ONNX alone. Refused where the net cannot be written so, where its weights are missing, or
    where `inputs` are another net's.
    """
    exporter = choose("export", name, EXPORTERS)
    reason = exporter.reason(spec)
    if reason:
        raise Refused(reason, spec.name, "another export, or another net")
    if exporter.needs_weights and model is None:
        raise Refused(f"{exporter.title} holds weights.", "no model", "one that is built or trained")
    if opset not in ONNX_OPSETS:
        raise Refused("ONNX is written in certain opsets.", opset, f"{ONNX_OPSETS[0]} to {ONNX_OPSETS[-1]}")
    if inputs and inputs.fitted(spec) != inputs:
        raise Refused("Mean and deviation have the net's channels, and each of its classes has a name.", "others")
    content = exporter.write(Content(spec, model, inputs, opset))
    return content.encode() if isinstance(content, str) else content


def file_name(name: str, spec: NetSpec) -> str:
    """A name for the file, as `resnet-50.keras.py`: letters, digits, dots and dashes alone."""
    stem = re.sub(r"[^a-z0-9]+", "-", spec.name.lower()).strip("-")
    return f"{stem}{EXPORTERS[name].suffix}"


def size_text(size: int) -> str:
    """A file's bytes in kB or MB."""
    return f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def onnx_file(content: Content) -> bytes:
    """The net in eval mode as an ONNX model, weights inside: images (batch, C, H, W) -> logits.

    Its metadata hold the spec, and the inputs where they are known, as JSON.
    """
    import onnx

    net = copy.deepcopy(content.given).cpu().eval()
    images = torch.zeros(2, *content.spec.input_shape)  # of 1, torch would make a constant
    written = _by_export if content.opset >= DYNAMO_FROM else _by_script
    proto = onnx.load_from_string(written(net, images, content.opset))
    [opset] = [entry.version for entry in proto.opset_import if not entry.domain]
    if opset != content.opset:
        raise Refused(f"PyTorch wrote this net in opset {opset}.", content.opset, "that one")
    onnx.helper.set_model_props(proto, _metadata(content))
    return proto.SerializeToString()


_NAMES: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}


def _by_export(net: nn.Module, images: Tensor, opset: int) -> bytes:
    import onnxscript  # noqa: F401  torch writes ONNX through it, and it takes seconds to import

    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        net, (images,), dynamo=True, opset_version=opset, dynamic_shapes=sizes, verbose=False, **_NAMES
    )
    if program is None:
        raise Refused("PyTorch wrote no ONNX model.")
    return program.model_proto.SerializeToString()


def _by_script(net: nn.Module, images: Tensor, opset: int) -> bytes:
    """The older way, which PyTorch keeps for older opsets and warns of."""
    sizes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        torch.onnx.export(net, (images,), path, dynamo=False, opset_version=opset, dynamic_axes=sizes, **_NAMES)
        return path.read_bytes()


def _metadata(content: Content) -> dict[str, str]:
    known = {"inputs": content.inputs.to_json()} if content.inputs else {}
    return {"program": "ResNet Explorer", "spec": to_json(content.spec)} | known


def _constants(content: Content) -> str:
    return f"\n{constants(content.spec, content.inputs)}" if content.inputs else ""


def _onnx_reason(spec: NetSpec) -> str:
    params = profile(spec).params
    return f"An ONNX file holds less than 2 GiB; {params:,} parameters take more." if 4 * params >= ONNX_BYTES else ""


def weights_file(content: Content) -> bytes:
    """The state_dict as safetensors; its metadata hold the spec, and the inputs where they are known, as JSON."""
    state = {key: value.detach().cpu().contiguous() for key, value in content.given.state_dict().items()}
    return save(state, {"format": "pt"} | _metadata(content))


EXPORTERS: dict[str, Exporter] = {
    "pytorch": Exporter(
        "PyTorch source", ".py", "text/x-python",
        "A file that needs PyTorch only and loads this net's weights.",
        lambda c: torch_source(c.spec, c.inputs), reason=source_reason,
    ),
    "keras": Exporter(
        "Keras 3 source", ".keras.py", "text/x-python",
        "A file for Keras on TensorFlow, JAX or PyTorch; its load_torch takes this net's weights.",
        lambda c: keras_source(c.spec, c.inputs), reason=source_reason,
    ),
    "torchvision": Exporter(
        "torchvision call", ".torchvision.py", "text/x-python",
        "The call with which torchvision builds the same net.",
        lambda c: torchvision_call(c.spec) + _constants(c), reason=torchvision_reason,
    ),
    "timm": Exporter(
        "timm call", ".timm.py", "text/x-python",
        "The call with which timm builds the same net.",
        lambda c: timm_call(c.spec) + _constants(c), reason=timm_reason,
    ),
    "onnx": Exporter(
        "ONNX", ".onnx", "application/octet-stream",
        "The net in eval mode with its weights, for any batch size; a deep net takes minutes.",
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
        lambda c: to_json(c.spec),
    ),
    "layers": Exporter(
        "Layer table (CSV)", ".layers.csv", "text/csv",
        "One row per layer: shape, parameters, multiply-adds, receptive field.",
        lambda c: profile(c.spec).layers().to_csv(index=False),
    ),
    "stages": Exporter(
        "Stage table (CSV)", ".stages.csv", "text/csv",
        "One row per stage: its last shape, and sums of the costs.",
        lambda c: profile(c.spec).stages().to_csv(index=False),
    ),
}  # fmt: skip
