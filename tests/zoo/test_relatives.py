"""The relatives against torchvision's published figures, torch's own counter and a real forward."""

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_builder, list_models

from resnet.costs.profiler import ProfileError
from resnet.costs.recorder import Row
from resnet.errors import Refused
from resnet.zoo.relatives import RELATIVES, _chain, build_relative, profile_relative

STAGES = {"VGG": 5, "DenseNet": 4, "RegNet": 4, "EfficientNet": 7, "EfficientNetV2": 7, "ConvNeXt": 4}
WEIGHTS = [(name, weights) for name, entry in RELATIVES.items() for weights in entry.weights]
SMALL = ["VGG-11 BN", "DenseNet-121", "RegNet-Y 400MF", "EfficientNet-B0", "ConvNeXt-T"]  # one of each kind


def test_all_of_torchvisions_sizes_are_here() -> None:
    families = ("vgg", "densenet", "efficientnet", "regnet", "convnext")
    theirs = {name for name in list_models(torchvision.models) if name.startswith(families)}
    assert {entry.builder for entry in RELATIVES.values()} == theirs
    assert len(RELATIVES) == len(theirs)


@pytest.mark.parametrize(("name", "weights"), WEIGHTS, ids=[f"{name}-{weights.name}" for name, weights in WEIGHTS])
def test_published_params_and_macs(name: str, weights: Any) -> None:
    result = profile_relative(name, weights.transforms.keywords["crop_size"])
    assert result.params == weights.meta["num_params"]
    assert round(result.macs / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("DenseNet-121", 7_978_856, "2.8342"),
        ("RegNet-Y 400MF", 4_344_144, "0.402"),
        ("RegNet-Y 1.6GF", 11_202_430, "1.612"),
        ("RegNet-Y 3.2GF", 19_436_338, "3.1765"),
        ("RegNet-X 3.2GF", 15_296_552, "3.1766"),
        ("EfficientNet-B0", 5_288_548, "0.3858"),
        ("VGG-16", 138_357_544, "15.4703"),
    ],
)
def test_reference_table(name: str, params: int, gmacs: str) -> None:
    result = profile_relative(name)
    assert result.input_shape == (3, 224, 224)
    assert result.params == params
    assert f"{result.macs / 1e9:.{len(gmacs.partition('.')[2])}f}" == gmacs


@pytest.mark.parametrize("name", SMALL)
def test_macs_against_torchs_counter(name: str) -> None:
    model = build_relative(name, classes=10)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 96, 96, device="meta"))
    result = profile_relative(name, 96, classes=10)
    assert result.flops == counter.get_total_flops()
    assert result.params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", RELATIVES)
def test_stages(name: str) -> None:
    entry, result = RELATIVES[name], profile_relative(name)
    stages = result.stages()
    count = 6 if name == "EfficientNetV2-S" else STAGES[entry.family.name]
    numbered = [f"stage{k + 1}" for k in range(count)]
    assert list(stages.stage) == [*([] if entry.family.name == "VGG" else ["stem"]), *numbered, "head"]
    assert list(dict.fromkeys(row.stage for row in result.rows)) == list(result.blocks().stage)  # no stage comes back
    sides = [int(shape.split(" x ")[-1]) for shape in stages.out_shape[:-1]]
    assert sides == sorted(sides, reverse=True)
    assert stages.out_shape.iloc[-1] == "1000"
    assert stages.macs.sum() == result.macs


@pytest.mark.parametrize("name", RELATIVES)
def test_every_operation_has_its_class(name: str) -> None:
    rows = profile_relative(name).rows
    known = {"conv", "linear", "norm", "activation", "pool", "add", "multiply", "copy", "none"}
    assert {row.op for row in rows} <= known
    for row in rows:
        if row.kind.startswith(("Conv", "Linear")):
            assert row.op == ("conv" if row.kind.startswith("Conv") else "linear")
        assert (row.op == "norm") == ("Norm" in row.kind)
        assert bool(row.macs) == (row.op in ("conv", "linear"))


