"""Files of weights as bytes: what is in them, and hostile, damaged and other files."""

import argparse
import collections
import io
import json
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from resnet.errors import Refused
from resnet.exports.forms import export
from resnet.nets.model import build
from resnet.zoo import weights
from resnet.zoo.weights import read
from tests.support.weights import TINY, random_tensors, saved

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
    with pytest.raises(Refused, match=r"no whole file of weights|an empty file"):
        read(data[: int(len(data) * left)])


@pytest.mark.parametrize("left", [0.01, 0.5, 0.99])
def test_truncated_safetensors(left: float) -> None:
    data = safetensors.torch.save(random_tensors(build(TINY)))
    with pytest.raises(Refused, match="no whole file of weights"):
        read(data[: int(len(data) * left)])


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def arrays(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.zeros(3))
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.zeros(1, 2),)), buffer)
    return buffer.getvalue()


INDEX = {"metadata": {"total_size": 1}, "weight_map": {"conv1.weight": "model-00001-of-00002.safetensors"}}
WRONG: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "an empty file"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "a Git LFS pointer"),
    "a web page": (b"<!DOCTYPE html><html>Sign in to download</html>", "a web page"),
    "a web page in other words": (b"\n <html><body>404</body></html>", "a web page"),
    "an XML answer": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "an index": (json.dumps(INDEX).encode(), "the index of a net in several files"),
    "JSON": (b'{"fc.weight": [1, 2]}', "JSON"),
    "text": (b"Not Found", "text, which begins 'Not Found'"),
    "a photo": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "a PDF": (b"%PDF-1.7\n", "a PDF"),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "gzip"),
    "a tar archive": (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
    "a Keras model": (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "ONNX": (export("onnx", TINY, build(TINY)), "a protobuf, as ONNX"),
    "a NumPy array": (arrays(np.save), "a NumPy array"),
    "NumPy arrays": (arrays(np.savez), r"NumPy arrays \(\.npz\)"),
    "TorchScript": (scripted(), "a TorchScript program"),
    "torch.export": (exported(), r"torch\.export \(\.pt2\)"),
    "a zip": (deflated(2**16), "a zip archive"),
    "other bytes": (bytes(range(128, 200)), "begins with the bytes 80 81 82 83"),
    "a list": (saved([torch.zeros(2)]), "Received list"),
    "a tensor": (saved(torch.zeros(2)), "Received Tensor"),
    "an empty dict": (saved({}), "Received a dict without tensors"),
    "a number": (saved({"fc.weight": 1}), "Received a dict without tensors"),
    "numbered": (saved({3: torch.zeros(2)}), "Received a dict without tensors"),
    "a module in a dict": (saved({"net": nn.Linear(2, 3), "epoch": 1}), "Save its state_dict"),
    "a module": (saved(nn.Linear(2, 3)), r"whole pickled net \(torch\.nn\.modules\.linear\.Linear\)"),
    "sparse": (saved({"fc.weight": torch.eye(3).to_sparse()}), "dense real numbers"),
    "complex": (saved({"fc.weight": torch.zeros(2, dtype=torch.complex64)}), "dense real numbers"),
    "meta": (saved({"fc.weight": torch.zeros(2, device="meta")}), "dense real numbers"),
    "objects in an array": (saved({"a": np.array([None, 3]), "w": torch.zeros(2)}), "NumPy array of kind 'O8'"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
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
    assert list(read(saved({"fc.weight": torch.zeros(2)})).tensors) == ["fc.weight"]


class Windows:
    """Pickled as a path on Windows is."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return pathlib.PureWindowsPath, ("C:\\", "runs")


BESIDE: dict[str, Any] = {
    "options": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
    "a scalar": np.float64(91.2),
    "an integer": np.int64(3),
    "an array": np.arange(5.0),
    "words": np.array(["cat", "dog"]),
    "a path": pathlib.Path("runs"),
    "a path on Windows": Windows(),
    "an OrderedDict": collections.OrderedDict(a=1),
    "a Counter": collections.Counter("abc"),
    "a dtype": np.dtype("float32"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", BESIDE)
def test_what_training_scripts_save_beside_weights_is_named_and_left_out(what: str, zipped: bool) -> None:
    tensors = random_tensors(build(TINY))
    found = read(saved({"state_dict": tensors, what: BESIDE[what], "epoch": 9}, zipped))
    assert {name.removeprefix("state_dict/") for name in found.tensors} - {what} == tensors.keys()
    assert all(torch.equal(found.tensors[f"state_dict/{name}"], value) for name, value in tensors.items())
    assert set(found.others) == {what, "epoch"} - set(found.tensors)


def test_numpy_arrays_are_weights_too() -> None:
    tensors = random_tensors(build(TINY))
    found = read(saved({name: value.numpy() for name, value in tensors.items()}))
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())


def test_an_array_that_claims_more_than_the_file_holds_takes_no_memory() -> None:
    data = saved({"w": torch.zeros(2), "array": np.zeros(3, np.uint8)})
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    claim = members[name].replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85", 1)  # a shape of (3,) -> (2^31 - 1,)
    assert claim != members[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for member, content in members.items():
            new.writestr(member, claim if member == name else content)
    with pytest.raises(Refused, match="cut off or damaged"):
        read(buffer.getvalue())


def with_pickle(program: bytes) -> bytes:
    """A file of torch.save whose pickle is this program."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(2)}))) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


def test_a_bytearray_of_any_size_is_not_made() -> None:
    with pytest.raises(Refused, match="Received a bytearray"):
        read(with_pickle(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."))


def test_a_container_that_holds_itself_comes_once() -> None:
    endless: list[object] = []
    endless.append(endless)
    found = read(saved({"state_dict": {"w": torch.zeros(2)}, "log": endless}))
    assert (list(found.tensors), found.others) == (["state_dict/w"], ("log",))


def test_another_pickle_protocol_is_said() -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, pickle_protocol=4)
    with pytest.raises(Refused, match="saved with another pickle protocol"), pytest.warns(match="pickle protocol 4"):
        read(buffer.getvalue())
