"""Any net with weights: runs at their kept epochs, relatives with torchvision's weights; as plain values."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model_builder

from resnet.costs.profiler import profile
from resnet.data.views import Frame
from resnet.errors import Refused
from resnet.nets.codes import from_code
from resnet.nets.model import blocks, build
from resnet.nets.spec import NetSpec, cifar, plain_twin
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.work.predict import backward, forward
from resnet.work.weights import Model, Weights, kept_epochs, of_run
from resnet.zoo import hub
from resnet.zoo.relatives import RELATIVES, build_relative, profile_relative
from tests.support.tiny import RECIPE, TINY_CODE, same, uninterrupted
from tests.support.weights import saved

# One of each family and of each kind of builder; small ones.
SMALL = ("VGG-11 BN", "DenseNet-121", "RegNet-Y 400MF", "EfficientNet-B0", "EfficientNetV2-S", "ConvNeXt-T")
THEIRS = Weights("torchvision", "IMAGENET1K_V1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of files."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def trained(name: str) -> nn.Module:
    """torchvision's own net, with norms that have seen something."""
    torch.manual_seed(0)
    model = get_model_builder(RELATIVES[name].builder)(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return model.eval()


def put(folder: Path, name: str, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that torchvision would have downloaded for that net: its name carries its checksum."""
    content = saved(tensors)
    weights = hub.offered(name)[THEIRS.name]
    named = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / named).write_bytes(content)
    monkeypatch.setattr(weights._value_, "url", f"https://download.pytorch.org/models/{named}", raising=True)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if "VGG" in name else ()) for name in SMALL],  # 500 MB
)
def test_a_relative_says_what_torchvisions_says(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = trained(name)
    put(folder, name, theirs.state_dict(), monkeypatch)
    model = Model(None, THEIRS, name=name)
    opened, report, inputs = model.open()
    assert report is None
    assert inputs
    assert len(inputs.class_names) == 1000
    assert not any(getattr(module, "inplace", False) for module in opened.modules())
    assert not any(value.is_meta for value in opened.state_dict().values())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(opened(images), theirs(images))
    assert [*model.layers().values()] == [
        module for module, _ in opened.named_modules() if module in model.layers().values()
    ]


def test_a_relatives_stages_end_where_the_next_ones_begin() -> None:
    assert Model(None, THEIRS, name="VGG-11").layers() == {
        "stage1": "features.2", "stage2": "features.5", "stage3": "features.10", "stage4": "features.15",
        "stage5": "features.20",
    }  # fmt: skip
    assert Model(None, THEIRS, name="DenseNet-121").layers() == {
        f"stage{k}": f"features.denseblock{k}" for k in (1, 2, 3, 4)
    }
    assert Model(None, THEIRS, name="ConvNeXt-T").layers() == {
        f"stage{k}": f"features.{2 * k - 1}" for k in (1, 2, 3, 4)
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_relatives_stages_have_the_shapes_of_its_profile(name: str) -> None:
    model, shapes = build_relative(name), {}
    for stage, module in Model(None, THEIRS, name=name).layers().items():
        model.get_submodule(module).register_forward_hook(
            lambda _, __, out, stage=stage: shapes.update({stage: tuple(out.shape[1:])})
        )
    size = RELATIVES[name].image_size
    model(torch.empty(1, 3, size, size, device="meta"))
    rows = {row.stage: row.out_shape for row in profile_relative(name).rows}
    assert shapes == {stage: rows[stage] for stage in shapes}
    assert list(shapes) == [stage for stage in rows if stage.startswith("stage")]


def test_old_names_of_densenets_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in torchvision's file: norm.1 and conv.2 instead of norm1 and conv2, and no counters."""
    theirs = trained("DenseNet-121")
    old = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in key else key: value
        for key, value in theirs.state_dict().items() if "num_batches" not in key
    }  # fmt: skip
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    put(folder, "DenseNet-121", old, monkeypatch)
    opened = Model(None, THEIRS, name="DenseNet-121").open().model
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(opened(images), theirs(images))


def test_another_nets_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, "VGG-11", build(cifar(8)).state_dict(), monkeypatch)
    with pytest.raises(Refused, match="not the weights of VGG-11"):
        Model(None, THEIRS, name="VGG-11").open()
    with pytest.raises(Refused, match=r"IMAGENET1K_V9.*IMAGENET1K_V1"):
        Model(None, Weights("torchvision", "IMAGENET1K_V9"), name="VGG-11").open()


