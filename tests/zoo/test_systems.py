"""Detection, segmentation and video: torchvision's published figures, torch's own counter, and real forwards."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models.segmentation.deeplabv3 import ASPPConv

from resnet.costs.profiler import Profile, profile
from resnet.errors import Refused
from resnet.nets.spec import PRESETS, NetSpec, SpecError, StageSpec
from resnet.zoo.systems import SYSTEMS, DeepLabV3Plus, build_system, profile_system

PUBLISHED = {name: get_model_weights(entry.builder).DEFAULT.meta for name, entry in SYSTEMS.items() if entry.builder}
DETECTORS = [name for name, entry in SYSTEMS.items() if entry.task == "detection"]
SEGMENTERS = [name for name, entry in SYSTEMS.items() if entry.task == "segmentation"]
PLUS = [name for name in SYSTEMS if name.startswith("DeepLabV3+")]
TINY = NetSpec(
    (StageSpec(1, 8), StageSpec(1, 8, 2), StageSpec(1, 16, 2), StageSpec(1, 16, 2)), "bottleneck", stem_width=8
)
BACKBONE = ["backbone stem", "stage1", "stage2", "stage3", "stage4"]


def counted(name: str, size: int) -> int:
    """torch's own counter: the independent oracle."""
    entry = SYSTEMS[name]
    shape = (1, 3, *[entry.frames] * bool(entry.frames), size, size)
    model = build_system(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


def by_stage(result: Profile, column: str) -> dict[str, Any]:
    stages = result.stages()
    return dict(zip(stages.stage, stages[column], strict=True))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_params_and_macs(name: str) -> None:
    # torchvision counted one image scaled to 800 px: 1000 proposals, and 100 detections where Mask R-CNN found any
    result = profile_system(name, detections=0 if name == "Mask R-CNN ResNet-50 FPN" else 100)
    assert result.params == PUBLISHED[name]["num_params"]
    assert round(result.macs / 1e9, 3) == PUBLISHED[name]["_ops"]


@pytest.mark.parametrize(
    ("name", "params", "gmacs", "shape"),
    [
        ("R3D-18", 33_371_472, "40.697", (3, 16, 112, 112)),
        ("DeepLabV3 ResNet-50", 42_004_074, "178.722", (3, 520, 520)),
        ("Faster R-CNN ResNet-50 FPN", 41_755_286, "134.38", (3, 800, 800)),
    ],
)
def test_reference_table(name: str, params: int, gmacs: str, shape: tuple[int, ...]) -> None:
    result = profile_system(name)
    assert result.params == params
    assert f"{result.macs / 1e9:.{len(gmacs.partition('.')[2])}f}" == gmacs
    assert result.input_shape == shape


@pytest.mark.parametrize("name", ["FCN ResNet-50", "DeepLabV3 ResNet-50", *PLUS[:2], "MC3-18", "R(2+1)D-18"])
def test_macs_against_torchs_counter(name: str) -> None:
    assert profile_system(name, 96).flops == counted(name, 96)


@pytest.mark.parametrize("name", SYSTEMS)
def test_params_are_the_nets(name: str) -> None:
    result, model = profile_system(name, 128), build_system(name)
    assert result.params == sum(p.numel() for p in model.parameters())
    for row in result.rows:
        module = model.get_submodule(row.name)
        assert row.params in (0, sum(p.numel() for p in module.parameters(recurse=False)))
    assert "other" not in {row.op for row in result.rows}


# Detection


def test_proposals_and_detections_cost_what_they_say() -> None:
    def macs(proposals: int, detections: int) -> int:
        return profile_system("Mask R-CNN ResNet-50 FPN", 256, proposals, detections).macs

    box = 12544 * 1024 + 1024 * 1024 + 1024 * 91 * 5  # two layers of 1024 on 256 x 7 x 7, then classes and 4 sides
    mask = 14 * 14 * (4 * 256 * 9 * 256 + 256 * 4 * 256) + 28 * 28 * 256 * 91
    assert macs(7, 0) - macs(0, 0) == 7 * box
    assert macs(7, 3) - macs(7, 0) == 3 * mask


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_stages(name: str) -> None:
    result = profile_system(name)
    heads = ["box head x 1000", *(["mask head x 100"] if name.startswith("Mask") else [])]
    assert list(result.stages().stage) == [*BACKBONE, "feature pyramid", "region proposals", *heads]
    shapes = by_stage(result, "out_shape")
    assert [shapes[f"stage{k}"] for k in (1, 2, 3, 4)] == [
        "256 x 200 x 200", "512 x 100 x 100", "1024 x 50 x 50", "2048 x 25 x 25"
    ]  # fmt: skip
    assert sum(row.first for row in result.rows) == 1
    assert {row.op for row in result.rows if "BatchNorm" in row.kind} == {"norm"}


def test_the_dense_part_is_what_a_real_detector_runs() -> None:
    """torch's counter over a whole forward, with as many proposals as that forward had."""
    torch.manual_seed(0)
    model: Any = build_system("Faster R-CNN ResNet-50 FPN", device="cpu")
    model.transform.min_size, proposals = (64,), []
    model.roi_heads.box_head.register_forward_hook(lambda module, args, out: proposals.append(len(out)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model([torch.rand(3, 64, 64)])
    assert 0 < proposals[0] < 1000
    assert profile_system("Faster R-CNN ResNet-50 FPN", 64, proposals[0]).flops == counter.get_total_flops()


@pytest.mark.parametrize("name", DETECTORS)
def test_keys_are_torchvisions(name: str) -> None:
    builder = get_model_builder(SYSTEMS[name].builder)
    with torch.device("meta"):
        theirs = builder(weights=None, weights_backbone=None).state_dict()
    ours = build_system(name).state_dict()
    extra = theirs.keys() - ours.keys()  # the counters that a frozen norm lacks
    assert all(key.endswith("num_batches_tracked") for key in extra)
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items() if key not in extra
    }


# Segmentation


@pytest.mark.parametrize(("name", "stride"), [(n, 16 if n.endswith("OS16") else 8) for n in SEGMENTERS])
def test_output_stride(name: str, stride: int) -> None:
    result = profile_system(name)
    assert by_stage(result, "stride")["stage4"] == f"{stride} x {stride}"
    side = -(-520 // stride)
    assert by_stage(result, "out_shape")["stage4"] == f"2048 x {side} x {side}"
    assert result.rows[-1].out_shape == (21, 520, 520)


@pytest.mark.parametrize("name", [name for name in SEGMENTERS if "DeepLab" in name])
def test_atrous_rates_stand_in_the_rows(name: str) -> None:
    result = profile_system(name)
    rates = [row.kernel for row in result.rows if row.stage == "ASPP" and row.kernel.startswith("3 x 3")][:3]
    wanted = (6, 12, 18) if name.endswith("OS16") else (12, 24, 36)
    assert rates == [f"3 x 3, rate {rate}" for rate in wanted]
    last = [row.kernel for row in result.rows if row.stage == "stage4" and row.kernel.startswith("3 x 3")]
    assert last == (
        ["3 x 3", "3 x 3, rate 2", "3 x 3, rate 2"] if name.endswith("OS16")
        else ["3 x 3, rate 2", "3 x 3, rate 4", "3 x 3, rate 4"]
    )  # fmt: skip
    plain = [row for row in result.rows if "rate" not in row.kernel and row.op == "conv"]
    model = build_system(name)
    assert all(model.get_submodule(row.name).dilation == (1, 1) for row in plain)


def test_deeplab_v3_stages() -> None:
    stages = profile_system("DeepLabV3 ResNet-50").stages().stage
    assert list(stages) == [*BACKBONE, "ASPP", "head", "upsampling", "auxiliary head"]
    assert list(profile_system(PLUS[0]).stages().stage) == [*BACKBONE, "ASPP", "decoder", "head"]
    assert list(profile_system("FCN ResNet-50").stages().stage) == [*BACKBONE, "head", "upsampling", "auxiliary head"]


def test_deeplab_v3_plus_is_the_papers_decoder() -> None:
    rows = {row.name: row for row in profile_system("DeepLabV3+ ResNet-50 OS16", 513).rows}
    assert rows["reduce.0"].out_shape == (48, 129, 129)
    assert rows["decoder.0"].params == 304 * 9 * 256  # the 48 beside ASPP's 256
    assert rows["decoder.3"].out_shape == (256, 129, 129)
    assert rows["classifier"].out_shape == (21, 129, 129)
    assert rows["aspp.convs.1.0"].out_shape == (256, 33, 33)
    backbone = sum(row.params for name, row in rows.items() if name.startswith("backbone."))
    assert backbone == profile(PRESETS["ResNet-50"]).params - 2048 * 1000 - 1000
    theirs = {row.name: row for row in profile_system("DeepLabV3 ResNet-50", 513).rows}
    assert [rows[f"aspp.convs.{k}.0"].params for k in range(4)] == [
        theirs[f"classifier.0.convs.{k}.0"].params for k in range(4)
    ]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplab_v3_plus_learns(output_stride: int) -> None:
    torch.manual_seed(0)
    model = DeepLabV3Plus(TINY, output_stride, classes=5)
    images = torch.randn(2, 3, 64, 48)
    assert model.backbone.features(images)["stage4"].shape == (2, 64, 64 // output_stride, 48 // output_stride)
    logits = model(images)
    assert logits.shape == (2, 5, 64, 48)
    nn.functional.cross_entropy(logits, torch.randint(5, (2, 64, 48))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    rates = [module[0].dilation[0] for module in model.aspp.modules() if isinstance(module, ASPPConv)]
    assert rates == ([6, 12, 18] if output_stride == 16 else [12, 24, 36])


def test_one_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model: Any = DeepLabV3Plus(TINY, 16, classes=3)
    images = torch.randn(4, 3, 32, 32)
    target = torch.randint(3, (4, 32, 32))
    model.aspp.project[3].p = 0.0  # the same net before and after
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.05), []
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_deeplab_v3_plus_joins_the_low_level_maps() -> None:
    torch.manual_seed(0)
    model: Any = DeepLabV3Plus(TINY, 16).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        model.reduce[0].weight.zero_()
        assert not torch.allclose(model(images), before)


# Video


def test_our_r3d_costs_what_torchvisions_costs() -> None:
    ours, theirs = profile(PRESETS["ResNet3D-18"]), profile_system("R3D-18")
    assert (ours.params, ours.macs) == (theirs.params, theirs.macs)
    assert by_stage(ours, "out_shape") == by_stage(theirs, "out_shape")


# What cannot be


WRONG: list[tuple[str, Any]] = [
    ("image_size", 0), ("image_size", 9999), ("image_size", 3.5), ("image_size", True),
    ("proposals", -1), ("proposals", 2000), ("detections", 101),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_numbers_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(SpecError, match=r"must be a whole number in range\. Received .*\. Choose "):
        profile_system("Mask R-CNN ResNet-50 FPN", **{field: value})


def test_unknown_names() -> None:
    with pytest.raises(Refused, match=r"Received 'YOLO'\. Choose Faster R-CNN"):
        profile_system("YOLO")
    with pytest.raises(SpecError, match="Choose 8 or 16"):
        DeepLabV3Plus(TINY, 32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_names_the_same_paper(name: str) -> None:
    text = " ".join((get_model_builder(SYSTEMS[name].builder).__doc__ or "").split())
    assert SYSTEMS[name].title in text or SYSTEMS[name].arxiv in text
