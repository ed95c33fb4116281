"""CIFAR-10: the real one where this machine has it, and a download from a server on this machine."""

import errno
import hashlib
import io
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.data import cifar
from resnet.data.dataset import Dataset, download_cifar10, load
from resnet.errors import Refused
from tests.support.server import Server


def test_cifar10_absent_says_how_to_get_it(data_dir: Path) -> None:
    with pytest.raises(Refused, match=r"not here yet.*python -m resnet data cifar10.*shapes"):
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
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    body, _ = archive_of([*cifar.TRAIN, *cifar.TEST])
    monkeypatch.setattr(cifar, "TICK", 0.01)
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(body) as server:
        monkeypatch.setattr(cifar, "URL", server.url("cifar-10-binary.tar.gz"))
        serve(server, body, monkeypatch)
        yield server
    for running in threading.enumerate():
        if running.name == "cifar10-download":
            running.join(20)


def serve(server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    server.body = body
    monkeypatch.setattr(cifar, "TOTAL", len(body))
    monkeypatch.setattr(cifar, "MD5", hashlib.md5(body, usedforsecurity=False).hexdigest())


def only_the_npz(data_dir: Path) -> bool:
    return {path.name for path in data_dir.iterdir()} - {".cifar10.lock"} == {"cifar10.npz"}


def nothing_left(data_dir: Path) -> bool:
    return {path.name for path in data_dir.iterdir()} <= {".cifar10.lock"}


def test_download(data_dir: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
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
    assert only_the_npz(data_dir)
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


def test_download_with_a_wrong_checksum(data_dir: Path, server: Server) -> None:
    server.body = server.body[:-1] + b"?"
    with pytest.raises(Refused, match=r"checksum is wrong.*Try again.*shapes"):
        list(download_cifar10())
    assert nothing_left(data_dir)


def test_download_cut_by_the_server_then_again(data_dir: Path, server: Server) -> None:
    server.cut = True
    with pytest.raises(Refused, match=r"broke off at [\d,]+ of [\d,]+ bytes"):
        list(download_cifar10())
    assert nothing_left(data_dir)
    server.cut = False
    list(download_cifar10())
    assert only_the_npz(data_dir)
    assert load("cifar10").classes == 10


def test_download_after_a_killed_process(data_dir: Path, server: Server) -> None:
    left = data_dir / ".cifar10-killed" / "cifar-10-binary.tar.gz"
    left.parent.mkdir()
    left.write_bytes(b"half of it")
    list(download_cifar10())
    assert only_the_npz(data_dir)


def test_two_downloads_at_once_are_one(data_dir: Path, server: Server) -> None:
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


def test_a_follower_takes_over_where_the_first_fails(data_dir: Path, server: Server) -> None:
    server.half.clear()
    server.cut = True
    first, second = download_cifar10(), download_cifar10()
    next(first)
    next(second)
    server.half.set()
    with pytest.raises(Refused, match="broke off"):
        list(first)
    server.cut = False
    list(second)
    assert only_the_npz(data_dir)


def test_download_that_gets_stuck(data_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.half.clear()
    monkeypatch.setattr(cifar, "STALL", 0.3)
    with pytest.raises(Refused, match="stuck at"):
        list(download_cifar10())
    monkeypatch.undo()


def test_download_without_network(data_dir: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    server.shutdown()
    server.server_close()  # nobody listens on its port now
    with pytest.raises(Refused, match=r"cannot be reached.*refused.*network.*shapes"):
        list(download_cifar10())
    assert nothing_left(data_dir)


def test_download_from_a_server_that_says_no(data_dir: Path, server: Server) -> None:
    server.status = 503
    with pytest.raises(Refused, match="answered 503"):
        list(download_cifar10())


def test_download_onto_a_full_disk(data_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(Refused, match=r"disk is full.*400 MB"):
            list(download_cifar10())
    assert nothing_left(data_dir)
    monkeypatch.setattr(cifar, "NEEDED", 10**18)
    with pytest.raises(Refused, match="disk is full"):
        list(download_cifar10())
    assert server.requests == ONE_DOWNLOAD  # the second time it is known beforehand


def test_download_into_a_place_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNET_DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(Refused, match="cannot be saved in"):
        list(download_cifar10())


@pytest.mark.parametrize("members", [[], cifar.TRAIN, ["../evil.bin", *cifar.TRAIN]])
def test_archive_that_lacks_members(
    data_dir: Path, server: Server, monkeypatch: pytest.MonkeyPatch, members: list[str]
) -> None:
    serve(server, archive_of(members)[0], monkeypatch)
    with pytest.raises(Refused, match="archive has unexpected contents"):
        list(download_cifar10())
    assert nothing_left(data_dir)
    assert not (data_dir.parent / "evil.bin").exists()


def test_progress_is_read_while_the_download_removes_its_folder(tmp_path: Path) -> None:
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=tmp_path) as part:
                (Path(part) / "archive.gz").write_bytes(b"12345")

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        sizes = {cifar._so_far(tmp_path) for _ in range(3000)}
    finally:
        done.set()
        writer.join()
    assert sizes <= {0, 5}


def test_the_address_is_the_binary_version() -> None:
    assert cifar.URL.endswith("cifar-10-binary.tar.gz")
    assert (cifar.MD5, cifar.TOTAL) == ("c32a1d4ab5d03f1284b67883e8d87530", 170_052_171)