def test_a_relative_has_a_title_a_size_a_frame_and_costs() -> None:
    model = Model(None, THEIRS, name="EfficientNet-B0")
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301 - its own
    assert hash(model) != hash(model._replace(name="EfficientNet-B1"))
    assert (model.title, model.plain, model.channels, model.image_size) == ("EfficientNet-B0", False, 3, 224)
    assert model.frame == Frame(224, 3, 256 / 224, "bicubic")
    assert model.profile == profile_relative("EfficientNet-B0")
    assert forward(model, 1).bytes < backward(model, 1).bytes
    with pytest.raises(Refused, match="EfficientNet-B0"):
        model.described  # noqa: B018
    fine_tuned = Model(None, Weights("torchvision", "IMAGENET1K_SWAG_E2E_V1"), name="RegNet-Y 16GF")
    assert fine_tuned.image_size == fine_tuned.profile.input_shape[-1] == 384


@pytest.mark.parametrize("spec", [cifar(20), plain_twin(cifar(20))], ids=lambda spec: spec.name)
def test_our_own_nets_have_the_same(spec: NetSpec) -> None:
    model = Model(spec, Weights("seed", "0"))
    assert (model.title, model.plain, model.channels, model.image_size) == (spec.name, spec.plain, 3, 32)
    assert model.frame == Frame(32)
    assert model.profile == profile(spec)
    assert model.described == spec
    labels = model.layers()
    assert list(labels)[:4] == ["layer1.0", "layer1.1", "layer1.2", "stage1"]
    assert labels["stage3"] == "layer3"
    net = build(spec, device="meta")
    found: list[str] = []
    for label, module in labels.items():
        net.get_submodule(module).register_forward_hook(lambda _, __, ___, label=label: found.append(label))
    net(torch.empty(1, 3, 32, 32, device="meta"))
    assert found == list(labels), "in running order"
    assert forward(model, 4) == forward(spec, 4)
    assert backward(model, 4) == backward(spec, 4)


@pytest.mark.usefixtures("tiny_data", "threads_back")
def test_a_run_at_any_of_its_kept_epochs() -> None:
    run: Run = uninterrupted(RECIPE)
    first, last = kept_epochs(run)[0], kept_epochs(run)[-1]
    assert first < last == RECIPE.epochs
    newest, early = Model.of(run), Model.of(run, first)
    assert newest.weights == of_run(run)
    assert early.weights == Weights("run", run.id, epoch=first)
    assert early.frame == newest.frame == Frame(8)
    for model, epoch in ((newest, None), (early, first)):
        found = model.open().model.state_dict()
        assert same(found, load_model(run, epoch).state_dict())
    assert not same(found, load_model(run).state_dict()), "the weights have changed since"
    with pytest.raises(Refused):
        Model.of(run, 77).open()


def test_blocks_of_a_model_can_be_broken() -> None:
    spec = from_code(TINY_CODE)
    whole = Model(spec, Weights("seed", "0"))
    images = torch.randn(2, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    model = whole.open().model.eval()
    blocks(model)["layer1.0"].mode = "cut"
    broken = whole._replace(cuts=(("layer1.0", "cut"),)).open().model.eval()
    assert torch.equal(broken(images), model(images))
    assert not torch.equal(broken(images), whole.open().model.eval()(images))
    with pytest.raises(Refused, match="layer9"):
        whole._replace(cuts=(("layer9", "cut"),)).open()
    with pytest.raises(Refused, match="keeps its input's shape"):
        whole._replace(cuts=(("layer2.0", "cut"),)).open()
