"""Folders of runs: damaged, read-only, deleted by others, and named by strangers."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import AcquireReturnProxy, FileLock

from resnet.devices import cores
from resnet.errors import Refused
from resnet.nets.spec import PRESETS
from resnet.runs import store as runs
from resnet.runs import worker
from resnet.runs.jobs import Job, Status
from resnet.runs.store import Run
from resnet.runs.weights import load_model
from resnet.train.recipes import Recipe
from tests.support.tiny import RECIPE, assert_equal_results, job, uninterrupted

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back", "no_worker_left")


@pytest.mark.parametrize("torn", [1, 17, -1])
def test_torn_last_records_are_ignored_and_written_anew(torn: int) -> None:
    reference, run = uninterrupted(RECIPE), runs.create(job())
    run.request("pause")
    worker.work(run.path)
    (run.path / "request").unlink()
    size = run.record_type().itemsize
    with open(run.path / "steps.bin", "ab") as steps, open(run.path / "epochs.jsonl", "ab") as epochs:
        steps.write(bytes(torn % size))
        epochs.write(b'{"epoch": 1, "step": 8, "test_loss": 1.0, "test_accuracy": 0.5}'[: torn % 64])
    assert len(run.steps()) == 1
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


def test_a_whole_last_line_without_its_end_is_written_anew() -> None:
    reference, run = uninterrupted(RECIPE), runs.create(job())
    (run.path / "epochs.jsonl").write_text('{"epoch": 1, "step": 8, "test_loss": 1.0, "test_accuracy": 0.5}')
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


def test_a_lost_or_damaged_checkpoint_means_training_again_and_the_same_result() -> None:
    reference, run = uninterrupted(RECIPE), uninterrupted(RECIPE)
    (run.path / "checkpoint.safetensors").write_bytes(b"\x00" * 50)
    assert run.checkpoint_step() is None
    assert runs.trained() == [reference]
    with pytest.raises(Refused, match="has no checkpoint yet"):
        load_model(run)
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


def test_a_checkpoint_of_another_net_is_told() -> None:
    run = uninterrupted(RECIPE)
    text = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(text.replace('"classes": 3', '"classes": 4'))
    with pytest.raises(Refused, match="holds the weights of another net"):
        load_model(Run(run.path))


@pytest.mark.parametrize("lost", ["a hole", "zeros", "the end", "a test", "predictions"])
def test_records_lost_with_a_disk_are_trained_again(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is never ahead of the records; where it is all the same, the run begins anew, to the same end."""
    reference, run = uninterrupted(RECIPE), runs.create(job())
    with monkeypatch.context() as patch:
        patch.setattr(Run, "requested", lambda self: "paused" if len(self.steps()) == 8 else None)
        worker.work(run.path)
    worker.work(run.path)
    steps = run.steps()
    if lost == "a hole":
        steps = np.delete(steps, [3, 4])
    elif lost == "zeros":
        steps[12:] = np.zeros(4, steps.dtype)
    elif lost == "the end":
        steps = steps[:9]
    elif lost == "a test":
        (run.path / "epochs.jsonl").write_bytes(b"")
    else:
        (run.path / "predictions.bin").write_bytes(b"")
    (run.path / "steps.bin").write_bytes(steps.tobytes())
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


NO_STATUS = ["", "{", "[]", "5", "null", '{"state": "dancing"}', '{"state": 5}', '{"state": "paused", "mood": 1}']
NO_STATUS += ['{"state": "paused", "steps": "many"}', '{"state": "paused", "steps": 1e999}', "[" * 100_000, "\xff"]


@pytest.mark.parametrize("text", NO_STATUS, ids=lambda text: text[:30] or "empty")
def test_a_damaged_status_reads_as_failed_and_the_run_can_still_be_trained(text: str) -> None:
    run = runs.create(job())
    (run.path / "status.json").write_text(text, "latin-1")
    assert run.status().state == "failed"
    assert "status file is missing or damaged" in run.status().message


def test_a_missing_status_is_survived() -> None:
    run = uninterrupted(RECIPE)
    (run.path / "status.json").unlink()
    assert run.status().state == "failed"
    assert len(run.steps()) == 16
    assert runs.all_runs() == [run]
    assert worker.work(run.path).state == "finished"


@pytest.mark.parametrize("text", ["", "[]", "5", '{"layers": 5}', "{}"])
def test_without_info_no_record_is_guessed(text: str) -> None:
    run = uninterrupted(RECIPE)
    (run.path / "info.json").write_text(text)
    assert run.layers() == []
    assert len(run.steps()) == 0
    assert run.to_csv()


@pytest.mark.parametrize(
    "line", ["", "5", "null", "[1, 2]", '{"epoch": 1}', '{"epoch": "x", "step": 1}', "\xff", "{" * 9999]
)
def test_damaged_test_lines_are_skipped(line: str) -> None:
    run = runs.create(job())
    good = '{"epoch": 2, "step": 8, "test_loss": 1.0, "test_accuracy": 0.5}'
    (run.path / "epochs.jsonl").write_text(f"{line}\n{good}\n", "latin-1")
    assert run.epochs().to_dict("records") == [{"epoch": 2, "step": 8, "test_loss": 1.0, "test_accuracy": 0.5}]


