"""Weights under other projects' names: their nets as the oracle of equal logits."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, list_models

from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar
from resnet.zoo.fitting import fit
from resnet.zoo.hub import TORCHVISION, offered
from resnet.zoo.layouts import find
from resnet.zoo.weights import WeightsFile, read
from tests.support.weights import Maker, net, prefixed, random_tensors, saved, without_head

# A net as akamaster/pytorch_resnet_cifar10 names it: linear, shortcut, and nothing in option A's shortcut.


class AkaBlock(nn.Module):
    def __init__(self, c_in: int, width: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.pads, self.stride = (width - c_in) // 2, stride
        self.shortcut = nn.Sequential()
        if stride > 1 and option == "B":
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 and not len(self.shortcut):
            zeros = torch.zeros(len(x), self.pads, *y.shape[2:])
            return F.relu(y + torch.cat([zeros, x[:, :, ::2, ::2], zeros], 1))
        return F.relu(y + self.shortcut(x))


class AkaNet(nn.Module):
    def __init__(self, blocks: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for index, (c_in, width, stride) in enumerate([(16, 16, 1), (16, 32, 2), (32, 64, 2)], 1):
            made = [AkaBlock(c_in if k == 0 else width, width, stride if k == 0 else 1, option) for k in range(blocks)]
            self.add_module(f"layer{index}", nn.Sequential(*made))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for index in (1, 2, 3):
            x = self.get_submodule(f"layer{index}")(x)
        return self.linear(x.mean((2, 3)))


@pytest.mark.parametrize("option", ["A", "B"])
def test_a_cifar_checkpoint_of_another_project(option: str) -> None:
    torch.manual_seed(0)
    theirs = AkaNet(3, option).eval()
    theirs.load_state_dict(random_tensors(theirs))
    content = {"state_dict": {f"module.{name}": value for name, value in theirs.state_dict().items()}, "best": 92.6}
    ours = build(cifar(20) if option == "A" else NetSpec(**{**vars(cifar(20)), "shortcut": "B"})).eval()
    report = fit(ours, read(saved(content)))
    assert report.fits
    assert report.table().empty
    assert set(report.loaded) == set(ours.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


# torchvision's nets


def test_torchvisions_resnets_are_all_here() -> None:
    theirs = {n for n in list_models(torchvision.models) if n.startswith(("resnet", "resnext", "wide_resnet"))}
    assert set(TORCHVISION.values()) - {"r3d_18"} == theirs
    assert all(PRESETS[name].stride_on == "3x3" for name in TORCHVISION)  # v1.5


@pytest.mark.parametrize("name", TORCHVISION)
def test_presets_have_torchvisions_keys(name: str) -> None:
    with torch.device("meta"):
        theirs = get_model(TORCHVISION[name], weights=None).state_dict()
    ours = build(PRESETS[name], device="meta").state_dict()
    keys = find(theirs, ours).keys
    assert {ours_name: theirs[key].shape for ours_name, key in keys.items()} == {k: v.shape for k, v in ours.items()}
    assert name == "ResNet3D-18" or all(ours_name == key for ours_name, key in keys.items())
    published_params = {entry.meta["num_params"] for entry in offered(name).values()}
    assert published_params == {sum(p.numel() for p in build(PRESETS[name], device="meta").parameters())}


@pytest.mark.parametrize(("name", "shape"), [("ResNet-50", (3, 64, 64)), ("ResNet3D-18", (3, 4, 32, 32))])
@pytest.mark.parametrize("kind", ["pth", "half", "safetensors"])
def test_torchvision_round_trip(name: str, shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = get_model(TORCHVISION[name], weights=None).eval()
    if kind == "half":  # some of torchvision's own files are
        theirs.half()
    state = theirs.state_dict()
    theirs.float()
    path = tmp_path / "some.file"
    path.write_bytes(safetensors.torch.save(state) if kind == "safetensors" else saved(state, zipped=kind == "pth"))
    ours = build(PRESETS[name], seed=3).eval()
    assert fit(ours, read(path)).fits
    images = torch.randn(1, *shape)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_only_presets_that_torchvision_trained_have_weights() -> None:
    assert list(offered("ResNet-50")) == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert list(offered("ResNet3D-18")) == ["KINETICS400_V1"]
    assert offered("ResNet-50 v1") == offered("ResNet-20") == offered("no such net") == {}


# Files as people have them: torchvision's ResNet-18 under other names, in other dicts


def with_head(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    return {re.sub(r"^fc\.", head, name): value for name, value in tensors.items()}


def substituted(
    tensors: dict[str, Tensor], *rules: tuple[str, str | Callable[[re.Match[str]], str]]
) -> dict[str, Tensor]:
    for pattern, name in rules:
        tensors = {re.sub(pattern, name, key): value for key, value in tensors.items()}
    return tensors


def hugging_face(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    def layer(kind: str) -> Callable[[re.Match[str]], str]:
        return lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.layer.{int(m[3]) - 1}.{kind}."

    return substituted(
        tensors,
        (r"^conv1\.", "embedder.embedder.convolution."),
        (r"^bn1\.", "embedder.embedder.normalization."),
        (r"^layer(\d)\.(\d+)\.conv(\d)\.", layer("convolution")),
        (r"^layer(\d)\.(\d+)\.bn(\d)\.", layer("normalization")),
        (
            r"^layer(\d)\.(\d+)\.downsample\.(\d)\.",
            lambda m: (
                f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.shortcut.{('convolution', 'normalization')[int(m[3])]}."
            ),
        ),
    )


def sequential(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """nn.Sequential(*net.children()) without the head."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]
    return {".".join([str(order.index(k.split(".")[0])), *k.split(".")[1:]]): v for k, v in tensors.items()}


