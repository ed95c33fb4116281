"""What the tests of pages share: an empty data folder, a trained pair, runs without processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pages.ui import work
from resnet.nets.spec import plain_twin
from resnet.runs import process
from resnet.runs import store as runs
from resnet.runs.jobs import Job
from resnet.runs.store import Run
from resnet.runs.worker import work as train
from resnet.train.recipes import Recipe
from resnet.work.scheduler import Scheduler
from tests.support.pages import TINY
from tests.support.work import Here


@pytest.fixture(autouse=True)
def data_of_its_own(data_dir: Path, own_cache: None) -> Path:
    """The empty data folder of this test."""
    return data_dir


@pytest.fixture(autouse=True)
def work_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    """In this process instead of others, and before the page goes on."""
    here = Scheduler(worker=Here)
    monkeypatch.setattr(work, "scheduler", lambda: here)
    monkeypatch.setattr(work, "WAIT_S", 60.0)
    yield here
    here.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a tiny residual net and its plain twin, trained for two steps on shapes."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = Recipe(epochs=1, batch=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNET_RUNS_DIR", str(folder))
        for net in (TINY, plain_twin(TINY)):
            run = runs.create(Job(net, "shapes", recipe, train_images=64, group="pair"))
            assert train(run.path).state == "finished"
    return folder


@pytest.fixture
def pair(trained: Path) -> list[Run]:
    """The residual and the plain run in this test's own runs folder."""
    shutil.copytree(trained, runs.runs_folder())
    return sorted(runs.all_runs(), key=lambda run: run.job.net.plain)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that the page starts, without their processes."""
    found: list[Run] = []
    monkeypatch.setattr(process, "start", lambda *some: found.extend(some))
    return found