@pytest.mark.parametrize(
    "change",
    [
        *[{"net": None}, {"net": []}, {"net": {"stages": []}}, {"recipe": 5}, {"data": None}, {"threads": "all"}],
        *[{"train_images": "all"}, {"device": 3}, {"more": 1}, {"group": None}],
    ],
    ids=str,
)
def test_a_damaged_run_is_not_listed_and_is_told_by_find(change: dict) -> None:
    run, whole = runs.create(job()), runs.create(job())
    values = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(values | change))
    assert runs.all_runs() == [whole]
    with pytest.raises(Refused, match=f"{run.id} cannot be read as a run"):
        runs.find(run.id)


def test_no_records_yet_are_empty_tables_and_a_csv_of_a_header() -> None:
    run = runs.create(job())
    assert len(run.steps()) == len(run.epochs()) == 0
    assert run.to_csv().startswith("step,loss,accuracy,lr,seconds,batch,epoch")
    run.request("pause")
    worker.work(run.path)
    assert len(run.to_csv().splitlines()) == 2  # one step, no test


def test_a_run_deleted_by_somebody_else_reads_as_empty() -> None:
    run = uninterrupted(RECIPE)
    run.delete()
    assert len(run.steps()) == len(run.epochs()) == 0
    assert run.checkpoint_step() is None
    assert run.created() == 0
    assert run.status().state == "failed"
    run.delete()
    assert not run.path.exists()


def test_a_finished_run_can_be_read_where_nothing_may_be_written() -> None:
    run = uninterrupted(RECIPE)
    (run.path / "worker.lock").unlink()  # as a recorded run that ships with the program
    before = sorted(path.name for path in run.path.iterdir())
    found = runs.find(run.id)
    assert found.status().state == "finished"
    assert (len(found.steps()), found.alive()) == (16, False)
    assert found.to_csv()
    load_model(found)
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_a_lock_that_may_not_be_touched_counts_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(job())
    (run.path / "worker.lock").touch()
    run.write_status(Status("running"))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    assert run.status().state == "crashed"
    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    assert run.status().state == "running"


def test_a_look_keeps_the_lock_from_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a worker may come, looks without a pause: it gets the lock at its first try."""
    run = runs.create(job())
    run.write_status(Status("starting"))
    monkeypatch.setattr(worker, "LOCK_PATIENCE_S", 0)
    acquire = FileLock.acquire

    def slow(lock: FileLock, timeout: float) -> AcquireReturnProxy:
        taken = acquire(lock, timeout)
        time.sleep(0.05)  # so that a look that takes the lock has it nearly always
        return taken

    monkeypatch.setattr(FileLock, "acquire", slow)
    over = threading.Event()

    def looks() -> None:
        while not over.is_set():
            run.status()

    lookers = [threading.Thread(target=looks) for _ in range(2)]
    try:
        (run.path / "worker.lock").touch()
        for looker in lookers:
            looker.start()
        assert worker.work(run.path).state == "finished"
    finally:
        over.set()
        for looker in lookers:
            looker.join()


OUTSIDE = ["", ".", "..", "../secret", "../../etc", "/etc", "a/../../secret", "a\\..\\secret", "secret/", "./secret"]
OUTSIDE += ["secret\0", "secret\n", "-rf", "~", "~root", "C:\\secret", "a" * 500, "%2e%2e", "file://x", ".hidden"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_find_takes_no_path(name: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "secret", tmp_path / "runs" / ".hidden", tmp_path / "runs"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(job().to_json())
    with pytest.raises(Refused, match=r"^There is no run named .* in the runs folder\.$"):
        runs.find(name)


def test_runs_of_one_second_that_draw_the_same_digits_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    drawn = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn) if size == 2 else f"{size:08}")
    first, second = runs.create(job()), runs.create(job())
    assert (first.id[-4:], second.id[-4:]) == ("aaaa", "bbbb")


def test_find_and_list_give_the_newest_first(tmp_path: Path) -> None:
    made = [runs.create(job()) for _ in range(3)]
    for age, run in enumerate(made):
        os.utime(run.path / "run.json", (1000 - age, 1000 - age))
    (tmp_path / "runs" / "junk").mkdir()
    (tmp_path / "runs" / "file").touch()
    assert runs.all_runs() == made
    assert [runs.find(run.id) for run in made] == made


def test_threads_are_shared() -> None:
    assert cores(1) >= cores(2) >= cores(10_000) == 1


def test_the_runs_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_RUNS_DIR", "~/somewhere")
    assert runs.runs_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("RESNET_RUNS_DIR")
    assert runs.runs_folder().parts[-2:] == ("resnet-explorer", "runs")


def test_a_net_for_clips_is_refused_before_a_folder_is_made() -> None:
    with pytest.raises(Refused, match=r"images, and this net reads clips or volumes\. Received 16 frames\. Choose"):
        runs.create(Job(PRESETS["ResNet3D-18"], "shapes", Recipe()))
    assert not runs.all_runs()