@pytest.mark.parametrize("name", SMALL[1:])  # VGG's head alone has 120 million weights
def test_real_nets_run_and_have_the_profiled_shapes(name: str) -> None:
    torch.manual_seed(0)
    model = build_relative(name, classes=7, device="cpu")
    shapes: dict[str, tuple[int, ...]] = {}

    def see(key: str) -> Any:
        return lambda module, _, out: shapes.__setitem__(key, tuple(out.shape[1:]))

    leaves = [(key, module) for key, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(see(key)) for key, module in leaves]
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = model(image)
        assert logits.shape == (1, 7)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(_chain(model)(image), logits)
    profiled = [row for row in profile_relative(name, 64, classes=7).rows if row.name in shapes]
    assert len(profiled) > len(leaves) / 2
    assert all(row.out_shape == shapes[row.name] for row in profiled)


@pytest.mark.parametrize(
    ("name", "layer", "stage"),
    [
        ("VGG-16", "features.30", "stage5"),
        ("DenseNet-121", "features.transition3.pool", "stage4"),
        ("ConvNeXt-T", "features.6.1", "stage4"),
    ],
)
def test_an_image_that_is_too_small(name: str, layer: str, stage: str) -> None:
    with pytest.raises(ProfileError, match=rf"^The net stops at {re.escape(layer)}: ") as caught:
        profile_relative(name, 16)
    assert caught.value.layer == layer
    rows, full = caught.value.rows, profile_relative(name).rows

    def alike(row: Row) -> tuple[Any, ...]:
        return row.name, row.stage, row.kind, row.params

    assert [alike(row) for row in rows] == [alike(row) for row in full[: len(rows)]]
    assert rows[-1].stage == stage
    assert rows[-1].out_shape[1:] == (1, 1)


def test_receptive_field_of_convnext() -> None:
    field, jump = 4, 4  # the patch stem
    for index, blocks in enumerate((3, 3, 9, 3)):
        if index:
            field, jump = field + jump, jump * 2  # 2 x 2, stride 2
        field += blocks * 6 * jump  # a depthwise 7 x 7 each
    stage4 = profile_relative("ConvNeXt-T").stages().set_index("stage").loc["stage4"]
    assert (stage4.receptive_field, stage4.stride) == (f"{field} x {field}", f"{jump} x {jump}")


def test_rows_name_real_layers_with_their_parameters() -> None:
    model = build_relative("ConvNeXt-T")
    for row in profile_relative("ConvNeXt-T").rows:
        own = sum(p.numel() for p in model.get_submodule(row.name).parameters(recurse=False))
        assert row.params in (0, own)


@pytest.mark.parametrize("entry", RELATIVES.values(), ids=RELATIVES)
def test_torchvision_names_the_same_paper(entry: Any) -> None:
    text = get_model_builder(entry.builder).__doc__ or ""
    assert entry.family.arxiv in text
    assert entry.family.title in " ".join(text.split()).replace("`_", "")


@pytest.mark.parametrize("size", [0, -3, 5000, 64.0, True])
def test_a_wrong_size(size: Any) -> None:
    with pytest.raises(Refused, match=r"whole number of pixels\. Received .*\. Choose 1 to 4,096\."):
        profile_relative("VGG-11", size)


def test_an_unknown_name() -> None:
    with pytest.raises(Refused, match=r"Received 'ResNet-50'\. Choose VGG-11, "):
        profile_relative("ResNet-50")
    with pytest.raises(Refused):
        build_relative("")


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that takes memory."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not out.is_meta:
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("name", SMALL)
def test_a_meta_net_takes_no_memory(name: str) -> None:
    with Largest() as seen:
        model = build_relative(name)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert seen.elements <= 4096, "vectors of channels at most: a weight would be larger"
