"""Weights of files into nets: what fits, what does not, and what is said of it."""

from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from resnet.errors import Refused
from resnet.nets.codes import from_code
from resnet.nets.model import ResNet, build
from resnet.nets.spec import PRESETS
from resnet.zoo.fitting import fit
from resnet.zoo.weights import WeightsFile, read
from tests.support.weights import TINY, Maker, net, prefixed, random_tensors, same, saved, without_head

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


def misfitting() -> tuple[ResNet, dict[str, Tensor], list[tuple[str, ...]]]:
    """A net, tensors of which three do not fit, and how each does not."""
    model = build(TINY)
    tensors = random_tensors(model)
    del tensors["bn1.weight"], tensors["layer2.0.conv2.weight"]
    tensors["fc.weight"] = torch.zeros(5, 8)
    tensors["extra.scale"] = torch.zeros(())  # beside the net: it does no harm
    return model, tensors, [
        ("bn1.weight", "missing", "4", ""),
        ("layer2.0.conv2.weight", "missing", "8 x 8 x 3 x 3", ""),
        ("fc.weight", "shape", "3 x 8", "5 x 8"),
    ]  # fmt: skip


def test_nothing_is_loaded_where_something_is_missing() -> None:
    model, tensors, wrong = misfitting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fit(model, WeightsFile(tensors))
    assert not report.fits
    assert report.loaded == ()
    assert [tuple(row) for row in report.table().itertuples(index=False)] == wrong
    assert report.left_out == ("extra (1 tensor)",)
    assert list(report.table().columns) == ["key", "problem", "net", "file"]
    assert same(model, before)


def test_partial_loading_takes_what_fits() -> None:
    model, tensors, wrong = misfitting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = fit(model, WeightsFile(tensors), partial=True)
    assert [misfit.key for misfit in report.misfits] == [key for key, *_ in wrong]
    untouched = {"bn1.weight", "layer2.0.conv2.weight", "fc.weight"}
    assert set(report.loaded) == before.keys() - untouched
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in untouched else tensors[name])


def test_other_entries_and_missing_counters_do_no_harm() -> None:
    model = build(TINY)
    wanted = random_tensors(model)
    old = {name: value for name, value in wanted.items() if not name.endswith("num_batches_tracked")}
    report = fit(model, WeightsFile(old | {"aux.weight": torch.zeros(2)}))
    assert report.fits
    assert report.left_out == ("aux (1 tensor)",)
    assert torch.equal(model.state_dict()["fc.weight"], wanted["fc.weight"])


def test_a_net_without_memory() -> None:
    with pytest.raises(Refused, match="meta device"):
        fit(build(TINY, device="meta"), WeightsFile({}))


