"""Arrays of pictures: what is read, and hostile files."""

import io
import os
import pickle
import re
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


def both(change: Callable[[np.ndarray], np.ndarray], thing: str = "images") -> dict[str, Any]:
    return {f"{part}_{thing}": change(small()[f"{part}_{thing}"]) for part in ("train", "test")}


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_val", "Y_val"),
        ("images_train", "labels_train", "images_valid", "labels_valid"),
        ("train_data", "train_targets", "validation_data", "validation_targets"),
        ("Train-Images", "TRAIN_LABELS", "Test-Images", "TEST_LABELS"),
        ("trainX", "trainY", "testX", "testY"),
        ("training_img", "training_label", "dev_img", "dev_label"),
        ("train_set_x", "train_set_y", "test_set_x", "test_set_y"),
        ("images", "labels", "test_images", "test_labels"),
        ("X", "y", "X_val", "y_val"),
    ],
)
def test_npz_with_other_key_names(data_dir: Path, keys: tuple[str, ...]) -> None:
    np.savez(data_dir / "a.npz", **dict(zip(keys, small().values(), strict=True)))
    loaded, plain = load("a.npz"), load(save(data_dir / "plain.npz"))
    assert torch.equal(loaded.train_images, plain.train_images)
    assert torch.equal(loaded.test_labels, plain.test_labels)
    assert any(keys[2] in note for note in loaded.notes) == ("est" not in keys[2])  # val is named


def test_npz_with_test_and_val(data_dir: Path) -> None:
    extra = {"val_images": np.zeros(3), "val_labels": np.zeros(3), "extra": np.zeros(3)}
    assert load(save(data_dir / "a.npz", **extra)).notes == ("Not read: val_images, val_labels, extra.",)
    assert load(save(data_dir / "b.npz")).notes == ()


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("X", "Y"), ("data", "target")])
def test_npz_without_parts_holds_out_every_fifth(data_dir: Path, keys: tuple[str, str]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (24, 9, 9, 3), np.uint8)
    labels = np.array([0] * 10 + [1] * 13 + [2])
    arrays: dict[str, Any] = {keys[0]: images, keys[1]: labels, "masks": images[..., 0] > 99}
    np.savez(data_dir / "a.npz", **arrays)
    loaded = load("a.npz")
    assert torch.bincount(loaded.test_labels).tolist() == [2, 3]  # ceil(n / 5), and none of a class of one
    assert torch.bincount(loaded.train_labels).tolist() == [8, 10, 1]
    seen = torch.cat([loaded.train_images, loaded.test_images]).permute(0, 2, 3, 1).numpy()
    assert {picture.tobytes() for picture in seen} == {picture.tobytes() for picture in images}
    assert loaded.test_masks is not None
    assert torch.equal(loaded.test_masks, loaded.test_images[:, 0] > 99)
    assert "Every 5th picture" in loaded.notes[0]


PIXELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], str]] = {
    "0 to 1": (lambda x: (x / 255).astype(np.float32), lambda x: x, "float32, in 0 to 1"),
    "half": (lambda x: (x / 255).astype(np.float16), lambda x: x, "float16, in 0 to 1"),
    "-1 to 1": (lambda x: x / 127.5 - 1, lambda x: x, "float64, in -1 to 1"),
    "floats to 255": (lambda x: x + 0.4 - 0.4 * (x == 255), lambda x: x, "float64, in 0 to 255"),
    "0 to 1 but for rounding": (
        lambda x: (x / 255 * 1.0000003 - 1e-7).astype(np.float32),
        lambda x: x,
        "float32, in 0 to 1",
    ),
    "0 and 1": (lambda x: (x > 99).astype(np.uint8), lambda x: 255 * (x > 99), "uint8, in 0 to 1"),
    "int64": (lambda x: x.astype(np.int64), lambda x: x, "int64, in 0 to 255"),
    "big-endian": (lambda x: x.astype(">u2"), lambda x: x, "uint16, in 0 to 255|>u2, in 0 to 255"),
    "12 bits": (lambda x: x.astype(np.uint16) * 16, lambda x: x, "0 to 4,080.*uint16"),
    "Hounsfield": (lambda x: x.astype(np.int16) * 4 - 1000, lambda x: x, "-1,000 to 20"),
    "bool": (lambda x: x > 99, lambda x: 255 * (x > 99), "bool"),
    "first": (lambda x: x.transpose(0, 3, 1, 2), lambda x: x, "3 channels first"),
    "grey first": (lambda x: x[:, None, ..., 0], lambda x: x[:, :1], "1 channels first"),
    "two": (lambda x: x[..., :2], lambda x: x[:, :2], "2 channels"),
    "64": (lambda x: np.tile(x, 22)[..., :64], lambda x: np.tile(x, (1, 22, 1, 1))[:, :64], "64 channels"),
    "eight first": (
        lambda x: np.tile(x, 3)[..., :8].transpose(0, 3, 1, 2),
        lambda x: np.tile(x, (1, 3, 1, 1))[:, :8],
        "8 channels first.*8 channels",
    ),
    "opaque": (lambda x: np.pad(x, ((0, 0),) * 3 + ((0, 1),), constant_values=255), lambda x: x, "transparency"),
    "half clear": (
        lambda x: np.pad(x, ((0, 0),) * 3 + ((0, 1),), constant_values=102),
        lambda x: np.round(x * 0.4 + 255 * 0.6),
        "transparency",
    ),
    "floats with alpha": (
        lambda x: np.pad(x / 255, ((0, 0),) * 3 + ((0, 1),)),
        lambda x: np.full_like(x, 255),
        "in 0 to 1.*transparency",
    ),
    "four bands": (
        lambda x: np.pad(x.astype(np.uint16) * 16, ((0, 0),) * 3 + ((0, 1),)),
        lambda x: np.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))),
        "0 to 4,080.*4 channels",
    ),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_of_every_range_and_order(data_dir: Path, name: str) -> None:
    change, expected, words = PIXELS[name]
    whole = both(lambda x: x)
    for images in whole.values():
        images[0, 0, 0], images[0, 0, 1] = 0, 255  # so that the own range is known
    loaded = load(save(data_dir / "a.npz", **{key: change(images) for key, images in whole.items()}))
    for part, images in (("train", loaded.train_images), ("test", loaded.test_images)):
        wanted = expected(whole[f"{part}_images"].transpose(0, 3, 1, 2))
        assert np.array_equal(images.numpy(), wanted.astype(np.uint8))
    assert re.search(words, " ".join(loaded.notes))


