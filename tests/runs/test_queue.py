"""What must not lose a run: a queue, two programs on one folder, a full disk, a removed folder, a clock set anew."""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.errors import Refused
from resnet.files import ROOT
from resnet.runs import process, queue, worker
from resnet.runs import store as runs
from resnet.runs.jobs import ACTIVE, Status
from resnet.runs.store import Run
from tests.support.tiny import (
    DEADLINE_S,
    LONG,
    RECIPE,
    TINY,
    assert_equal_results,
    child_of,
    job,
    log_of,
    uninterrupted,
    until,
)

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back", "no_worker_left")
ENDLESS = dataclasses.replace(LONG, epochs=1000)


def active(state: str, ticket: int, device: str = "cpu", host: str | None = None) -> Run:
    """A run that looks as if its worker were in `state`."""
    run = runs.create(job())
    status = run.write_status(Status(state, ticket=ticket, device=device))
    if host:
        text = (run.path / "status.json").read_text().replace(status.host, host)
        (run.path / "status.json").write_text(text)
    return run


@pytest.fixture
def all_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "alive", lambda self: True)


@pytest.mark.usefixtures("all_live")
def test_the_place_in_line_counts_the_jobs_of_this_device_that_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    active("running", 1)
    active("running", 1)  # its twin: one race is one job
    active("queued", 2)
    active("starting", 3, device="")  # may become one of this device
    active("running", 4, device="cuda")
    active("running", 5, host="elsewhere")
    active("finished", 6)
    mine = active("queued", 7)
    active("queued", 8)
    assert queue.Line(mine, "cpu").place() == 3
    assert queue.Line(mine, "cuda").place() == 2
    monkeypatch.setenv("RESNET_JOBS", "3")
    assert queue.Line(mine, "cpu").place() == 1
    monkeypatch.setenv("RESNET_JOBS", "4")
    assert queue.Line(mine, "cpu").place() == 0


@pytest.mark.usefixtures("all_live")
def test_who_waits_reads_again_only_what_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    over, first = active("finished", 1), active("running", 2)
    mine, later = active("queued", 3), active("queued", 4)
    line, read, status = queue.Line(mine, "cpu"), set[Run](), Run.status

    def noted(run: Run) -> Status:
        read.add(run)
        return status(run)

    monkeypatch.setattr(Run, "status", noted)
    assert line.place() == 1
    assert read == {over, first, mine, later}
    read.clear()
    assert line.place() == 1
    assert read == {first}
    over.write_status(Status("running", device="cpu"))  # by torchrun, outside the queue
    first.write_status(Status("finished", ticket=2, device="cpu"))
    assert line.place() == 1
    shutil.rmtree(over.path)
    assert line.place() == 0


@pytest.mark.parametrize(("text", "jobs"), [("", 1), ("0", 1), ("3", 3), ("many", 1), ("-2", 1)])
def test_the_owner_sets_the_jobs_per_device(text: str, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_JOBS", text)
    assert queue.jobs_per_device() == jobs


def test_tickets_rise_whatever_happens_to_their_file() -> None:
    assert [queue.next_ticket() for _ in range(3)] == [1, 2, 3]
    active("finished", 7)
    for damage in ("", "x"):
        (runs.runs_folder() / ".ticket").write_text(damage)
        assert queue.next_ticket() == 8
    (runs.runs_folder() / ".ticket").unlink()
    assert queue.next_ticket() == 8


def test_a_race_runs_together_and_the_next_waits_for_it_and_says_so() -> None:
    first = [runs.create(job(recipe=ENDLESS, group="race")) for _ in range(2)]
    process.start(*first)
    second, third = runs.create(job()), runs.create(job())
    process.start(second)
    process.start(third)
    assert [run.status().ticket for run in (*first, second, third)] == [1, 1, 2, 3]
    until(lambda: all(len(run.steps()) for run in first))
    until(lambda: third.status().state == "queued" and second.status().state == "queued")
    assert second.status().message == "Waiting for the CPU (next in line)."
    until(lambda: third.status().message == "Waiting for the CPU (number 2 in line).")
    assert len(second.steps()) == len(third.steps()) == 0
    third.request("stop")
    until(lambda: third.status().state == "stopped")
    for run in first:
        run.request("stop")
    until(lambda: second.status().state == "finished")
    assert {run.status().state for run in first} == {"stopped"}


def test_a_killed_job_gives_its_place_away_at_once() -> None:
    first, second = runs.create(job(recipe=ENDLESS)), runs.create(job())
    process.start(first)
    process.start(second)
    until(lambda: len(first.steps()) and second.status().state == "queued")
    child_of(first).kill()
    until(lambda: second.status().state == "finished")
    assert first.status().state == "crashed"


def test_of_two_programs_that_start_one_run_one_is_refused() -> None:
    run = runs.create(job(recipe=ENDLESS))
    code = "import sys; from resnet.runs import process, store; process.start(store.find(sys.argv[1]))"
    folder = ROOT
    both = [
        subprocess.Popen([sys.executable, "-c", code, run.id], stderr=subprocess.PIPE, cwd=folder, text=True)
        for _ in range(2)
    ]
    said = [program.communicate(timeout=DEADLINE_S)[1] for program in both]
    assert sorted(program.returncode for program in both) == [0, 1]
    assert "there is nothing to start." in "".join(said)
    until(lambda: len(run.steps()))
    assert run.status().state == "running"
    run.request("stop")
    until(lambda: run.status().state == "stopped")


def test_a_start_that_no_worker_follows_does_not_block_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(job())
    run.write_status(Status("starting", ticket=1))
    assert queue.Line(active("queued", 2), "cpu").place() == 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + runs.START_LIMIT_S + 1)
    assert queue.Line(active("queued", 2), "cpu").place() == 0


