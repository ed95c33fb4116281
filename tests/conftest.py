"""What all tests share: runs of their own, and real CIFAR-10 where this machine has it."""

import os
from pathlib import Path

import pytest

from resnet.data import data_folder


@pytest.fixture(autouse=True)
def runs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or leaves a run in the user's folder."""
    monkeypatch.setenv("RESNET_RUNS_DIR", str(tmp_path / "runs"))


@pytest.fixture
def cifar10() -> Path:
    """The real cifar10.npz; a skip without it, a failure where RESNET_REQUIRE_CIFAR10 is set."""
    path = data_folder() / "cifar10.npz"
    if not path.exists():
        if os.environ.get("RESNET_REQUIRE_CIFAR10"):
            pytest.fail(f"RESNET_REQUIRE_CIFAR10 is set, and there is no {path}")
        pytest.skip(f"no {path}")
    return path