PARTS: dict[str, tuple[Maker, dict[str, Any], tuple[int, str]]] = {
    "another number of classes": (
        lambda s: s | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}, {"classes": 10},
        (120, "fc.weight and fc.bias stay at their start (the file has 10 classes)"),
    ),
    "one channel": (
        lambda s: s | {"conv1.weight": s["conv1.weight"].sum(1, keepdim=True)}, {"in_channels": 1},
        (121, "conv1.weight stays at its start (the file has 1 input channel)"),
    ),
    "both": (
        lambda s: s
        | {"fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7), "conv1.weight": torch.ones(64, 4, 7, 7)},
        {"classes": 7, "in_channels": 4},
        (119, "stay at their start (the file has 4 input channels and 7 classes)"),
    ),
    "a backbone": (
        lambda s: {"state_dict": prefixed(without_head(s), "backbone.")}, {},
        (120, "fc.weight and fc.bias stay at their start (the file has none)"),
    ),
    "a detector's backbone": (
        lambda s: prefixed({k: v for k, v in without_head(s).items() if "num_batches" not in k}, "backbone.body.")
        | {"rpn.head.conv.weight": torch.ones(3, 3)},
        {}, (100, "fc.weight and fc.bias stay at their start (the file has none)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PARTS)
def test_all_that_fits_is_loaded_where_that_is_wanted(what: str) -> None:
    make, changes, (count, said) = PARTS[what]
    theirs, ours = net(), build(PRESETS["ResNet-18"], seed=5)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    file = read(saved(make(theirs.state_dict())))
    report = fit(ours, file)
    assert (report.fits, report.loaded, report.changes, report.fitting) == (False, (), changes, count)
    assert same(ours, before)
    report = fit(ours, file, partial=True)
    assert said in report.sentences()[0]
    state, source = ours.state_dict(), theirs.state_dict()
    for name in state:
        kept = source[name] if name in report.loaded else before[name]
        assert torch.equal(state[name], kept), name
    if changes:
        fitted = build(replace(PRESETS["ResNet-18"], **changes))
        assert fit(fitted, file).fits


def test_nets_that_standardise_their_weights_are_refused() -> None:
    with torch.device("meta"):
        state = timm.create_model("resnetv2_50x1_bit", pretrained=False).state_dict()
    with pytest.raises(Refused, match="BiT"):
        fit(build(replace(PRESETS["Pre-ResNet-50"], norm="group")), WeightsFile(state))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_the_averages_of_our_own_runs_come_first(norm: str) -> None:
    """They are what a run tests; without averages the weights, never the momentum, which may have the same shapes."""
    model = build(replace(TINY, norm=norm))
    raw, average = random_tensors(model, 1), random_tensors(model, 2)
    zeros = {f"momentum.{name}": torch.zeros_like(value) for name, value in model.named_parameters()}
    assert fit(model, WeightsFile(zeros | prefixed(raw, "model."))).fits
    assert same(model, raw)
    floats = {name: value for name, value in average.items() if value.is_floating_point()}
    report = fit(model, WeightsFile(zeros | prefixed(raw, "model.") | prefixed(floats, "average.")))
    assert report.taken == "Taken: names after average."
    assert same(model, raw | floats)


def test_a_projector_is_no_head() -> None:
    state = net().state_dict()
    projector = {f"fc.{layer}.{kind}": torch.ones(512, *[512] * (kind == "weight")) for layer in (0, 2)
                 for kind in ("weight", "bias")}  # fmt: skip
    report = fit(build(PRESETS["ResNet-18"]), WeightsFile(without_head(state) | projector), partial=True)
    assert [misfit.key for misfit in report.misfits] == ["fc.weight", "fc.bias"]
    assert report.left_out == ("fc (4 tensors)",)


OTHERS = {  # nets whose every weight is in the file, which is another net's all the same
    "a deeper net's": ("ResNet-18", lambda: torchvision.models.resnet34()),
    "with shortcuts": ("plain-18", lambda: torchvision.models.resnet18()),
    "with batch norms": ("ResNet-50 GN", lambda: torchvision.models.resnet50()),
    "with squeeze-and-excitation": ("ResNet-50", lambda: timm.create_model("seresnet50", pretrained=False)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_larger_net_is_not_taken_for_a_smaller_one(what: str) -> None:
    name, make = OTHERS[what]
    with torch.device("meta"):
        state = make().state_dict()
    report = fit(build(from_code(name)), WeightsFile(state))
    assert (report.fits, report.loaded) == (False, ())
    assert report.fitting == report.total
    assert "the file is another net's" in report.sentences()[0]


def test_whole_numbers_are_no_weights() -> None:
    """Quantised values have lost their scale."""
    state = {name: value.to(torch.int8) for name, value in random_tensors(build(TINY)).items()}
    report = fit(build(TINY), WeightsFile(state), partial=True)
    assert {misfit.problem for misfit in report.misfits} == {"type"}


def test_a_few_names_are_no_copy() -> None:
    report = fit(build(PRESETS["ResNet-18"]), WeightsFile({f"{a}.conv1.weight": torch.ones(2) for a in "xy"}))
    assert report.fitting == 0
    assert "copy" not in " ".join(report.sentences())


def test_shapes_that_claim_much_take_no_memory() -> None:
    """Tensors that repeat one number are as small in memory as in the file; nobody may unfold them."""
    state = net().state_dict() | {"fc.weight": torch.zeros(1).expand(10**12, 512, 1, 1)}
    report = fit(build(PRESETS["ResNet-18"]), read(saved(state)), partial=True)
    assert report.misfits[0].file == "1000000000000 x 512"
