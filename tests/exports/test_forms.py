"""Exported files: source that runs where this project is not, and tables, weights and descriptions that read back."""

import csv
import io
import json
import math
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor

import resnet.exports.plan
from resnet.data.dataset import normalise
from resnet.errors import Refused
from resnet.exports.forms import EXPORTERS, export, file_name
from resnet.exports.plan import costs
from resnet.nets.blocks import BLOCKS, SHORTCUTS
from resnet.nets.codes import from_json
from resnet.nets.inputs import Inputs
from resnet.nets.kinds import IDENTITY_VARIANTS, STEMS
from resnet.nets.layers import ACTIVATIONS, NORMS
from resnet.nets.model import ResNet, build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar, plain_twin, with_output_stride
from resnet.zoo.weights import read
from tests.support.export_process import Worker, worker
from tests.support.export_worker import loaded, observe, shapes_of
from tests.support.strategies import net_specs

TWINNED = ("ResNet-20", "ResNet-50", "Pre-ResNet-50", "SE-ResNet-50", "ResNet3D-18")
TWINS = PRESETS | {f"twin of {name}": plain_twin(PRESETS[name]) for name in TWINNED}


def small(block: str = "basic", shortcut: str = "B", **values: Any) -> NetSpec:
    """Stages that keep the shape, stride on odd sides, and stride by three."""
    width = 8 * BLOCKS[block].expansion
    stages = StageSpec(2, 8), StageSpec(2, 12, 2), StageSpec(1, 20, 3)
    sizes: dict[str, Any] = {"stem": "3x3", "stem_width": width, "classes": 7, "image_size": 17}
    return NetSpec(stages, block, shortcut, **sizes | values)


WRITTEN = [kind for kind in SHORTCUTS if kind not in IDENTITY_VARIANTS]  # as source code
MIXED = (StageSpec(2, 8), StageSpec(2, 12, 2, 1, "C"), StageSpec(1, 12, 1, 2, "none"), StageSpec(2, 20, 2, 4, "D"))
ODD: dict[str, NetSpec] = {f"{block} {kind}": small(block, kind) for block in BLOCKS for kind in WRITTEN}
ODD |= {f"{block} {norm} {act}": small(block, norm=norm, activation=act, se=4, classes=3)
        for block in BLOCKS for norm, act in zip(NORMS, ACTIVATIONS, strict=True)}  # fmt: skip
ODD |= {f"{stem} in {frames} frames": small(stem=stem, frames=frames, shortcut="A", in_channels=2)
        for stem in STEMS for frames in (0, 3) if (3 if frames else 2) in STEMS[stem].dims}  # fmt: skip
ODD |= {f"{block} mixed": replace(small(block, "A"), stages=MIXED) for block in BLOCKS}
ODD |= {f"{block} {norm} zero": small(block, norm=norm, zero_init=True) for block in BLOCKS for norm in NORMS}
ODD |= {
    "skip init, drop": small("preact-basic", "C", skip_init=True, stochastic_depth=0.5),
    "zero init, drop, clips": small("bottleneck", zero_init=True, stochastic_depth=0.9, frames=4, norm="none"),
    "groups of a fraction": small("bottleneck", cardinality=4, base_width=24, norm="group", stride_on="1x1"),
    "wide": small("preact-bottleneck", base_width=128, cardinality=2),
    "other base width": small("bottleneck", base_width=100, se=16),
    "dilated": with_output_stride(small("basic", stem="7x7", se=64), 4),
    "dilation, then a stride": replace(small("bottleneck"), stages=(StageSpec(1, 8, 1, 3), StageSpec(1, 8, 2))),
    "identity alone": replace(small("basic", "D"), stages=(StageSpec(3, 8),)),
    "pre-activation, identity alone": replace(small("preact-basic"), stages=(StageSpec(3, 8),)),
    "shrinking": replace(small("bottleneck"), stages=(StageSpec(1, 20, 2), StageSpec(2, 4, 2, 2)), stem="deep"),
    "one block that could drop": replace(small("basic"), stages=(StageSpec(1, 8),), stochastic_depth=0.5),
}
LARGE = ("WRN-28-10", "ResNeXt-29 8x64d", "Wide ResNet-50-2")  # that only multiply widths, as odd ones do
REAL = [name for name in TWINS if TWINS[name].depth <= 50 and name not in LARGE] + list(ODD)
COUNTED = [name for name in TWINS if TWINS[name].depth <= 50]
COUNTED += [name for name in ODD if "mixed" in name or "frames" in name]
STARTS = [name for name in ODD if "zero" in name or "drop" in name or "none" in name or "fraction" in name]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("elsewhere")) as process:
        yield process