def test_a_clock_that_is_set_anew_makes_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(job(recipe=ENDLESS))
    now = time.time()
    process.start(run)
    for shift in (10 * 365 * 86400, -10 * 365 * 86400):
        monkeypatch.setattr(time, "time", lambda shift=shift: now + shift)
        assert run.status().state in ACTIVE
    until(lambda: len(run.steps()))
    assert run.status().state == "running"
    run.request("stop")
    until(lambda: run.status().state == "stopped")


@pytest.mark.parametrize("what", ["run", "runs"])
def test_a_folder_that_is_removed_ends_the_worker_and_brings_nothing_back(what: str) -> None:
    run = runs.create(job(recipe=ENDLESS))
    process.start(run)
    until(lambda: len(run.steps()))
    removed = run.path if what == "run" else runs.runs_folder()
    shutil.rmtree(removed, ignore_errors=True)
    shutil.rmtree(removed, ignore_errors=True)  # a file may have come in between
    assert child_of(run).wait(DEADLINE_S) in (0, 2)
    assert not (run.path / "run.json").exists()
    assert runs.all_runs() == []
    with pytest.raises(Refused, match="There is no run named"):
        runs.find(run.id)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A disk of 400 kB, for the runs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    return folder


def test_a_disk_that_is_really_full(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = uninterrupted(dataclasses.replace(LONG, epochs=3))
    try:
        monkeypatch.setenv("RESNET_RUNS_DIR", str(small_disk))
        run = runs.create(job(recipe=dataclasses.replace(LONG, epochs=3)))
        run.request("pause")
        worker.work(run.path)
        (run.path / "request").unlink()
        with contextlib.suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(500_000))
        kept = run.steps()
        assert worker.work(run.path).state == "failed"
        assert run.status().message.startswith("The disk is full. Make room and press Resume")
        assert np.array_equal(run.steps()[: len(kept)], kept)
        (small_disk / "filler").unlink()
        assert worker.work(run.path).state == "finished"
        assert_equal_results(run, reference)
    finally:
        subprocess.run(["umount", str(small_disk)], check=True)


def test_a_stop_ends_the_process_within_a_step_that_takes_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    large = dataclasses.replace(TINY, stem_width=64, image_size=256, shortcut="B")
    run = runs.create(job(net=large, recipe=dataclasses.replace(RECIPE, batch=64), threads=1))
    process.start(run)
    child = child_of(run)
    until(lambda: run.status().phase == "training", 180)
    run.request("stop")
    began = time.monotonic()
    until(lambda: child.poll() is not None)
    assert run.status().state == "stopped", log_of(run)
    assert time.monotonic() - began < DEADLINE_S
    assert not Path(f"/proc/{child.pid}/statm").exists()  # and with the process all that it held


def test_no_memory_for_a_batch_is_told() -> None:
    """A real refusal of the allocator, in a process whose memory is limited."""
    wide = dataclasses.replace(TINY, image_size=256, stem_width=512, shortcut="B")
    run = runs.create(job(net=wide, recipe=dataclasses.replace(RECIPE, batch=64)))
    code = (
        "import resource, sys; from pathlib import Path; from resnet.runs import worker;"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, used + 10**9)); worker.work(Path(sys.argv[1]))"
    )
    folder = ROOT
    subprocess.run([sys.executable, "-c", code, str(run.path)], cwd=folder, check=True, timeout=DEADLINE_S)
    assert run.status().state == "failed"
    assert run.status().message == worker.OUT_OF_MEMORY, log_of(run)


def test_a_gpu_without_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")

    run = runs.create(job())
    monkeypatch.setattr("resnet.nets.passes.F.cross_entropy", full)
    assert worker.work(run.path).state == "failed"
    assert run.status().message == worker.OUT_OF_MEMORY
    assert worker._Watch(run, alone=False).wish is None


# Recorded runs that come with the program


def test_a_recorded_run_is_found_and_read_and_neither_started_nor_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = uninterrupted(RECIPE)
    (run.path / "worker.lock").unlink()
    runs.SHIPPED.mkdir()
    recorded = Run(Path(shutil.move(run.path, runs.SHIPPED)))
    before = sorted(path.name for path in recorded.path.iterdir())
    assert runs.all_runs() == []
    assert runs.shipped() == runs.trained() == [recorded] == [runs.find(recorded.id)]
    assert recorded.shipped
    assert len(recorded.steps()) == 16
    with pytest.raises(Refused, match="can only be looked at"):
        process.start(recorded)
    with pytest.raises(Refused, match="cannot be deleted"):
        recorded.delete()
    assert sorted(path.name for path in recorded.path.iterdir()) == before