def detectron2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return substituted(
        tensors,
        (r"^(conv|bn)1\.", lambda m: "stem.conv1." if m[1] == "conv" else "stem.conv1.norm."),
        (r"^layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
        (r"^layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
        (r"^layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut."),
        (r"^layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm."),
        (r"^fc\.", "linear."),
    )


WHOLE: dict[str, tuple[Maker, str]] = {  # a file's content from a state_dict, and what is said of where it lies
    "plain": (lambda s: s, ""),
    "in half precision": (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, ""),
    "torchvision's references": (
        lambda s: {"model": s, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}, "epoch": 9}, "model"
    ),
    "timm's train.py": (lambda s: {"arch": "resnet18", "state_dict": s, "metric": np.float64(71.2)}, "state_dict"),
    "under net, in parallel": (lambda s: {"net": prefixed(s, "module."), "acc": 93.0}, "net, names after module"),
    "an encoder": (lambda s: {"state_dict": prefixed(s, "encoder.")}, "state_dict, names after encoder"),
    "compiled, in parallel": (lambda s: prefixed(s, "module._orig_mod."), "names after module._orig_mod"),
    "averaged": (lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(5)}, "names after module"),
    "Lightning": (lambda s: {"state_dict": prefixed(s, "model."), "hyper_parameters": {"lr": 0.1}}, "state_dict"),
    "deep down": (lambda s: {"a": [{"b": (prefixed(s, "x.y.z."),)}]}, "a/0/b/0, names after x.y.z"),
    "OpenMMLab": (
        lambda s: {"meta": {"epoch": 3}, "state_dict": prefixed(without_head(s), "backbone.")
                   | {f"head.{k}": v for k, v in s.items() if k.startswith("fc.")}},
        "state_dict, names after backbone, head state_dict/head.fc",
    ),
    "a head in nn.Sequential": (lambda s: with_head(s, "fc.1."), "head fc.1"),
    "a head called classifier": (lambda s: with_head(s, "classifier."), "head classifier"),
    "Hugging Face": (
        lambda s: prefixed(hugging_face(without_head(s)), "resnet.")
        | {f"classifier.1.{k[3:]}": v for k, v in s.items() if k.startswith("fc.")},
        "names after resnet, names as in Hugging Face, head classifier.1",
    ),
    "kuangliu": (lambda s: with_head(substituted(s, (r"\.downsample\.", ".shortcut.")), "linear."), "head linear"),
    "children in nn.Sequential": (sequential, "nn.Sequential of the layers, head 9"),
    "detectron2": (detectron2, "detectron2"),
    "NumPy arrays": (lambda s: {"model": {k: v.numpy() for k, v in s.items()}}, "model"),
}  # fmt: skip


def equal_logits(ours: nn.Module, theirs: nn.Module, size: int = 64) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", WHOLE)
def test_every_layout_gives_equal_logits(layout: str) -> None:
    theirs = net().half().float() if layout == "in half precision" else net()
    make, said = WHOLE[layout]
    ours = build(PRESETS["ResNet-18"])
    report = fit(ours, read(saved(make(theirs.state_dict()))))
    assert report.fits, report.sentences()
    assert said in " ".join(report.sentences())
    assert report.sentences()[0] == "All 122 weights were loaded."
    equal_logits(ours, theirs)


