"""Data sets against brute force, and the names and places they go by."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from resnet.data import sizes
from resnet.data.dataset import (
    DATASETS,
    Dataset,
    available,
    balanced,
    crop,
    data_folder,
    draw_crops,
    load,
    load_offered,
    normalise,
)
from resnet.errors import Refused
from tests.support.pictures import paint, save

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")),
]


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load("shapes")


# ---------------------------------------------------------------- the data set itself


def test_a_test_batch_is_normalised_by_channel_and_the_same_each_time(shapes: Dataset) -> None:
    images, labels = shapes.test_batch(20)
    pixels = images * shapes.std[:, None, None] + shapes.mean[:, None, None]
    picked = [int((shapes.test_images / 255 - one).abs().amax((1, 2, 3)).argmin()) for one in pixels]
    assert len(set(picked)) == 20
    torch.testing.assert_close(pixels, shapes.test_images[picked] / 255)
    assert torch.equal(labels, shapes.test_labels[picked])
    assert torch.equal(images, shapes.test_batch(20)[0])


def test_moments_are_those_of_the_training_images(shapes: Dataset) -> None:
    some = shapes.subset(700)
    pixels = some.train_images.double() / 255
    torch.testing.assert_close(some.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(some.std, pixels.std((0, 2, 3), correction=0).float())
    assert some.mean is some.mean  # computed once


def test_std_of_a_constant_channel_divides(data_dir: Path) -> None:
    flat = load(save(data_dir / "flat.npz", train_images=np.full((12, 9, 9, 3), 77, np.uint8)))
    assert (flat.std > 0).all()
    assert normalise(flat.train_images, flat.mean, flat.std).abs().max() < 1e-3


def test_resized_is_torchvisions(shapes: Dataset) -> None:
    resize = v2.Resize((16, 16), antialias=True)
    half = shapes.resized(16)
    assert (half.size, half.train_images.dtype) == (16, torch.uint8)
    for ours, theirs in ((half.train_images, shapes.train_images[4000:]), (half.test_images, shapes.test_images)):
        expected = resize(theirs.float())
        assert (ours[-1000:].float() - expected[-1000:]).abs().max() <= 1  # rounding
    assert half.test_masks is not None
    assert shapes.test_masks is not None
    areas = half.test_masks.float().mean((1, 2)), shapes.test_masks.float().mean((1, 2))
    assert (areas[0] - areas[1]).abs().max() < 0.05
    assert shapes.resized(32) is shapes
    assert shapes.train_images.shape[-1] == 32


@pytest.mark.parametrize("size", [0, 7, 2000])
def test_resized_refuses(shapes: Dataset, size: int) -> None:
    with pytest.raises(Refused, match=f"Received {size}"):
        shapes.resized(size)


def test_resized_refuses_what_memory_cannot_hold(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "memory_limit", lambda: 10**8)
    with pytest.raises(Refused, match=r"6,000 pictures at 224 x 224 pixels \(0\.8 GiB\)"):
        shapes.resized(224)


def test_subset_is_balanced_and_the_same_each_time(shapes: Dataset) -> None:
    some = shapes.subset(1003)
    counts = some.train_labels.bincount(minlength=10)
    assert counts.sum() == 1003
    assert counts.max() - counts.min() <= 1
    assert torch.equal(some.train_images, shapes.subset(1003).train_images)
    assert some.test_images is shapes.test_images
    assert shapes.subset(5000) is shapes
    assert shapes.subset(10**9) is shapes
    keys = {image.numpy().tobytes(): (int(label), mask) for image, label, mask in _train(shapes)}
    chosen = [(image.numpy().tobytes(), int(label), mask) for image, label, mask in _train(some)]
    assert len({key for key, _, _ in chosen}) == 1003
    assert all(keys[key][0] == label and torch.equal(keys[key][1], mask) for key, label, mask in chosen)


@pytest.mark.parametrize(
    ("labels", "count", "recorded"),
    [
        ([0] * 6 + [1] * 4 + [2] * 2, 5, [0, 5, 8, 9, 10]),
        ([0] * 6 + [1] * 4 + [2] * 2, 9, [0, 2, 4, 5, 7, 8, 9, 10, 11]),
        ([2, 0, 1] * 5, 9, [0, 1, 2, 3, 4, 5, 12, 13, 14]),
        ([2, 0, 1], 7, [0, 1, 2]),
    ],
)
def test_balanced_chooses_the_rows_that_recorded_runs_were_trained_on(
    labels: list[int], count: int, recorded: list[int]
) -> None:
    assert balanced(torch.tensor(labels), count).tolist() == recorded


def test_a_sample_is_the_test_images_of_these_rows(shapes: Dataset) -> None:
    sample = shapes.sample([7, 3])
    assert shapes.test_masks is not None
    assert sample.test_masks is not None
    for row, image, label, mask in zip((7, 3), sample.test_images, sample.test_labels, sample.test_masks, strict=True):
        assert torch.equal(image, shapes.test_images[row])
        assert label == shapes.test_labels[row]
        assert torch.equal(mask, shapes.test_masks[row])
    assert sample.resized(16).test_images.shape == (2, 3, 16, 16)


def _train(data: Dataset) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    assert data.train_masks is not None
    return zip(data.train_images, data.train_labels, data.train_masks, strict=True)


def test_subset_takes_all_of_a_rare_class(data_dir: Path) -> None:
    rare = load(save(data_dir / "rare.npz", train_labels=np.array([0] * 6 + [1] * 4 + [2] * 2)), train=9)
    assert sorted(rare.train_labels.bincount().tolist()) == [2, 3, 4]
    with pytest.raises(Refused, match="Received 0"):
        rare.subset(0)


# ---------------------------------------------------------------- shapes


def test_shapes_are_what_is_promised(shapes: Dataset) -> None:
    assert shapes.train_images.shape == (5000, 3, 32, 32)
    assert shapes.test_images.shape == (1000, 3, 32, 32)
    assert shapes.train_labels.bincount().tolist() == [500] * 10
    assert shapes.test_labels.bincount().tolist() == [100] * 10
    assert (shapes.classes, shapes.channels, shapes.size) == (10, 3, 32)
    assert len(set(shapes.class_names)) == 10
    again = load("shapes")
    assert torch.equal(again.train_images, shapes.train_images)
    together = {image.tobytes() for images in (shapes.train_images, shapes.test_images) for image in images.numpy()}
    assert len(together) == 6000  # no test picture is a training picture


def test_masks_cover_the_object_and_nothing_else(shapes: Dataset) -> None:
    images, masks = shapes.test_images.float(), shapes.test_masks
    assert masks is not None
    share = masks.float().mean((1, 2))
    assert share.min() > 0.03
    assert share.max() < 0.6
    border = torch.ones(32, 32, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert masks[:, border].float().mean() < 0.02  # the whole object is in the picture
    luma = torch.einsum("nchw,c->nhw", images, torch.tensor([0.299, 0.587, 0.114]))
    inside = (luma * masks).sum((1, 2)) / masks.sum((1, 2))
    outside = (luma * ~masks).sum((1, 2)) / (~masks).sum((1, 2))
    assert (inside - outside).abs().min() > 0.2 * 255  # the eye finds it
    threshold = ((inside + outside) / 2)[:, None, None]
    seen = (luma > threshold) == (inside > outside)[:, None, None]
    assert (seen == masks).float().mean() > 0.96  # a mask shifted by 2 pixels has 0.93


def test_masks_have_the_drawn_forms(shapes: Dataset) -> None:
    """How compact each form is, and whether its centre is filled, against geometry."""
    assert shapes.test_masks is not None
    middle: dict[str, float] = {}
    roundness: dict[str, float] = {}
    for label, name in enumerate(shapes.class_names):
        masks = shapes.test_masks[shapes.test_labels == label].double()
        line = torch.arange(32, dtype=torch.float64)
        area = masks.sum((1, 2))
        x, y = (masks * line).sum((1, 2)) / area, (masks * line[:, None]).sum((1, 2)) / area
        spread = (masks * ((line - x[:, None, None]) ** 2 + (line[:, None] - y[:, None, None]) ** 2)).sum((1, 2)) / area
        roundness[name] = float((area / (2 * torch.pi * spread)).mean())  # 1 for a disc, the most compact form
        middle[name] = float(masks[torch.arange(len(masks)), y.round().long(), x.round().long()].mean())
    assert roundness["circle"] == pytest.approx(1, abs=0.03)
    assert roundness["square"] == pytest.approx(3 / torch.pi, abs=0.03)  # spread of a square: side^2 / 6
    assert roundness["triangle"] == pytest.approx(3**1.5 / (2 * torch.pi), abs=0.04)  # side^2 / 12
    assert max(roundness, key=lambda name: roundness[name]) == "circle"
    assert min(roundness, key=lambda name: roundness[name]) in ("ring", "crescent")
    assert middle["ring"] == 0
    assert all(middle[name] > 0.95 for name in ("circle", "square", "triangle", "cross", "star", "heart", "hourglass"))


# ---------------------------------------------------------------- augmentation


def slow_crop(images: Tensor, crops: Tensor, pad: int) -> Tensor:
    """One picture at a time, with numpy's pad and slices."""
    out, s = [], images.shape[-1]
    for image, top, left, flip in zip(images.cpu().numpy(), *crops.tolist(), strict=True):
        planes = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        piece = planes[:, top : top + s, left : left + s]
        out.append(torch.from_numpy((piece[:, :, ::-1] if flip else piece).copy()))
    return torch.stack(out)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("channels", "size", "pad"), [(3, 32, 4), (1, 28, 4), (3, 9, 0), (3, 8, 12)])
