"""Arrays of pictures: what is read, and hostile files."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnet.data import npz, sizes
from resnet.data.dataset import load
from resnet.errors import Refused
from tests.support.pictures import save, small


def test_npz_round_trip(data_dir: Path) -> None:
    masks = {f"{part}_masks": np.arange(n * 81).reshape(n, 9, 9) % 7 == 0 for part, n in (("train", 12), ("test", 6))}
    names = np.array(["cat", "dog", "köttbulle"])
    loaded = load(save(data_dir / "a.npz", class_names=names, source=np.array("My camera."), **masks))
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
def test_npz_like_medmnist(data_dir: Path, axes: tuple[int, ...], dtype: str) -> None:
    grey = {f"{part}_images": small()[f"{part}_images"][..., 0].reshape(-1, 9, 9, *axes) for part in ("train", "test")}
    labels = {f"{part}_labels": small()[f"{part}_labels"].astype(dtype)[:, None] for part in ("train", "test")}
    extra = {"val_images": np.zeros(3), "val_labels": np.zeros(3)}
    loaded = load(save(data_dir / "grey.npz", **grey, **labels, **extra), size=12)
    assert loaded.train_images.shape == (12, 1, 12, 12)
    assert loaded.train_labels.tolist() == [0, 1, 2] * 4
    assert (loaded.class_names, loaded.source) == (("0", "1", "2"), "")


def test_npz_in_fortran_order_and_compressed(data_dir: Path) -> None:
    arrays = small()
    arrays["train_images"] = np.asfortranarray(arrays["train_images"])
    np.savez_compressed(data_dir / "f.npz", **arrays)
    assert torch.equal(load("f.npz").train_images, load(save(data_dir / "c.npz")).train_images)


BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"test_labels": None, "test_images": None}, "lacks test_images, test_labels.*Found train_images"),
    "float": ({"train_images": np.zeros((12, 9, 9, 3))}, "train_images must be uint8.*float64"),
    "16 bit": ({"train_images": np.zeros((12, 9, 9, 3), np.uint16)}, "train_images must be uint8.*uint16"),
    "oblong": ({"train_images": np.zeros((12, 9, 10, 3), np.uint8)}, "train_images must be square.*9 x 10"),
    "planes first": ({"train_images": np.zeros((12, 3, 9, 9), np.uint8)}, r"must be \(N, H, W\)"),
    "flat": ({"train_images": np.zeros((12, 243), np.uint8)}, r"must be \(N, H, W\)"),
    "empty": (
        {"test_images": np.zeros((0, 9, 9, 3), np.uint8), "test_labels": np.zeros(0, int)},
        "test_images is empty",
    ),
    "tiny": ({"train_images": np.zeros((12, 4, 4, 3), np.uint8)}, "8 to 1,024 pixels"),
    "two sizes": ({"test_images": np.zeros((6, 12, 12, 3), np.uint8)}, "same shape"),
    "lengths": ({"train_labels": np.zeros(11, int)}, "each of the 12 images"),
    "many labels": ({"train_labels": np.zeros((12, 14), int)}, "one number for each"),
    "float labels": ({"train_labels": np.zeros(12)}, "train_labels must be integers.*float64"),
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
def test_bad_npz_gives_a_sentence(data_dir: Path, name: str) -> None:
    changes, words = BAD_NPZ[name]
    with pytest.raises(Refused, match=rf"(?s)bad\.npz.*{words}"):
        load(save(data_dir / "bad.npz", **changes))


def test_npz_that_is_something_else(data_dir: Path) -> None:
    path = data_dir / "x.npz"
    good = Path(save(data_dir / "good.npz")).read_bytes()
    for raw in (b"", b"some text", good[: len(good) // 2], good[:4000] + b"!!!!" + good[4004:]):
        path.write_bytes(raw)
        with pytest.raises(Refused, match=r"x\.npz"):
            load(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        for key in small():
            archive.writestr(f"{key}.npy", b"not an array")
    with pytest.raises(Refused, match=r"x\.npz cannot be read"):
        load(str(path))


class _Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("key", ["train_images", "train_labels", "class_names", "source", "val_images"])
def test_npz_is_never_unpickled(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    bomb = np.empty(12, object)
    bomb[:] = [_Bomb(tmp_path / "exploded")] * 12
    path = save(data_dir / "bomb.npz", **{key: bomb})
    if key == "val_images":  # not ours, not read
        load(path)
    else:
        with pytest.raises(Refused, match="objects are never read"):
            load(path)
        monkeypatch.setattr(npz, "_check_headers", lambda headers: None)  # the reader refuses them too
        with pytest.raises(Refused, match="allow_pickle=False"):
            load(path)
    raw = pickle.dumps(bomb)
    with zipfile.ZipFile(path, "w") as archive:  # a bare pickle, which numpy.load would take for one
        for name in small():
            archive.writestr(f"{name}.npy", raw)
    with pytest.raises(Refused):
        load(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(raw)  # noqa: S301 - the bomb is a real one
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("shape", [(10**9, 1024, 1024, 3), (-12, 9, 9, -3), (2**62, 9, 9, 2**62)])
@pytest.mark.parametrize("key", ["train_images", "train_labels", "class_names"])
def test_absurd_shapes_are_refused_before_reading(data_dir: Path, shape: tuple[int, ...], key: str) -> None:
    header = io.BytesIO()
    descr = {"train_images": "|u1", "train_labels": "<i8", "class_names": "<U9"}[key]
    np.lib.format.write_array_header_2_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    np.savez(data_dir / "absurd.npz", **small(**{key: None}))
    with zipfile.ZipFile(data_dir / "absurd.npz", "a") as archive:
        archive.writestr(f"{key}.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(Refused, match=r"absurd\.npz"):
        load("absurd.npz")


def test_a_header_that_promises_more_than_there_is(data_dir: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<U9", "fortran_order": False, "shape": (10**6,)})
    path = save(data_dir / "a.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("class_names.npy", header.getvalue() + b"\0" * 100)
    with pytest.raises(Refused, match=r"class_names should be.*the file has 100 bytes"):
        load(path)


def test_an_npz_larger_than_memory_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "memory_limit", lambda: 4000)
    with pytest.raises(Refused, match=r"a\.npz: Pictures may take .*arrays"):
        load(save(data_dir / "a.npz"))