def batch(spec: NetSpec) -> list[int]:
    """Two images of the net's own size, or of 33 pixels and 4 frames where that is more than one core should do."""
    channels, *sides = spec.input_shape
    if spec.image_size > 40:
        sides = [4, 33, 33] if spec.frames else [33, 33]
    return [2, channels, *sides]


def class_name(spec: NetSpec) -> str:
    return "PlainNet" if spec.plain else "ResNet"


def check_source(clean: Worker, spec: NetSpec, real: bool = True, starts: bool = False, macs: bool = False) -> None:
    """Params, names, shapes, and where asked MACs, first weights, and all that the nets make of equal weights."""
    model, shape, full = build(spec, device="meta"), batch(spec) if real else [], spec.input_shape if macs else []
    source = export("pytorch", spec)
    reply = clean.ask("torch", source, name=class_name(spec), full=full, shape=shape, starts=starts)
    assert reply["params"] == costs(spec).params
    assert reply["shapes"] == shapes_of(model)
    if macs:
        assert reply["flops"] == 2 * costs(spec).macs
    if starts:
        check_starts(spec, reply["starts"])
    if real:
        ours = observe(loaded(model), shape)
        for key in ("logits", "trained"):
            mine, theirs = torch.tensor(ours[key]), torch.tensor(reply[key])
            assert mine.isfinite().all()
            assert (mine - theirs).abs().max() <= 1e-6 * max(1.0, mine.abs().max().item()), key
        assert reply["statistics"] == pytest.approx(ours["statistics"], rel=1e-6)


def check_starts(spec: NetSpec, starts: dict[str, list[float]], dot: str = ".") -> None:
    """The same zeros, the same ones, the same spread of random weights."""
    for name, parameter in build(spec).named_parameters():
        std, largest = starts[name.replace(".", dot)]
        mine = parameter.std(correction=0).item()
        if name == "fc.weight":  # uniform: it has a bound
            assert largest <= 1 / math.sqrt(parameter.shape[1])
        elif parameter.dim() > 1 and parameter.numel() > 1000 and mine:  # normal: no bound, at 2 or anywhere
            assert largest > 2.4 * std
        if mine == 0:
            assert (std, largest) == (0, parameter.abs().max().item()), name
        else:
            assert std == pytest.approx(mine, rel=6 / math.sqrt(2 * parameter.numel())), name


@pytest.mark.parametrize("name", [*TWINS, *ODD])
def test_pytorch_source(clean: Worker, name: str) -> None:
    spec = (TWINS | ODD)[name]
    check_source(clean, spec, real=name in REAL, starts=name in STARTS, macs=name in COUNTED)


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=net_specs())
def test_pytorch_source_of_any_net(clean: Worker, spec: NetSpec) -> None:
    assume(not EXPORTERS["pytorch"].reason(spec))
    check_source(clean, spec)


