"""Data sets against brute force, hostile files, and a download from a server on this machine."""

import contextlib
import dataclasses
import errno
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from resnet import cifar, data, datafiles
from resnet.data import (
    DATASETS,
    DataError,
    Dataset,
    available,
    crop,
    data_folder,
    download_cifar10,
    draw_crops,
    load,
    load_offered,
    normalise,
)

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("RESNET_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return load("shapes")


def small(**changes: Any) -> dict[str, Any]:
    """The arrays of a valid .npz with 3 classes."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 12), ("test", 6)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 3
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def save(path: Path, **changes: Any) -> str:
    np.savez(path, **small(**changes))
    return str(path)


# ---------------------------------------------------------------- the data set itself


def test_moments_are_those_of_the_training_images(shapes: Dataset) -> None:
    some = shapes.subset(700)
    pixels = some.train_images.double() / 255
    torch.testing.assert_close(some.mean, pixels.mean((0, 2, 3)).float())
    torch.testing.assert_close(some.std, pixels.std((0, 2, 3), correction=0).float())
    assert some.mean is some.mean  # computed once


def test_std_of_a_constant_channel_divides(folder: Path) -> None:
    flat = load(save(folder / "flat.npz", train_images=np.full((12, 9, 9, 3), 77, np.uint8)))
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
    with pytest.raises(DataError, match=f"not {size}"):
        shapes.resized(size)


def test_resized_refuses_what_memory_cannot_hold(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datafiles, "memory_limit", lambda: 10**8)
    with pytest.raises(DataError, match=r"6,000 pictures at 224 x 224 pixels take 0\.8 GiB"):
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


def _train(data: Dataset) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    assert data.train_masks is not None
    return zip(data.train_images, data.train_labels, data.train_masks, strict=True)


def test_subset_takes_all_of_a_rare_class(folder: Path) -> None:
    rare = load(save(folder / "rare.npz", train_labels=np.array([0] * 6 + [1] * 4 + [2] * 2)), train=9)
    assert sorted(rare.train_labels.bincount().tolist()) == [2, 3, 4]
    with pytest.raises(DataError, match="not 0"):
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


# ---------------------------------------------------------------- .npz


def test_npz_round_trip(folder: Path) -> None:
    masks = {f"{part}_masks": np.arange(n * 81).reshape(n, 9, 9) % 7 == 0 for part, n in (("train", 12), ("test", 6))}
    names = np.array(["cat", "dog", "köttbulle"])
    loaded = load(save(folder / "a.npz", class_names=names, source=np.array("My camera."), **masks))
    arrays = small()
    assert np.array_equal(loaded.train_images.permute(0, 2, 3, 1).numpy(), arrays["train_images"])
    assert loaded.train_images.is_contiguous()
    assert loaded.test_labels.tolist() == arrays["test_labels"].tolist()
    assert loaded.test_labels.dtype == torch.int64
    assert loaded.class_names == ("cat", "dog", "köttbulle")
    assert loaded.source == "My camera."
    assert loaded.test_masks is not None
    assert loaded.test_masks.dtype == torch.bool
    assert np.array_equal(loaded.test_masks.numpy(), masks["test_masks"])


@pytest.mark.parametrize("axes", [(), (1,)])
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "uint64"])
def test_npz_like_medmnist(folder: Path, axes: tuple[int, ...], dtype: str) -> None:
    grey = {f"{part}_images": small()[f"{part}_images"][..., 0].reshape(-1, 9, 9, *axes) for part in ("train", "test")}
    labels = {f"{part}_labels": small()[f"{part}_labels"].astype(dtype)[:, None] for part in ("train", "test")}
    extra = {"val_images": np.zeros(3), "val_labels": np.zeros(3)}
    loaded = load(save(folder / "grey.npz", **grey, **labels, **extra), size=12)
    assert loaded.train_images.shape == (12, 1, 12, 12)
    assert loaded.train_labels.tolist() == [0, 1, 2] * 4
    assert (loaded.class_names, loaded.source) == (("0", "1", "2"), "")


def test_npz_in_fortran_order_and_compressed(folder: Path) -> None:
    arrays = small()
    arrays["train_images"] = np.asfortranarray(arrays["train_images"])
    np.savez_compressed(folder / "f.npz", **arrays)
    assert torch.equal(load("f.npz").train_images, load(save(folder / "c.npz")).train_images)


BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"test_labels": None, "test_images": None}, "lacks test_images, test_labels.*Found train_images"),
    "float": ({"train_images": np.zeros((12, 9, 9, 3))}, "train_images must be uint8, not float64"),
    "16 bit": ({"train_images": np.zeros((12, 9, 9, 3), np.uint16)}, "must be uint8, not uint16"),
    "oblong": ({"train_images": np.zeros((12, 9, 10, 3), np.uint8)}, "must be square, not 9 x 10"),
    "planes first": ({"train_images": np.zeros((12, 3, 9, 9), np.uint8)}, r"must be \(N, H, W\)"),
    "flat": ({"train_images": np.zeros((12, 243), np.uint8)}, r"must be \(N, H, W\)"),
    "empty": (
        {"test_images": np.zeros((0, 9, 9, 3), np.uint8), "test_labels": np.zeros(0, int)},
        "test_images is empty",
    ),
    "tiny": ({"train_images": np.zeros((12, 4, 4, 3), np.uint8)}, "8 to 1,024 pixels"),
    "two sizes": ({"test_images": np.zeros((6, 12, 12, 3), np.uint8)}, "one shape"),
    "lengths": ({"train_labels": np.zeros(11, int)}, "each of the 12 images"),
    "many labels": ({"train_labels": np.zeros((12, 14), int)}, "one number for each"),
    "float labels": ({"train_labels": np.zeros(12)}, "train_labels must be integers, not float64"),
    "negative": ({"train_labels": np.arange(12) - 1}, "count from 0.*-1 to 10"),
    "enormous": ({"train_labels": np.arange(12) + 2**40}, "count from 0"),
    "beyond names": ({"class_names": np.array(["a", "b"])}, "Label 2 is out of range"),
    "beyond images": ({"test_labels": np.arange(6) * 100}, "Label 500 is out of range"),
    "one class": ({"train_labels": np.zeros(12, int), "test_labels": np.zeros(6, int)}, "at least two classes"),
    "bytes": ({"class_names": np.array([b"a", b"b", b"c"])}, "class_names must be text"),
    "objects": ({"class_names": np.array(["a", None, "c"], object)}, "class_names must be text.*never read"),
    "masks": ({"train_masks": np.zeros((12, 8, 8), bool)}, "train_masks must have the shape"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz_gives_a_sentence(folder: Path, name: str) -> None:
    changes, words = BAD_NPZ[name]
    with pytest.raises(DataError, match=rf"(?s)bad\.npz.*{words}"):
        load(save(folder / "bad.npz", **changes))


def test_npz_that_is_something_else(folder: Path) -> None:
    path = folder / "x.npz"
    good = Path(save(folder / "good.npz")).read_bytes()
    for raw in (b"", b"some text", good[: len(good) // 2], good[:4000] + b"!!!!" + good[4004:]):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"x\.npz"):
            load(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        for key in small():
            archive.writestr(f"{key}.npy", b"not an array")
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        load(str(path))


class _Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["train_images", "train_labels", "class_names", "source", "val_images"])
def test_npz_is_never_unpickled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    bomb = np.empty(12, object)
    bomb[:] = [_Bomb(tmp_path / "exploded")] * 12
    path = save(folder / "bomb.npz", **{key: bomb})
    if key == "val_images":  # not ours, not read
        load(path)
    else:
        with pytest.raises(DataError, match="objects are never read"):
            load(path)
        monkeypatch.setattr(datafiles, "_check_headers", lambda headers: None)  # the reader refuses them too
        with pytest.raises(DataError, match="allow_pickle=False"):
            load(path)
    raw = pickle.dumps(bomb)
    with zipfile.ZipFile(path, "w") as archive:  # a bare pickle, which numpy.load would take for one
        for name in small():
            archive.writestr(f"{name}.npy", raw)
    with pytest.raises(DataError):
        load(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(raw)  # noqa: S301 - the bomb is a real one
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("shape", [(10**9, 1024, 1024, 3), (-12, 9, 9, -3), (2**62, 9, 9, 2**62)])
@pytest.mark.parametrize("key", ["train_images", "train_labels", "class_names"])
def test_absurd_shapes_are_refused_before_reading(folder: Path, shape: tuple[int, ...], key: str) -> None:
    header = io.BytesIO()
    descr = {"train_images": "|u1", "train_labels": "<i8", "class_names": "<U9"}[key]
    np.lib.format.write_array_header_2_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    np.savez(folder / "absurd.npz", **small(**{key: None}))
    with zipfile.ZipFile(folder / "absurd.npz", "a") as archive:
        archive.writestr(f"{key}.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(DataError, match=r"absurd\.npz"):
        load("absurd.npz")


def test_a_header_that_promises_more_than_there_is(folder: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<U9", "fortran_order": False, "shape": (10**6,)})
    path = save(folder / "a.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("class_names.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(DataError, match=r"class_names should be.*the file has 100 bytes"):
        load(path)


def test_an_npz_larger_than_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datafiles, "memory_limit", lambda: 4000)
    with pytest.raises(DataError, match="more than the limit"):
        load(save(folder / "a.npz"))


# ---------------------------------------------------------------- folders


def paint(path: Path, colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_folder_without_split(folder: Path) -> None:
    for number in range(10):
        paint(folder / "pets" / "cat" / f"{number}.png", (200, number, 0))
        paint(folder / "pets" / "dog" / f"{number}.JPG", (0, number, 200))
    paint(folder / "pets" / "owl" / "only.webp", (0, 200, 0))
    (folder / "pets" / "cat" / "notes.txt").write_text("hello")
    (folder / "pets" / ".hidden").mkdir()
    pets = load("pets")
    assert pets.class_names == ("cat", "dog", "owl")
    assert pets.train_labels.bincount().tolist() == [8, 8, 1]
    assert pets.test_labels.bincount().tolist() == [2, 2]
    assert pets.size == 32
    assert (pets.train_images[pets.train_labels == 0][:, 0] == 200).all()
    assert (pets.test_images[pets.test_labels == 1][:, 2] > 190).all()
    greens = torch.cat([pets.train_images, pets.test_images])[:, 1, 0, 0]
    assert set(range(10)) <= set(greens.tolist())  # each picture is on one side
    assert torch.equal(load("pets").train_images, pets.train_images)
    assert load("pets", size=64).train_images.shape[-1] == 64


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder_with_split(folder: Path, held_out: str) -> None:
    for name in ("a", "b", "c"):
        for number in range(3):
            paint(folder / "x" / "train" / name / f"{number}.png")
    paint(folder / "x" / held_out / "b" / "0.png")
    split = load("x")
    assert split.train_labels.bincount().tolist() == [3, 3, 3]
    assert split.test_labels.tolist() == [1]


def test_bad_folders_give_a_sentence(folder: Path) -> None:
    root = folder / "x"
    root.mkdir()
    with pytest.raises(DataError, match="at least two classes, not 0"):
        load(str(root))
    paint(root / "a" / "1.png")
    with pytest.raises(DataError, match="at least two classes, not 1"):
        load(str(root))
    paint(root / "b" / "1.png")
    with pytest.raises(DataError, match="no test pictures"):
        load(str(root))
    paint(root / "b" / "2.png")
    load(str(root))
    (root / "b" / "3.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"b.3\.png: This is not a PNG"):
        load(str(root))
    paint(root / "train" / "a" / "1.png")
    with pytest.raises(DataError, match="neither test/ nor val/"):
        load(str(root))
    paint(root / "train" / "b" / "1.png")
    paint(root / "test" / "z" / "1.png")
    with pytest.raises(DataError, match="without training pictures: z"):
        load(str(root))


def test_folder_with_too_many_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datafiles, "MAX_IMAGES", 3)
    for name in "abcd":
        paint(folder / "x" / name / "1.png")
    with pytest.raises(DataError, match="more than 3 pictures"):
        load("x")


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            paint(folder / "x" / name / f"{number}.png", (1, 1, 1))
    paint(tmp_path / "secret" / "s.png", (255, 255, 255))
    (folder / "x" / "a" / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    (folder / "x" / "c").symlink_to(tmp_path / "secret")
    (folder / "x" / "b" / "inside.png").symlink_to(folder / "x" / "a" / "0.png")
    loaded = load("x")
    assert loaded.class_names == ("a", "b")
    assert len(loaded.train_labels) + len(loaded.test_labels) == 5
    assert loaded.train_images.max() < 5
    assert loaded.test_images.max() < 5


# ---------------------------------------------------------------- names and places


def test_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_DATA_DIR", "/somewhere")
    assert data_folder() == Path("/somewhere")
    monkeypatch.delenv("RESNET_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for platform, expected in (("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")):
        monkeypatch.setattr("sys.platform", platform)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert data_folder() == Path("/home/ann", expected, "resnet-explorer/data")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert data_folder() == Path("/big/resnet-explorer/data")


def test_available(folder: Path, monkeypatch: pytest.MonkeyPatch, shapes: Dataset) -> None:
    monkeypatch.setitem(DATASETS, "shapes", lambda: shapes)
    for name in ("zoo.npz", "cifar10.npz", ".hidden.npz", "shapes.npz"):
        save(folder / name)
    for name in "ab":
        for number in range(2):
            paint(folder / "pets" / name / f"{number}.png")
    (folder / "lonely" / "class").mkdir(parents=True)
    (folder / "readme.txt").write_text("")
    assert available() == ["shapes", "cifar10", "lonely", "pets", "shapes.npz", "zoo.npz"]
    for name in ("shapes", "cifar10", "pets", "shapes.npz", "zoo.npz"):
        assert load_offered(name, train=2).name == name
    with pytest.raises(DataError, match="at least two classes"):
        load_offered("lonely")
    monkeypatch.setenv("RESNET_DATA_DIR", str(folder / "absent"))
    assert available() == list(DATASETS) == ["shapes", "cifar10"]


def test_offered_is_all_that_a_stranger_gets(folder: Path, tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.npz")
    save(folder / ".hidden.npz")
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
        with pytest.raises(DataError, match=r"no data set.*Choose shapes, cifar10"):
            load_offered(name)


@pytest.mark.parametrize("name", ["", "nothing", "/nowhere/x.npz", "a\0b", "x" * 5000, "~nobody-here/x"])
def test_unknown_names_give_a_sentence(folder: Path, name: str) -> None:
    with pytest.raises(DataError):
        load(name)


def test_load_makes_it_smaller(folder: Path, monkeypatch: pytest.MonkeyPatch, shapes: Dataset) -> None:
    monkeypatch.setitem(DATASETS, "shapes", lambda: shapes)
    one = load("shapes", size=16, train=50)
    assert one.train_images.shape == (50, 3, 16, 16)
    with pytest.raises(DataError, match="not 5000"):
        load("shapes", size=5000)


# ---------------------------------------------------------------- CIFAR-10


def test_cifar10_absent_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(DataError, match=r"not here yet.*python -m resnet data cifar10.*shapes"):
        load("cifar10")


@pytest.fixture
def real_cifar10(cifar10: Path) -> Dataset:
    return load("cifar10")


def test_real_cifar10(real_cifar10: Dataset) -> None:
    assert real_cifar10.train_images.shape == (50_000, 3, 32, 32)
    assert real_cifar10.train_labels.bincount().tolist() == [5000] * 10
    assert real_cifar10.test_labels.bincount().tolist() == [1000] * 10
    assert real_cifar10.class_names == cifar.CLASSES
    assert real_cifar10.source
    published = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    torch.testing.assert_close(real_cifar10.mean, published[0], atol=2e-3, rtol=0)
    torch.testing.assert_close(real_cifar10.std, published[1], atol=3e-3, rtol=0)


class _Server(http.server.ThreadingHTTPServer):
    """Serves one archive, half of it at most while `half` is not set."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.half, self.requests, self.cut, self.status = body, threading.Event(), 0, False, 200
        self.half.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests += 1
        self.do_HEAD()
        middle = len(self.server.body) // 2
        with contextlib.suppress(ConnectionError):  # torchvision looks for redirects by a request that it does not read
            self.wfile.write(self.server.body[:middle])
            self.wfile.flush()
            self.server.half.wait(30)
            self.wfile.write(self.server.body[middle:] if not self.server.cut else b"")

    def log_message(self, *_: object) -> None:
        pass


ONE_DOWNLOAD = 2  # requests: torchvision looks for redirects first
RECORDS = 20  # in each of the six members of the archive below


def archive_of(members: list[str]) -> tuple[bytes, np.ndarray]:
    """A tar.gz like the real one, and its records (6, RECORDS, 3073)."""
    records = np.random.default_rng(1).integers(0, 256, (6, RECORDS, 3073), dtype=np.uint8)
    records[:, :, 0] = np.arange(RECORDS) % 10
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, rows in zip(members, records, strict=False):
            info = tarfile.TarInfo(name)
            info.size = rows.size
            tar.addfile(info, io.BytesIO(rows.tobytes()))
    return buffer.getvalue(), records


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    body, _ = archive_of([*cifar.TRAIN, *cifar.TEST])
    server = _Server(body)
    monkeypatch.setattr(cifar, "URL", f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz")
    monkeypatch.setattr(cifar, "TICK", 0.01)
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serve(server, body, monkeypatch)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.half.set()
    server.shutdown()
    server.server_close()
    for running in threading.enumerate():
        if running.name == "cifar10-download":
            running.join(20)


def serve(server: _Server, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.body = body
    monkeypatch.setattr(cifar, "TOTAL", len(body))
    monkeypatch.setattr(cifar, "MD5", hashlib.md5(body, usedforsecurity=False).hexdigest())


def only_the_npz(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} - {".cifar10.lock"} == {"cifar10.npz"}


def nothing_left(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {".cifar10.lock"}


def test_download(folder: Path, server: _Server, capfd: pytest.CaptureFixture[str]) -> None:
    total = len(server.body)
    server.half.clear()
    seen = []
    for so_far, in_all in download_cifar10():
        assert in_all == total
        seen.append(so_far)
        if so_far >= total // 2 - 40_000:
            server.half.set()
    assert seen == sorted(seen)
    assert seen[-1] == total
    assert any(0 < so_far < total for so_far in seen)
    assert only_the_npz(folder)
    _, records = archive_of([])
    loaded = load("cifar10")
    assert np.array_equal(loaded.train_images.numpy(), records[:5, :, 1:].reshape(-1, 3, 32, 32))
    assert np.array_equal(loaded.test_images.numpy(), records[5, :, 1:].reshape(-1, 3, 32, 32))
    assert loaded.train_labels.tolist() == list(records[:5, :, 0].flat)
    assert loaded.source == "CIFAR-10, original pixels (Krizhevsky 2009)"
    assert loaded.class_names[3] == "cat"
    assert list(download_cifar10()) == [(total, total)]  # it is there
    assert server.requests == ONE_DOWNLOAD
    assert capfd.readouterr() == ("", "")


def test_download_with_a_wrong_checksum(folder: Path, server: _Server) -> None:
    server.body = server.body[:-1] + b"?"
    with pytest.raises(DataError, match=r"checksum is wrong.*Try again.*shapes"):
        list(download_cifar10())
    assert nothing_left(folder)


def test_download_cut_by_the_server_then_again(folder: Path, server: _Server) -> None:
    server.cut = True
    with pytest.raises(DataError, match=r"broke off at [\d,]+ of [\d,]+ bytes"):
        list(download_cifar10())
    assert nothing_left(folder)
    server.cut = False
    list(download_cifar10())
    assert only_the_npz(folder)
    assert load("cifar10").classes == 10


def test_download_after_a_killed_process(folder: Path, server: _Server) -> None:
    left = folder / ".cifar10-killed" / "cifar-10-binary.tar.gz"
    left.parent.mkdir()
    left.write_bytes(b"half of it")
    list(download_cifar10())
    assert only_the_npz(folder)


def test_two_downloads_at_once_are_one(folder: Path, server: _Server) -> None:
    server.half.clear()
    first, second = download_cifar10(), download_cifar10()
    while next(first)[0] == 0:
        pass
    assert next(second)[0] > 0  # it follows the first
    first.close()  # a page that was left: the download goes on
    server.half.set()
    assert list(second)[-1] == (len(server.body), len(server.body))
    assert server.requests == ONE_DOWNLOAD
    assert load("cifar10").classes == 10


def test_a_follower_takes_over_where_the_first_fails(folder: Path, server: _Server) -> None:
    server.half.clear()
    server.cut = True
    first, second = download_cifar10(), download_cifar10()
    next(first)
    next(second)
    server.half.set()
    with pytest.raises(DataError, match="broke off"):
        list(first)
    server.cut = False
    list(second)
    assert only_the_npz(folder)


def test_download_that_stands_still(folder: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.half.clear()
    monkeypatch.setattr(cifar, "STALL", 0.3)
    with pytest.raises(DataError, match="stands still"):
        list(download_cifar10())
    monkeypatch.undo()


def test_download_without_network(folder: Path, monkeypatch: pytest.MonkeyPatch, server: _Server) -> None:
    server.shutdown()
    server.server_close()  # nobody listens on its port now
    with pytest.raises(DataError, match=r"cannot be reached.*refused.*network.*shapes"):
        list(download_cifar10())
    assert nothing_left(folder)


def test_download_from_a_server_that_says_no(folder: Path, server: _Server) -> None:
    server.status = 503
    with pytest.raises(DataError, match="answered 503"):
        list(download_cifar10())


def test_download_onto_a_full_disk(folder: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(DataError, match=r"disk is full.*400 MB"):
            list(download_cifar10())
    assert nothing_left(folder)
    monkeypatch.setattr(cifar, "NEEDED", 10**18)
    with pytest.raises(DataError, match="disk is full"):
        list(download_cifar10())
    assert server.requests == ONE_DOWNLOAD  # the second time it is known beforehand


def test_download_into_a_place_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNET_DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match="cannot be saved in"):
        list(download_cifar10())


@pytest.mark.parametrize("members", [[], cifar.TRAIN, ["../evil.bin", *cifar.TRAIN]])
def test_archive_that_lacks_members(
    folder: Path, server: _Server, monkeypatch: pytest.MonkeyPatch, members: list[str]
) -> None:
    serve(server, archive_of(members)[0], monkeypatch)
    with pytest.raises(DataError, match="archive is not what it should be"):
        list(download_cifar10())
    assert nothing_left(folder)
    assert not (folder.parent / "evil.bin").exists()


def test_the_address_is_the_binary_version() -> None:
    assert cifar.URL.endswith("cifar-10-binary.tar.gz")
    assert (cifar.MD5, cifar.TOTAL) == ("c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)
    assert data.DataError is DataError