COPIES: dict[str, tuple[str, str]] = {  # the one taken, the other
    "MoCo": ("state_dict/module.encoder_q.", "state_dict/module.encoder_k."),
    "BYOL": ("backbone.", "backbone_momentum."),
    "DINO": ("teacher/backbone.", "student/module.backbone."),
    "timm": ("state_dict_ema/", "state_dict/"),
    "torchvision": ("model_ema/module.", "model/"),
}


def nested(tensors: dict[str, Tensor]) -> dict[str, object]:
    """ "a/b" becomes {"a": {"b": ...}}."""
    made: dict[str, object] = {}
    for name, value in tensors.items():
        outer, slash, inner = name.partition("/")
        if slash:
            made.setdefault(outer, {})[inner] = value  # type: ignore[index]
        else:
            made[name] = value
    return made


@pytest.mark.parametrize("first", ["taken", "other"])
@pytest.mark.parametrize("method", COPIES)
def test_of_two_copies_one_is_taken_and_the_other_named(method: str, first: str) -> None:
    taken, other = COPIES[method]
    theirs, another = net(1), net(2)
    copies = [prefixed(theirs.state_dict(), taken), prefixed(another.state_dict(), other)]
    one, two = copies if first == "taken" else copies[::-1]
    ours = build(PRESETS["ResNet-18"])
    report = fit(ours, read(saved(nested(one | two | {"queue": torch.randn(8, 8)}))))
    assert report.fits
    equal_logits(ours, theirs)
    assert "(122 tensors, a copy of the net)" in " ".join(report.left_out)
    assert any(entry.startswith("queue") for entry in report.left_out)


TIMM = {
    "resnet50c": PRESETS["ResNet-50-C"],
    "resnet50d": PRESETS["ResNet-50-D"],
    "resnetv2_50": PRESETS["Pre-ResNet-50"],
    "resnetv2_50d": replace(PRESETS["Pre-ResNet-50"], stem="deep", shortcut="D"),
    "seresnet50": PRESETS["SE-ResNet-50"],
    "resnet50_gn": PRESETS["ResNet-50 GN"],
    "resnext50_32x4d": PRESETS["ResNeXt-50 32x4d"],
}


def timms(name: str) -> nn.Module:
    """timm's net with norms that are not at their start."""
    torch.manual_seed(0)
    source = timm.create_model(name, pretrained=False).eval()
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = (
                torch.randn(module.num_features),
                torch.rand(module.num_features) + 1,
            )
            module.bias.data.normal_()
    return source


@pytest.mark.parametrize("name", TIMM)
def test_timms_nets(name: str) -> None:
    source, model = timms(name), build(TIMM[name])
    state = {name: value.contiguous() for name, value in source.state_dict().items()}
    report = fit(model, read(safetensors.torch.save(state)))
    assert report.fits, report.sentences()
    equal_logits(model, source)


def test_openmmlabs_deep_stem() -> None:
    """Its names: the stem numbered, and no pool counted in a shortcut without a stride."""
    source, model = timms("resnet50d"), build(PRESETS["ResNet-50-D"])
    theirs = substituted(
        source.state_dict(),
        (r"^bn1\.", "stem.7."),
        (r"^conv1\.", "stem."),
        (r"^layer1\.0\.downsample\.(\d)", lambda m: f"layer1.0.downsample.{int(m[1]) - 1}"),
        (r"^(?!fc)", "backbone."),
        (r"^fc\.", "head.fc."),
    )
    assert fit(model, WeightsFile(theirs)).fits
    equal_logits(model, source)


class Wide(nn.Module):
    """A block of xternalz/WideResNet-pytorch, whose shortcut reads what the activation gives."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(c_in, width, 1, stride, bias=False) if c_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(inside))))
        return y + (x if self.convShortcut is None else self.convShortcut(inside))


class WideNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.fc = nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.Linear(16, 3)
        for index, (c_in, width, stride) in enumerate([(4, 8, 1), (8, 16, 2)], 1):
            block = nn.Module()
            block.layer = nn.Sequential(Wide(c_in, width, stride), Wide(width, width, 1))
            self.add_module(f"block{index}", block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.get_submodule("block2.layer")(self.get_submodule("block1.layer")(self.conv1(x)))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


def test_wide_resnets_of_another_project() -> None:
    source = WideNet().eval()
    source.load_state_dict(random_tensors(source))
    stages = StageSpec(2, 8), StageSpec(2, 16, 2)
    model = build(NetSpec(stages, "preact-basic", stem="3x3", stem_width=4, classes=3, image_size=8))
    report = fit(model, WeightsFile(source.state_dict()))
    assert report.fits
    assert report.taken == "Taken: names as in xternalz."
    equal_logits(model, source, 8)