def test_the_training_pictures_range_scales_the_test_pictures(data_dir: Path) -> None:
    train = np.full((12, 9, 9), 1000, np.uint16)
    train[0, 0, 0], test = 2000, np.full((6, 9, 9), 1500, np.uint16)
    test[0, 0, :3] = 0, 1250, 9000
    loaded = load(save(data_dir / "a.npz", train_images=train, test_images=test))
    assert loaded.test_images[0, 0, 0, :4].tolist() == [0, 64, 255, 128]


CATS = np.array(["owl", "cat", "dog"])
LABELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...], list[int], str]] = {
    "from 1": (lambda y: y + 1, ("1", "2", "3"), [0, 1, 2], "from 1 to 3"),
    "words": (lambda y: CATS[y], ("cat", "dog", "owl"), [2, 0, 1], "words: 3 classes"),
    "bytes": (lambda y: CATS[y].astype("S"), ("cat", "dog", "owl"), [2, 0, 1], "words"),
    "words in a column": (lambda y: CATS[y][:, None], ("cat", "dog", "owl"), [2, 0, 1], "words"),
    "one-hot": (lambda y: np.eye(3)[y], ("0", "1", "2"), [0, 1, 2], "rows of 3"),
    "one-hot bool": (lambda y: np.eye(3, dtype=bool)[y], ("0", "1", "2"), [0, 1, 2], "rows of 3"),
    "floats": (lambda y: y.astype(np.float32)[:, None], ("0", "1", "2"), [0, 1, 2], ""),
    "with a gap": (lambda y: y * 2, ("0", "1", "2", "3", "4"), [0, 2, 4], "2 of 5 classes.*: 1, 3."),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_every_kind(data_dir: Path, name: str) -> None:
    change, names, numbers, words = LABELS[name]
    loaded = load(save(data_dir / "a.npz", **both(change, "labels")))
    assert loaded.class_names == names
    assert loaded.train_labels.tolist() == numbers * 4
    assert loaded.test_labels.tolist() == numbers * 2
    assert loaded.test_labels.dtype == torch.int64
    assert re.search(words, " ".join(loaded.notes))
    assert bool(loaded.notes) == bool(words)


def test_class_names_order_words_and_keep_numbers(data_dir: Path) -> None:
    words = load(save(data_dir / "a.npz", **both(lambda y: CATS[y], "labels"), class_names=CATS))
    assert (words.class_names, words.train_labels[:3].tolist()) == (("owl", "cat", "dog"), [0, 1, 2])
    shifted = load(save(data_dir / "b.npz", **both(lambda y: y + 1, "labels"), class_names=CATS.astype("S")))
    assert (shifted.class_names, shifted.train_labels[:3].tolist()) == (("owl", "cat", "dog"), [0, 1, 2])
    four = np.array(["none", "a", "b", "c"])
    kept = load(save(data_dir / "c.npz", **both(lambda y: y + 1, "labels"), class_names=four))
    assert (kept.class_names, kept.train_labels[:3].tolist()) == (tuple(four), [1, 2, 3])


NAN = np.where(np.arange(12 * 81).reshape(12, 9, 9) % 100 == 0, np.nan, 0.5)
BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"test_labels": None, "test_images": None}, "lacks test_images, test_labels.*Found train_images"),
    "floats beyond": (
        {"train_images": np.full((12, 9, 9, 3), 300.5)},
        r"-1 to 1, or 0 to 255.*300\.5 to 300\.5",
    ),
    "just over 1": (both(lambda x: x / 255 * 1.05), r"0 to 255 with some of 16 or more.*0\.0 to 1\.05"),
    "standardised": (both(lambda x: x / 50 - 2.5), r"0 to 1, -1 to 1, or 0 to 255.*-2\.5 to"),
    "two ranges": (both(lambda x: x / 255 if len(x) > 6 else x + 0.5 - (x > 254)), "all in the same"),
    "two ranges turned": (both(lambda x: x / 255 if len(x) == 6 else x / 1.0), "all in the same"),
    "nan": ({"train_images": NAN, "test_images": NAN[:6]}, "train_images has 10 numbers that are NaN"),
    "complex": ({"train_images": np.zeros((12, 9, 9, 3), complex)}, "train_images must be numbers.*complex128"),
    "oblong": ({"train_images": np.zeros((12, 9, 10, 3), np.uint8)}, "until.*rectangles.*9, 10"),
    "oblong first": ({"train_images": np.zeros((12, 3, 9, 10), np.uint8)}, "until.*rectangles.*9, 10"),
    "oblong grey": ({"train_images": np.zeros((12, 9, 10), np.uint8)}, "until.*rectangles.*9, 10"),
    "volumes": ({"train_images": np.zeros((12, 9, 9, 9), np.uint8)}, "volumes.*until this program trains on them"),
    "oblong volumes": ({"train_images": np.zeros((12, 16, 20, 24), np.uint8)}, "volumes.*until"),
    "volumes of colour": ({"train_images": np.zeros((12, 9, 9, 9, 1), np.uint8)}, "volumes.*until"),
    "65 channels": ({"train_images": np.zeros((12, 9, 9, 65), np.uint8)}, "up to 64 channels"),
    "pictures last": (
        {"train_images": np.zeros((9, 9, 3, 70), np.uint8), "train_labels": np.zeros(70, int)},
        r"along the last axis.*np\.moveaxis.*9, 9, 3, 70",
    ),
    "flat": ({"train_images": np.zeros((12, 243), np.uint8)}, r"must be \(N, S, S\)"),
    "empty": (
        {"test_images": np.zeros((0, 9, 9, 3), np.uint8), "test_labels": np.zeros(0, int)},
        "test_images is empty",
    ),
    "tiny": ({"train_images": np.zeros((12, 4, 4, 3), np.uint8)}, "8 to 1,024 pixels"),
    "two sizes": ({"test_images": np.zeros((6, 12, 12, 3), np.uint8)}, "same shape"),
    "lengths": ({"train_labels": np.zeros(11, int)}, "each of the 12 images"),
    "many labels": ({"train_labels": np.zeros((12, 14), int)}, "several labels for each picture"),
    "several ones": ({"train_labels": np.eye(14)[:12] + np.eye(14)[1:13]}, "several labels for each picture"),
    "shares": ({"train_labels": np.full((12, 2), 0.5)}, "several labels for each picture"),
    "fractions": ({"train_labels": np.arange(12) / 2}, "whole numbers or words"),
    "nan labels": ({"train_labels": np.full(12, np.nan)}, "whole numbers or words"),
    "words and numbers": ({"train_labels": CATS[np.arange(12) % 3]}, "words in all parts"),
    "other words": ({"train_labels": CATS[np.arange(12) % 3], "test_labels": np.array(["eel"] * 6)}, "none of 'eel'"),
    "negative": ({"train_labels": np.arange(12) - 1}, "count from 0.*-1 to 10"),
    "enormous": ({"train_labels": np.arange(12) + 2**40}, "count from 0"),
    "beyond names": ({"class_names": np.array(["a", "b"])}, "Label 2 is out of range"),
    "beyond images": ({"test_labels": np.arange(6) * 100}, "Label 500 is out of range"),
    "one class": ({"train_labels": np.zeros(12, int), "test_labels": np.zeros(6, int)}, "at least two classes"),
    "objects": ({"class_names": np.array(["a", None, "c"], object)}, "class_names must be text.*never read"),
    "numbers for names": ({"class_names": np.arange(3)}, "class_names must be text"),
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


@pytest.mark.parametrize("header", [b"{'descr': '|u1', 'shape': (12L,", b"{" * 500, b"{'descr': 7}", b"\xff\n"])
def test_headers_that_cannot_be_read(data_dir: Path, header: bytes) -> None:
    path = save(data_dir / "a.npz", train_images=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(Refused, match=r"a\.npz cannot be read"):
        load(path)


def test_an_npz_larger_than_memory_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "memory_limit", lambda: 4000)
    with pytest.raises(Refused, match=r"a\.npz: Pictures may take .*arrays"):
        load(save(data_dir / "a.npz"))
    arrays = both(lambda x: (x / 255).astype(np.float32))
    needed = 18 * 243 * 5 + 18  # as floats and as bytes, and the labels
    monkeypatch.setattr(sizes, "memory_limit", lambda: needed)
    load(save(data_dir / "b.npz", **arrays))
    monkeypatch.setattr(sizes, "memory_limit", lambda: needed - 1)
    with pytest.raises(Refused, match=r"b\.npz: Pictures may take"):
        load("b.npz")
