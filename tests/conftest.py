"""What all tests share: runs of their own, and real CIFAR-10 where this machine has it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resnet.data.dataset import data_folder
from resnet.runs import children
from resnet.runs import store as runs
from tests.support import tiny

if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1:
    torch.set_num_threads(max(1, torch.get_num_threads() // (processes + 1)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: workers take whole files in this order, and short files fill up the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def runs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or leaves a run in the user's folder, and none sees those that come with the program."""
    monkeypatch.setenv("RESNET_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def cifar10() -> Path:
    """The real cifar10.npz; a skip without it, a failure where RESNET_REQUIRE_CIFAR10 is set."""
    path = data_folder() / "cifar10.npz"
    if not path.exists():
        if os.environ.get("RESNET_REQUIRE_CIFAR10"):
            pytest.fail(f"RESNET_REQUIRE_CIFAR10 is set, and there is no {path}")
        pytest.skip(f"no {path}")
    return path


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("RESNET_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def tiny_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only data set is tiny.npz (`tiny.write_data`)."""
    monkeypatch.setenv("RESNET_DATA_DIR", str(tmp_path / "data"))
    return tiny.write_data(tmp_path / "data")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Surfaces and leagues are kept in a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def threads_back() -> Iterator[None]:
    """A worker in the test's own process sets PyTorch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_worker_left() -> Iterator[None]:
    yield
    for child in children._workers.values():
        if child.poll() is None:
            child.kill()
            child.wait()
    children._workers.clear()
