"""The table of started workers keeps no more than a status has to know."""

import subprocess
import sys
from pathlib import Path

import pytest

from resnet.runs import children


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_workers", {})


def worker(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)


def done(code: str) -> subprocess.Popen:
    made = worker(code)
    made.communicate()
    return made


def test_a_worker_is_known_from_its_start_to_its_end(tmp_path: Path) -> None:
    living = worker("input()")
    children.add(tmp_path, 1.5, living)
    assert children.ended(tmp_path) == {1.5: False}
    assert children.ended(tmp_path / "another") == {}
    living.communicate(b"\n")
    assert children.ended(tmp_path) == {}


def test_of_workers_that_failed_the_last_of_each_run_is_kept(tmp_path: Path) -> None:
    for started in (1.0, 2.0):
        children.add(tmp_path, started, done("exit(3)"))
    assert children.ended(tmp_path) == {2.0: True}
    assert len(children._workers) == 1
    children.add(tmp_path, 3.0, done(""))
    assert children.ended(tmp_path) == {}
    assert not children._workers


def test_of_deleted_runs_no_worker_is_kept(tmp_path: Path) -> None:
    children.add(tmp_path / "deleted", 1.0, done("exit(3)"))
    children.ended(tmp_path)
    assert not children._workers
