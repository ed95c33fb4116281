"""Runs as the app has them: real worker processes that are killed, paused, stopped and deleted."""

import dataclasses
import errno
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resnet.errors import Refused
from resnet.nets.model import build
from resnet.runs import children, process, worker, writer
from resnet.runs import store as runs
from resnet.runs.jobs import ACTIVE, Status
from resnet.runs.prepare import prepare
from resnet.runs.store import Run
from resnet.runs.weights import load_model, save_checkpoint
from resnet.train.state import DivergedError, State
from tests.support.tiny import (
    DEADLINE_S,
    LONG,
    RECIPE,
    TINY,
    Killed,
    assert_equal_results,
    child_of,
    job,
    log_of,
    uninterrupted,
    until,
)

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back", "no_worker_left")

# Real processes


def test_killed_and_paused_in_the_middle_a_run_ends_as_if_nothing_had_happened() -> None:
    run = runs.create(job(recipe=LONG))
    process.start(run)
    until(run.alive)
    started = [child_of(run)]
    with pytest.raises(Refused, match="there is nothing to start"):
        process.start(run)
    until(lambda: len(run.steps()) >= 45)
    child_of(run).kill()
    child_of(run).wait()
    killed_at = len(run.steps())
    assert killed_at < 20 * 32, "finished before the kill"
    status = run.status()
    assert status.state == "crashed"
    assert status.message == (
        "The training process ended without an error message (killed, or out of memory). "
        "Resume goes on from its records."
    )
    kept = run.steps().copy()

    process.start(run)
    assert run.status().state in ACTIVE
    started.append(child_of(run))
    until(lambda: len(run.steps()) >= killed_at + 20)
    run.request("pause")
    until(lambda: run.status().state not in ACTIVE)
    assert run.status().state == "paused", log_of(run)
    assert killed_at < len(run.steps()) < 20 * 32
    assert run.checkpoint_step() == len(run.steps())
    assert np.array_equal(run.steps()[:killed_at], kept)

    process.start(run)
    started.append(child_of(run))
    *_, [last] = process.wait([run], poll_s=0.02)
    assert (last.state, last.message, last.steps, last.device) == ("finished", "", 20 * 32, "cpu"), log_of(run)
    with pytest.raises(Refused, match="is finished; there is nothing to start"):
        process.start(run)
    assert_equal_results(run, uninterrupted(LONG))
    until(lambda: run.status() and all(child.returncode is not None for child in started))
    assert not any(Path(f"/proc/{child.pid}").exists() for child in started)  # no zombie
    assert not children._workers, "nothing is kept of a worker that ended well"


def test_a_run_that_is_deleted_while_it_trains_is_gone_and_so_is_its_process() -> None:
    run = runs.create(job(recipe=dataclasses.replace(LONG, epochs=1000)))
    process.start(run)
    child = child_of(run)
    until(lambda: len(run.steps()))
    run.delete()
    assert not run.path.exists()
    assert child.wait(DEADLINE_S) == 0
    assert not run.path.exists()
    assert runs.all_runs() == []
    with pytest.raises(Refused, match="There is no run"):
        runs.find(run.id)


def test_a_worker_that_cannot_import_torch_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    run = runs.create(job())
    process.start(run)
    until(lambda: run.status().state != "starting")
    assert run.status().state == "crashed"
    assert "did not start; worker.log in the run's folder may say why" in run.status().message
    assert "torch" in log_of(run)


# The same worker in this process


def test_a_finished_run_has_all_records_and_weights() -> None:
    run = uninterrupted(RECIPE)
    status = run.status()
    assert (status.state, status.message, status.phase, status.steps, status.device) == ("finished", "", "", 16, "cpu")
    assert status.host == socket.gethostname()
    assert run.checkpoint_step() == 16
    assert run.info()["class_names"] == ["0", "1", "2"]
    assert (run.info()["train_images"], run.info()["test_images"]) == (64, 40)
    assert run.layers() == ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2", "fc"]
    assert run.steps()["norms"].shape == (16, 6)
    assert (run.steps()["norms"] > 0).all()
    weights = load_model(run).state_dict()
    saved = load_file(run.path / "checkpoint.safetensors")
    assert all(torch.equal(value, saved[f"model.{name}"]) for name, value in weights.items())
    table = run.to_csv().splitlines()
    assert len(table) == 17
    assert table[0].startswith("step,loss,accuracy,lr,seconds,batch,grad_norm conv1,")
    assert "grad_norm fc,update_to_weight conv1," in table[0]
    assert [row for row in table[1:] if not row.endswith(",,,")] == [table[8], table[16]]
    assert not list(run.path.glob(".*.part"))