def test_crop_is_the_slow_reference(device: str, channels: int, size: int, pad: int) -> None:
    images, draw = torch.randn(50, channels, size, size), torch.Generator().manual_seed(5)
    kept = images.clone()
    for _ in range(2):  # the second batch differs
        crops = draw_crops(50, draw, pad)
        ours = crop(images.to(device), crops.to(device), pad)
        assert (ours.dtype, ours.device.type) == (torch.float32, device)
        assert torch.equal(ours.cpu(), slow_crop(images, crops, pad))
    assert torch.equal(images, kept)


def test_every_crop_is_drawn_and_a_seed_draws_alike() -> None:
    image = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    crops = draw_crops(2000, torch.Generator().manual_seed(0), pad=2)
    kinds, counts = crop(image.expand(2000, 1, 8, 8), crops, pad=2).view(2000, -1).unique(dim=0, return_counts=True)
    assert len(kinds) == 5 * 5 * 2
    assert counts.min() > 15  # 40 expected
    assert (kinds == 0).any()
    assert torch.equal(crops, draw_crops(2000, torch.Generator().manual_seed(0), pad=2))


def test_the_mean_image_and_the_fingerprint_follow_the_training_data() -> None:
    images = torch.randint(0, 256, (9000, 3, 8, 8), dtype=torch.uint8)
    data = Dataset("noise", images, torch.zeros(9000, dtype=torch.int64), images[:1], torch.zeros(1).long(), ("a", "b"))
    torch.testing.assert_close(data.mean_image, (images.double() / 255).mean(0).float())
    changed = images.clone()
    changed[-1, -1, -1, -1] += 1
    assert dataclasses.replace(data, train_images=images.clone()).fingerprint == data.fingerprint
    assert dataclasses.replace(data, train_images=changed).fingerprint != data.fingerprint
    assert dataclasses.replace(data, train_labels=data.train_labels + 1).fingerprint != data.fingerprint


