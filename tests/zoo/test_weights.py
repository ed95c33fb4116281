"""Weights: other people's nets as the oracle, and hostile files."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, list_models

from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar
from resnet.zoo import weights
from resnet.zoo.weights import TORCHVISION, fit, offered, read

TINY = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=3, image_size=8)


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def random_tensors(model: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Values of the net's own shapes, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) + 0.5 if value.is_floating_point() else value + 7
        for name, value in model.state_dict().items()
    }


def same(model: nn.Module, tensors: dict[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[name], value) for name, value in tensors.items())


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
    renamed = {ours_name: theirs[key].shape for key, ours_name in weights.rename(theirs).items()}
    assert renamed == {key: value.shape for key, value in ours.items()}
    assert name == "ResNet3D-18" or list(theirs) == list(renamed)
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


# What fits, and what does not


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "model_state_dict"])
def test_wrappers_and_prefixes(prefix: str, wrapper: str) -> None:
    model = build(TINY)
    wanted = random_tensors(model)
    named = {prefix + name: value for name, value in wanted.items()}
    assert fit(model, read(saved({wrapper: named, "epoch": 3} if wrapper else named))).fits
    assert same(model, wanted)


def test_a_checkpoint_of_our_own_runs() -> None:
    model = build(TINY)
    wanted = random_tensors(model)
    run = {f"model.{name}": value for name, value in wanted.items()}
    run |= {f"momentum.{name}": torch.zeros_like(value) for name, value in model.named_parameters()}
    report = fit(model, read(safetensors.torch.save(run)))
    assert report.fits
    assert report.misfits == ()
    assert same(model, wanted)


def misfitting() -> tuple[nn.Module, dict[str, Tensor], list[tuple[str, ...]]]:
    """A net, tensors of which four do not fit, and how each does not."""
    model = build(TINY)
    tensors = random_tensors(model)
    del tensors["bn1.weight"], tensors["layer2.0.conv2.weight"]
    tensors["fc.weight"] = torch.zeros(5, 8)
    tensors["extra.scale"] = torch.zeros(())
    return model, tensors, [
        ("bn1.weight", "missing", "4", ""),
        ("layer2.0.conv2.weight", "missing", "8 x 8 x 3 x 3", ""),
        ("fc.weight", "shape", "3 x 8", "5 x 8"),
        ("extra.scale", "unexpected", "", "one number"),
    ]  # fmt: skip


def test_nothing_is_loaded_where_something_is_missing() -> None:
    model, tensors, wrong = misfitting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fit(model, tensors)
    assert not report.fits
    assert report.loaded == ()
    assert [tuple(row) for row in report.table().itertuples(index=False)] == wrong
    assert list(report.table().columns) == ["key", "problem", "net", "file"]
    assert same(model, before)


def test_partial_loading_takes_what_fits() -> None:
    model, tensors, wrong = misfitting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fit(model, tensors, partial=True)
    assert [misfit.key for misfit in report.misfits] == [key for key, *_ in wrong]
    untouched = {"bn1.weight", "layer2.0.conv2.weight", "fc.weight"}
    assert set(report.loaded) == before.keys() - untouched
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in untouched else tensors[name])


def test_unexpected_entries_and_missing_counters_do_no_harm() -> None:
    model = build(TINY)
    wanted = random_tensors(model)
    old = {name: value for name, value in wanted.items() if not name.endswith("num_batches_tracked")}
    report = fit(model, old | {"aux.weight": torch.zeros(2)})
    assert report.fits
    assert [misfit.problem for misfit in report.misfits] == ["unexpected"]
    assert torch.equal(model.state_dict()["fc.weight"], wanted["fc.weight"])


def test_ambiguous_names() -> None:
    model = build(TINY)
    tensors = random_tensors(model)
    with pytest.raises(Refused, match=r"Received fc\.bias under two names"):
        fit(model, tensors | {"linear.bias": torch.zeros(3)})
    assert not same(model, tensors)


def test_a_net_without_memory() -> None:
    with pytest.raises(Refused, match="meta device"):
        fit(build(TINY, device="meta"), {})


# Files that are no weights


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def deflated(size: int) -> bytes:
    """A zip of some kilobytes that unpacks to `size` bytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data/0", "w") as member:
        for _ in range(size // 2**16):
            member.write(bytes(2**16))
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["zip", "old", "nested", "plain pickle"])
def test_code_in_a_file_does_not_run(how: str, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "made")
    pickle.loads(pickle.dumps(evil))  # noqa: S301 - it would
    assert (tmp_path / "made").is_dir()
    (tmp_path / "made").rmdir()
    content = {"state_dict": {"fc.weight": evil}} if how == "nested" else evil
    data = pickle.dumps(evil, 2) if how == "plain pickle" else saved(content, zipped=how != "old")
    with pytest.raises(Refused, match=r"Choose a safetensors file, or a state_dict written by torch\.save\.$") as e:
        read(data)
    assert how == "plain pickle" or "code in it (posix.mkdir), which was not run" in str(e.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("left", [0.0, 0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files(zipped: bool, left: float) -> None:
    data = saved(random_tensors(build(TINY)), zipped)
    with pytest.raises(Refused, match="no whole file of weights"):
        read(data[: int(len(data) * left)])


@pytest.mark.parametrize("left", [0.01, 0.5, 0.99])
def test_truncated_safetensors(left: float) -> None:
    data = safetensors.torch.save(random_tensors(build(TINY)))
    with pytest.raises(Refused, match="no whole file of weights"):
        read(data[: int(len(data) * left)])


WRONG: dict[str, tuple[bytes, str]] = {
    "a photo": (b"\x89PNG\r\n\x1a\n" + bytes(99), "no whole file of weights"),
    "text": (b'{"fc.weight": [1, 2]}', "no whole file of weights"),
    "a zip": (deflated(2**16), "no whole file of weights"),
    "a list": (saved([torch.zeros(2)]), "Received list"),
    "a tensor": (saved(torch.zeros(2)), "Received Tensor"),
    "nothing": (saved({}), "Received dict"),
    "a number": (saved({"fc.weight": 1}), "Received int under 'fc.weight'"),
    "numbered": (saved({3: torch.zeros(2)}), "Received Tensor under 3"),
    "a module": (saved(nn.Linear(2, 3)), r"code in it \(torch\.nn\.modules\.linear\.Linear\), which was not run"),
    "sparse": (saved({"fc.weight": torch.eye(3).to_sparse()}), "dense real numbers"),
    "complex": (saved({"fc.weight": torch.zeros(2, dtype=torch.complex64)}), "dense real numbers"),
    "meta": (saved({"fc.weight": torch.zeros(2, device="meta")}), "dense real numbers"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("what", WRONG)
def test_other_files(what: str) -> None:
    data, message = WRONG[what]
    with pytest.raises(Refused, match=message):
        read(data)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="There must be a file"):
        read(tmp_path / "none.pth")
    with pytest.raises(Refused, match="cannot be read"):
        read(tmp_path)


def test_huge_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BYTES", 2**20)
    with pytest.raises(Refused, match=r"at most .* GiB, unpacked too\. Received 0\.00391 GiB"):
        read(deflated(2**22))
    with pytest.raises(Refused, match="at most"):
        read(bytes(2**20 + 1))
    assert list(read(saved({"fc.weight": torch.zeros(2)}))) == ["fc.weight"]