@pytest.mark.parametrize("moment", ["replace", "write"])
@pytest.mark.parametrize("every_s", [-1, 20], ids=["checkpoint each step", "checkpoint each epoch"])
def test_a_kill_at_any_replaced_file_loses_and_doubles_nothing(
    monkeypatch: pytest.MonkeyPatch, moment: str, every_s: int
) -> None:
    """Dies before each os.replace (or after half of each .part) in turn, and is resumed after each."""
    reference = uninterrupted(RECIPE)
    monkeypatch.setattr(writer, "CHECKPOINT_EVERY_S", every_s)
    run, kills, left = runs.create(job()), 0, 0
    replace, write = os.replace, Path.write_bytes

    def dying_replace(old: Path, new: Path) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        replace(old, new)

    def dying_write(path: Path, content: bytes) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            write(path, content[: len(content) // 2])
            raise Killed
        return write(path, content)

    monkeypatch.setattr(
        *((os, "replace", dying_replace) if moment == "replace" else (Path, "write_bytes", dying_write))
    )
    while True:
        left = kills % 9 + 4  # the first three tell the status and the info
        try:
            assert worker.work(run.path).state == "finished"
            break
        except Killed:
            kills += 1
            assert kills < 60
        left = 0
        assert run.status().state in ("crashed", "starting")
        assert len(list(run.path.glob(".checkpoint.*.part"))) <= 1
    assert kills > 2
    assert_equal_results(run, reference)


def test_a_kill_between_the_last_step_of_an_epoch_and_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = uninterrupted(RECIPE)
    run = runs.create(job())

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("resnet.train.loop._scores", killed)
        with pytest.raises(Killed):
            worker.work(run.path)
    assert (len(run.steps()), len(run.epochs()), run.checkpoint_step()) == (8, 0, None)
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


@pytest.mark.parametrize(
    ("step", "precision"), [(1, "fp32"), (7, "fp32"), (8, "fp32"), (9, "fp32"), (16, "fp32"), (5, "bf16")]
)
def test_a_pause_after_any_step_resumes_exactly(step: int, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(RECIPE, precision=precision)
    reference = uninterrupted(recipe)
    run = runs.create(job(recipe=recipe))
    with monkeypatch.context() as patch:
        patch.setattr(Run, "requested", lambda self: "paused" if len(self.steps()) == step else None)
        assert worker.work(run.path).state == "paused"
    assert (len(run.steps()), run.checkpoint_step()) == (step, step)
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


@pytest.mark.parametrize(("what", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_request_is_taken_after_the_step_and_taken_back_by_a_start(
    what: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(job())
    run.request(what)
    assert worker.work(run.path).state == run.status().state == state
    assert len(run.steps()) == 1
    monkeypatch.setattr(children, "_workers", {})
    monkeypatch.setattr(
        subprocess, "Popen", lambda *_, **__: SimpleNamespace(poll=lambda: None, kill=print, wait=print)
    )
    process.start(run)
    assert run.requested() is None
    assert run.status().state == "starting"


REUSE = """
import resource, torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    before = faults()
    step = [torch.ones(2**23) for _ in range(3)]  # 32 MiB each, like a large net's activations
    step = []
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="KEEP_MEMORY is for glibc")
def test_a_worker_keeps_the_memory_that_a_step_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []

    def started(*_: Any, env: dict[str, str], **__: Any) -> SimpleNamespace:
        given.append(env)
        return SimpleNamespace(poll=lambda: None, kill=print, wait=print)

    with monkeypatch.context() as patched:
        patched.setattr(children, "_workers", {})
        patched.setattr(subprocess, "Popen", started)
        process.start(runs.create(job()))

    def page_faults(environment: dict[str, str]) -> int:
        return int(subprocess.check_output([sys.executable, "-c", REUSE], env=environment, text=True))

    assert page_faults(given[0]) < 100 < 10_000 < page_faults(dict(os.environ))


def test_only_pause_and_stop_can_be_asked_for() -> None:
    run = runs.create(job())
    with pytest.raises(Refused, match="pause or stop"):
        run.request("explode")
    for garbage in (b"", b"\xff\xfe", b"explode"):
        (run.path / "request").write_bytes(garbage)
        assert run.requested() is None


def test_a_second_worker_on_a_run_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOCK_PATIENCE_S", 0.1)
    run = runs.create(job())
    with run.lock().acquire():
        assert run.alive()
        with pytest.raises(Refused, match="is being trained by another process"):
            worker.work(run.path)
        with pytest.raises(Refused, match="there is nothing to start"):
            process.start(run)
        with pytest.raises(Refused, match="is still busy"):
            run.delete(patience_s=0.1)
    assert len(run.steps()) == 0
    assert not run.alive()


def test_a_worker_whose_run_was_deleted_before_it_came_up_makes_no_folder() -> None:
    run = runs.create(job())
    run.delete()
    with pytest.raises(Refused, match="There is no run in"):
        worker.work(run.path)
    assert not run.path.exists()


def test_a_worker_that_never_comes_up_is_crashed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(job())
    assert run.status().state == "stopped"
    run.write_status(Status("starting"))
    assert run.status().state == "starting"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + runs.START_LIMIT_S + 1)
    assert run.status().state == "crashed"


def test_a_run_begins_with_the_weights_that_it_was_given(tmp_path: Path) -> None:
    given, drawn = build(TINY, seed=9).state_dict(), build(TINY, RECIPE.seed).state_dict()
    body = {name: value for name, value in given.items() if not name.startswith("fc.")}
    save_file(body, tmp_path / "body.safetensors")
    run = runs.create(job(start="a body"), tmp_path / "body.safetensors")
    *_, state = prepare(run, "cpu", "fp32")
    begun = state.model.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in body.items())
    assert all(torch.equal(begun[name], drawn[name]) for name in ("fc.weight", "fc.bias"))
    assert worker.work(run.path).state == "finished"


@pytest.mark.parametrize("content", [None, b"", {"conv1.weight": torch.zeros(1)}, {"other": torch.zeros(1)}])
def test_a_run_without_the_weights_that_it_was_given_fails(content: object, tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    run = runs.create(job(start="a body"), tmp_path / "none.safetensors")
    (run.path / "start.safetensors").unlink()
    if isinstance(content, dict):
        save_file(content, run.path / "start.safetensors")
    elif isinstance(content, bytes):
        (run.path / "start.safetensors").write_bytes(content)
    assert worker.work(run.path).state == "failed"
    assert "begins with are missing, damaged or another net's" in run.status().message


# Failures end in a sentence

FAILURES: dict[str, tuple[dict, str]] = {
    "no data": ({"data": "gone.npz"}, "There is no data set 'gone.npz' here."),
    "a path": ({"data": "../data/tiny.npz"}, "There is no data set '../data/tiny.npz' here."),
    "channels": ({"net": dataclasses.replace(TINY, in_channels=1)}, "The net reads 1 channels and has 3 classes"),
    "classes": ({"net": dataclasses.replace(TINY, classes=10)}, "has 3 channels and 3 classes."),
    "device": ({"device": "abacus"}, "must be one of this machine. Received 'abacus'. Choose "),
}


@pytest.mark.parametrize(("changes", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_a_state_with_a_sentence(changes: dict, message: str) -> None:
    run = runs.create(job(**changes))
    assert worker.work(run.path).state == "failed"
    assert run.status().state == "failed"
    assert message in run.status().message
    assert run.status().message.endswith(".")
    assert run.checkpoint_step() is None


@pytest.mark.parametrize(
    ("change", "listed", "message"),
    [
        ({"speed": 1, "lr": 0.2}, True, "has fields that this version of the program does not know. Received speed."),
        ({"lr": 1e9}, False, "lr must be a number from 1e-06 to 10. Received 1000000000.0."),
    ],
)
def test_a_recipe_of_another_version_is_not_trained_with_parts_left_out(
    change: dict, listed: bool, message: str
) -> None:
    run = runs.create(job())
    values = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(values | {"recipe": values["recipe"] | change}))
    assert runs.all_runs() == ([run] if listed else [])
    assert worker.work(run.path).state == "failed"
    assert message in run.status().message


def test_a_full_disk_fails_with_a_sentence_and_the_run_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, run = uninterrupted(RECIPE), runs.create(job())
    with monkeypatch.context() as patch:
        write = Path.write_bytes

        def full(path: Path, content: bytes) -> int:
            if not path.name.startswith(".checkpoint"):
                return write(path, content)
            write(path, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, "write_bytes", full)
        assert worker.work(run.path).state == "failed"
    assert run.status().message == (
        "The disk is full. Make room and press Resume: the run goes on from its last checkpoint."
    )
    assert not list(run.path.glob(".*.part"))
    assert worker.work(run.path).state == "finished"
    assert_equal_results(run, reference)


def test_divergence_leaves_the_last_good_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_EVERY_S", -1)
    run = runs.create(job())
    loss = torch.nn.functional.cross_entropy
    calls = 0

    def breaking(*args: Any, **options: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss(*args, **options) * (torch.nan if calls == 5 else 1)

    monkeypatch.setattr("resnet.nets.passes.F.cross_entropy", breaking)
    assert worker.work(run.path).state == "failed"
    assert "The loss became nan at step 5. Choose a learning rate below 0.1." in run.status().message
    assert run.checkpoint_step() == len(run.steps()) == 4
    assert all(value.isfinite().all() for value in load_file(run.path / "checkpoint.safetensors").values())


def test_weights_that_are_not_finite_are_never_saved() -> None:
    run = uninterrupted(RECIPE)
    state = State(build(TINY), RECIPE)
    torch.nn.init.constant_(state.model.fc.bias, torch.inf)  # type: ignore[arg-type, union-attr]
    with pytest.raises(DivergedError, match="no longer finite at step 0"):
        save_checkpoint(run, state)
    assert run.checkpoint_step() == 16


def test_data_that_changed_under_a_paused_run_are_refused(tiny_data: Path) -> None:
    run = runs.create(job())
    run.request("pause")
    worker.work(run.path)
    (run.path / "request").unlink()
    fields = dict(np.load(tiny_data))
    np.savez(tiny_data, **{k: v[:60] if k.startswith("train") else v for k, v in fields.items()})
    assert worker.work(run.path).state == "failed"
    assert "began with 64 training images of tiny.npz, and now there are 60." in run.status().message
    assert run.info()["train_images"] == 64