def test_normalise() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
    expected = v2.Normalize(mean.tolist(), std.tolist())(v2.ToDtype(torch.float32, scale=True)(images))
    torch.testing.assert_close(normalise(images, mean, std), expected, atol=1e-5, rtol=1e-5)
    image = torch.rand(3, 8, 8)
    torch.testing.assert_close(normalise(images, image, torch.ones(3)), images / 255 - image)
    last = images.contiguous(memory_format=torch.channels_last)
    assert normalise(last, mean, std).is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- names and places


def test_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_DATA_DIR", "/somewhere")
    assert data_folder() == Path("/somewhere")
    monkeypatch.delenv("RESNET_DATA_DIR")
    assert "resnet-explorer" in data_folder().parts


def test_available(data_dir: Path, monkeypatch: pytest.MonkeyPatch, shapes: Dataset) -> None:
    monkeypatch.setitem(DATASETS, "shapes", lambda: shapes)
    for name in ("zoo.npz", "cifar10.npz", ".hidden.npz", "shapes.npz"):
        save(data_dir / name)
    for name in "ab":
        for number in range(2):
            paint(data_dir / "pets" / name / f"{number}.png")
    (data_dir / "lonely" / "class").mkdir(parents=True)
    (data_dir / "readme.txt").write_text("")
    assert available() == ["shapes", "cifar10", "lonely", "pets", "shapes.npz", "zoo.npz"]
    for name in ("shapes", "cifar10", "pets", "shapes.npz", "zoo.npz"):
        assert load_offered(name, train=2).name == name
    with pytest.raises(Refused, match="at least two classes"):
        load_offered("lonely")
    monkeypatch.setenv("RESNET_DATA_DIR", str(data_dir / "absent"))
    assert available() == list(DATASETS)


def test_offered_is_all_that_a_stranger_gets(data_dir: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.npz")
    save(data_dir / ".hidden.npz")
    assert load(outside).classes == 3  # whoever types a command may
    for name in (
        outside,
        "../outside.npz",
        "../../etc",
        "/etc",
        "",
        ".",
        "..",
        ".hidden.npz",
        "cifar10.npz",
        "a\0b",
        "~",
    ):
        with pytest.raises(Refused, match=r"no data set.*Choose shapes, cifar10"):
            load_offered(name)


@pytest.mark.parametrize("name", ["", "nothing", "/nowhere/x.npz", "a\0b", "x" * 5000, "~nobody-here/x"])
def test_unknown_names_give_a_sentence(data_dir: Path, name: str) -> None:
    with pytest.raises(Refused):
        load(name)


def test_load_makes_it_smaller(data_dir: Path, monkeypatch: pytest.MonkeyPatch, shapes: Dataset) -> None:
    monkeypatch.setitem(DATASETS, "shapes", lambda: shapes)
    one = load("shapes", size=16, train=50)
    assert one.train_images.shape == (50, 3, 16, 16)
    with pytest.raises(Refused, match="Received 5000"):
        load("shapes", size=5000)


def test_samples_are_test_images_as_many_of_each_class(shapes: Dataset) -> None:
    images, labels = shapes.samples(25)
    assert labels.bincount(minlength=10).tolist() == [2] * 10
    for label in range(10):
        assert torch.equal(images[labels == label], shapes.test_images[shapes.test_labels == label][:2])
    assert len(shapes.samples(3)[1]) == 10
