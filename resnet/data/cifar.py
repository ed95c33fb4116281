"""CIFAR-10's download: the original binary archive, checked, turned into one cifar10.npz."""

import contextlib
import errno
import functools
import http.client
import os
import shutil
import tarfile
import tempfile
import threading
import time
import urllib.error
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from resnet.errors import Refused
from resnet.files import DISK_FULL

# The binary version: 10,000 records a member, each a label and 3 x 32 x 32 bytes. Nothing is unpickled or extracted.
URL, MD5 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
TOTAL, NEEDED = 170_052_171, 400_000_000  # bytes of the archive; of free disk for it and for the npz
RECORDS, RECORD = 10_000, 1 + 3 * 32 * 32
TRAIN = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
TEST = ["cifar-10-batches-bin/test_batch.bin"]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = "CIFAR-10, original pixels (Krizhevsky 2009)"
TICK, STALL = 0.2, 60.0  # seconds between two reports; without a new byte until we give up


class _Fetch(threading.Thread):
    """Downloads and converts while it holds `lock`; `error` is what went wrong."""

    def __init__(self, folder: Path, lock: FileLock) -> None:
        super().__init__(daemon=True, name="cifar10-download")
        self.folder, self.lock, self.error = folder, lock, None  # type: Path, FileLock, Exception | None

    def run(self) -> None:
        try:
            _fetch(self.folder)
        except Exception as error:  # noqa: BLE001 - handed to the generator, which raises it
            self.error = error
        finally:
            self.lock.release()


def download(folder: Path) -> Generator[tuple[int, int], None, None]:
    """Make folder/cifar10.npz; yields (bytes so far, bytes in all) about 5 times a second; Refused where it fails.

    Whoever calls while a download runs, here or in another process, follows that one. Closing the generator does not
    stop it; the end of the process does, and the next call starts afresh.
    """
    target, fetch, seen, since = folder / "cifar10.npz", None, 0, time.monotonic()
    _prepare(target)
    lock = FileLock(folder / ".cifar10.lock", thread_local=False)  # our thread releases it
    while not target.exists():
        if fetch is None and _acquire(lock):
            fetch = _Fetch(folder, lock)
            fetch.start()
        if fetch is not None and fetch.error is not None:
            raise _explained(fetch.error, folder) from None
        now = _so_far(folder)
        seen, since = (now, time.monotonic()) if now > seen else (seen, since)
        if seen < TOTAL and time.monotonic() - since > STALL:
            lock.release(force=True)  # nothing happens where another process holds it
            raise Refused(f"The download has been stuck at {seen / 1e6:.0f} MB for {STALL:.0f} s. {_advice(folder)}")
        yield min(seen, TOTAL), TOTAL
        fetch.join(TICK) if fetch is not None else time.sleep(TICK)
    if fetch is not None:
        fetch.join()  # it still removes the archive
    yield TOTAL, TOTAL


def _prepare(target: Path) -> None:
    folder = target.parent
    if target.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _explained(error, folder) from None
    if free < NEEDED:
        raise _explained(OSError(errno.ENOSPC, "full"), folder)


def _acquire(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    except OSError as error:
        raise _explained(error, Path(lock.lock_file).parent) from None
    return True


def _so_far(folder: Path) -> int:
    sizes = [0]
    for part in folder.glob(".cifar10-*"):
        with contextlib.suppress(FileNotFoundError):  # finished or failed, and removed, a moment ago
            sizes += [file.stat().st_size for file in part.iterdir() if file.suffix == ".gz"]
    return max(sizes)


def _fetch(folder: Path) -> None:
    """Everything happens in a folder of its own beside the target, which appears at once and complete."""
    if (folder / "cifar10.npz").exists():  # another process was faster
        return
    for left_over in folder.glob(".cifar10-*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=folder, ignore_cleanup_errors=True) as part:
        archive = Path(part) / "cifar-10-binary.tar.gz"
        _download(archive)
        with tarfile.open(archive) as tar:
            train, test = _read(tar, TRAIN), _read(tar, TEST)
        np.savez(
            Path(part) / "cifar10.npz",
            train_images=train[0],
            train_labels=train[1],
            test_images=test[0],
            test_labels=test[1],
            class_names=np.array(CLASSES),
            source=np.array(SOURCE),
        )
        os.replace(Path(part) / "cifar10.npz", folder / "cifar10.npz")


def _download(archive: Path) -> None:
    from torchvision.datasets import utils  # slow to import, needed only here

    quiet: Any = functools.partial(utils.tqdm, disable=True)  # its bar would run through ours
    utils.tqdm = quiet
    try:
        utils.download_url(URL, archive.parent, archive.name, MD5)
    except RuntimeError:  # torchvision's word for a wrong checksum, a cut connection included
        size = archive.stat().st_size if archive.exists() else 0
        raise Refused(_mismatch(size)) from None


def _mismatch(size: int) -> str:
    if size < TOTAL:
        return f"The download broke off at {size:,} of {TOTAL:,} bytes."
    return f"The download's checksum is wrong: these {size:,} bytes are not the archive with md5 {MD5}."


def _read(tar: tarfile.TarFile, members: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 32, 32, 3) and labels (N,) of the members, which are read, never extracted."""
    images = np.empty((len(members) * RECORDS, 32, 32, 3), np.uint8)
    labels = np.empty(len(images), np.uint8)
    for index, name in enumerate(members):
        part = slice(index * RECORDS, (index + 1) * RECORDS)
        file: IO[bytes] | None = tar.extractfile(name)
        raw = b"" if file is None else file.read(RECORDS * RECORD + 1)
        records = np.frombuffer(raw, np.uint8).reshape(RECORDS, RECORD)  # ValueError for any other length
        labels[part] = records[:, 0]
        images[part] = records[:, 1:].reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels


def _advice(folder: Path) -> str:
    return f"Try again, or put a cifar10.npz into {folder}, or choose the data set shapes."


def _explained(error: Exception, folder: Path) -> Refused:
    if isinstance(error, Refused):
        what = str(error)
    elif isinstance(error, OSError) and error.errno in DISK_FULL:
        what = f"The disk is full: CIFAR-10 needs {NEEDED / 1e6:.0f} MB in {folder}."
    elif isinstance(error, urllib.error.HTTPError):
        what = f"The server of CIFAR-10 answered {error.code} {error.reason} for {URL}."
    elif isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError | http.client.HTTPException):
        what = f"The server of CIFAR-10 cannot be reached ({getattr(error, 'reason', error)}): is there a network?"
    elif isinstance(error, OSError):
        what = f"CIFAR-10 cannot be saved in {folder} ({error.strerror or error})."
    else:
        what = f"CIFAR-10's archive has unexpected contents ({type(error).__name__}: {error})."
    return Refused(f"{what} {_advice(folder)}")