def test_pytorch_source_as_a_script(tmp_path: Path) -> None:
    path = tmp_path / file_name("pytorch", TWINS["twin of ResNet-20"])
    path.write_bytes(export("pytorch", TWINS["twin of ResNet-20"]))
    done = subprocess.run([sys.executable, "-I", path], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "269,722 parameters\noutput (1, 10)\n"


def test_sources_say_nothing_that_is_not_used_and_are_formatted(tmp_path: Path) -> None:
    """ruff, as an independent reader: unused names, undefined names, and the layout a formatter would give."""
    for index, name in enumerate([*list(PRESETS)[::3], *ODD]):
        for kind in ("pytorch", "keras", "torchvision", "timm"):
            spec = (TWINS | ODD)[name]
            if not EXPORTERS[kind].reason(spec):
                (tmp_path / f"{kind}_{index}.py").write_bytes(export(kind, spec))
    for index, inputs in enumerate([BY_CHANNEL, BY_PIXEL]):
        for kind in ("pytorch", "keras"):
            (tmp_path / f"prepared_{kind}_{index}.py").write_bytes(export(kind, SEEN, inputs=inputs))
    options = ["--isolated", "--line-length", "120", "--no-cache", str(tmp_path)]
    for command in (["check", "--select", "F,E,W,I,B,UP,SIM,ARG"], ["format", "--check", "--diff"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


@pytest.mark.parametrize("name", ["ResNet-50", "ResNet-20", "twin of ResNet-50"])
def test_pytorch_source_has_only_what_the_net_uses(name: str) -> None:
    text = export("pytorch", TWINS[name]).decode()
    absent = ["SqueezeExcitation", "SkipInit", "DropBranch", "3d", "dilation", "groups", "bias=True", "if shortcut"]
    absent += ["ZeroPad"] if name != "ResNet-20" else ["downsample.0"]
    absent += ["downsample"] if "twin" in name else []
    assert [word for word in absent if word in text] == []
    assert len(text.splitlines()) < 100


# Other files


def trained_like(spec: NetSpec) -> ResNet:
    model = loaded(build(spec, device="meta"))
    assert isinstance(model, ResNet)
    return model


def test_weights_read_back() -> None:
    spec = ODD["skip init, drop"]
    model = trained_like(spec)
    data = export("weights", spec, model)
    state: dict[str, Tensor] = load(data)
    build(spec).load_state_dict(state, strict=True)
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_weights_carry_the_spec(tmp_path: Path) -> None:
    spec = ODD["basic mixed"]
    path = tmp_path / file_name("weights", spec)
    path.write_bytes(export("weights", spec, trained_like(spec)))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert from_json(metadata["spec"]) == spec
    assert metadata["program"] == "ResNet Explorer"


@pytest.mark.parametrize("name", TWINS)
def test_description_reads_back(name: str) -> None:
    assert from_json(export("spec", TWINS[name]).decode()) == TWINS[name]
    assert json.loads(export("spec", TWINS[name]))["image_size"] == TWINS[name].image_size


@pytest.mark.parametrize("kind", ["layers", "stages"])
def test_tables_read_back(kind: str) -> None:
    rows = list(csv.DictReader(io.StringIO(export(kind, PRESETS["ResNet-50"]).decode())))
    assert sum(int(row["params"]) for row in rows) == 25_557_032
    assert sum(int(row["macs"]) for row in rows) == 4_089_184_256
    assert len(rows) == {"layers": 53 * 2 + 1 + 49 + 16 + 3, "stages": 6}[kind]


# The registry


@pytest.mark.parametrize("kind", EXPORTERS)
def test_registry(kind: str) -> None:
    exporter = EXPORTERS[kind]
    assert exporter.title
    assert exporter.reading.endswith(".")
    assert exporter.mime.count("/") == 1
    names = [file_name(kind, spec) for spec in PRESETS.values()]
    assert len({name.casefold() for name in names}) == len(PRESETS)
    assert all(
        name.endswith(exporter.suffix) and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for name in names
    )
    assert len({other.suffix for other in EXPORTERS.values()}) == len(EXPORTERS)


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_a_reason_is_a_sentence_and_refuses(kind: str) -> None:
    reasons = {name: EXPORTERS[kind].reason(spec) for name, spec in (TWINS | ODD).items()}
    refused = [name for name, reason in reasons.items() if reason]
    assert len(refused) > len(ODD)  # three stages are not four
    for name in refused:
        assert reasons[name].endswith(".")
        with pytest.raises(Refused, match=r"Received .* Choose"):
            export(kind, (TWINS | ODD)[name])


@pytest.mark.parametrize("shortcut", IDENTITY_VARIANTS)
def test_variants_of_the_identity_are_written_as_files_and_not_as_source(shortcut: str) -> None:
    spec = small("basic", shortcut)
    for each in (spec, replace(small(), stages=(StageSpec(2, 8), StageSpec(2, 8, shortcut=shortcut)))):
        for kind in ("pytorch", "keras"):
            assert EXPORTERS[kind].reason(each) == f"No source code is written yet for shortcut {shortcut}."
    for kind in ("torchvision", "timm"):
        assert "shortcut B" in EXPORTERS[kind].reason(replace(PRESETS["ResNet-18"], shortcut=shortcut))
    build(spec).load_state_dict(load(export("weights", spec, trained_like(spec))), strict=True)


@pytest.mark.parametrize("kind", [kind for kind in EXPORTERS if EXPORTERS[kind].needs_weights])
def test_weights_are_asked_for(kind: str) -> None:
    with pytest.raises(Refused, match="Received no model"):
        export(kind, PRESETS["ResNet-20"])


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(Refused, match="Received 'word'"):
        export("word", PRESETS["ResNet-20"])


@pytest.mark.parametrize("field", ["block", "shortcut", "norm", "activation"])
def test_what_no_source_is_written_for_is_refused(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(resnet.exports.plan._WRITTEN, field, ("something else",))
    for kind in ("pytorch", "keras"):
        with pytest.raises(Refused, match=f"No source code is written yet for {field}"):
            export(kind, PRESETS["ResNet-20"])


# What a user needs to run the net

NAMES = ("cat", 'do"g', "'''", """\"\"\"\nimport os""", "caf\udce9", "\u202eowl", *"ghij")
BY_CHANNEL = Inputs((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), NAMES)
BY_PIXEL = Inputs(
    tuple(tuple(tuple((100 * c + 8 * y + x) / 999 for x in range(8)) for y in range(8)) for c in range(3)),
    (1.0, 1.0, 1.0),
    NAMES,
)


SEEN = replace(PRESETS["ResNet-20"], image_size=8)


@pytest.mark.parametrize("inputs", [BY_CHANNEL, BY_PIXEL], ids=["by channel", "by pixel"])
def test_the_pytorch_source_prepares_images_as_in_training(inputs: Inputs, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_bytes(export("pytorch", SEEN, inputs=inputs))
    code = runpy.run_path(str(path))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = normalise(images, torch.tensor(inputs.mean), torch.tensor(inputs.std))
    torch.testing.assert_close(code["prepare"](images), expected)
    assert (code["CLASS_NAMES"], code["IMAGE_SIZE"]) == (NAMES, 8)
    assert (code["MEAN"], code["STD"]) == (inputs.mean, inputs.std)


@pytest.mark.parametrize("inputs", [BY_CHANNEL, BY_PIXEL], ids=["by channel", "by pixel"])
def test_clips_are_prepared_as_images_are(inputs: Inputs, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_bytes(export("pytorch", small(frames=3, classes=10, image_size=8), inputs=inputs))
    clips = torch.randint(0, 256, (2, 3, 3, 8, 8), dtype=torch.uint8)
    frames = [normalise(frame, torch.tensor(inputs.mean), torch.tensor(inputs.std)) for frame in clips.unbind(2)]
    torch.testing.assert_close(runpy.run_path(str(path))["prepare"](clips), torch.stack(frames, 2))


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
def test_calls_say_how_images_are_prepared(kind: str, tmp_path: Path) -> None:
    spec = replace(PRESETS["ResNet-18"], classes=10)
    (tmp_path / "call.py").write_bytes(export(kind, spec, inputs=BY_CHANNEL))
    code = runpy.run_path(str(tmp_path / "call.py"))
    assert (code["MEAN"], code["CLASS_NAMES"], code["IMAGE_SIZE"]) == (BY_CHANNEL.mean, NAMES, 224)


@pytest.mark.parametrize("other", [replace(SEEN, classes=9), replace(SEEN, in_channels=1)], ids=["classes", "grey"])
def test_the_inputs_of_another_net_are_refused(other: NetSpec) -> None:
    with pytest.raises(Refused, match="each of its classes has a name"):
        export("pytorch", other, inputs=BY_CHANNEL)


def test_weights_say_how_images_are_prepared(tmp_path: Path) -> None:
    content = export("weights", PRESETS["ResNet-20"], build(PRESETS["ResNet-20"]), BY_CHANNEL)
    (tmp_path / "net.safetensors").write_bytes(content)
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert Inputs.from_json(file.metadata()["inputs"]) == BY_CHANNEL
    assert read(content).inputs == BY_CHANNEL
    assert read(content).spec == PRESETS["ResNet-20"]


def test_what_a_training_began_with_is_in_every_file_of_its_weights_and_never_code() -> None:
    began = "the file own.pth\nimport os\n\u2028print(1)"
    inputs = Inputs((0.5,) * 3, (0.25,) * 3, tuple(map(str, range(10))), began=began)
    net = cifar(8)
    for form in ("pytorch", "keras"):
        text = export(form, net, inputs=inputs).decode()
        [line] = [line for line in text.splitlines() if "own.pth" in line]
        assert line.startswith("# Its training began with ")
        assert not any(line.startswith(("import os", "print(1)")) for line in text.splitlines())
    content = export("weights", net, build(net), inputs)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["inputs"])["began"] == began
