"""Event files of a run, read back by TensorBoard itself."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resnet.cli.main import main
from resnet.runs import tensorboard
from resnet.runs.store import Run
from tests.support.tiny import RECIPE, uninterrupted


@pytest.fixture
def run(tiny_data: Path, threads_back: None) -> Run:
    """Two epochs of 8 steps."""
    return uninterrupted(RECIPE)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_record_comes_back(run: Run, tmp_path: Path) -> None:
    found, steps, tested = read(tensorboard.write(run, tmp_path / "out").parent), run.steps(), run.epochs()
    layers = [f"{kind}/{name}" for kind in ("grad_norm", "update_to_weight") for name in run.layers()]
    assert set(found) == {"train/loss", "train/accuracy", "train/lr", "test/loss", "test/accuracy", *layers}
    for tag, column in [("train/loss", "loss"), ("train/accuracy", "accuracy"), ("train/lr", "lr")]:
        assert found[tag] == [(int(row["step"]), pytest.approx(float(row[column]))) for row in steps]
    assert found["test/accuracy"] == [(row.step, pytest.approx(row.test_accuracy)) for row in tested.itertuples()]
    assert found["test/loss"] == [(row.step, pytest.approx(row.test_loss)) for row in tested.itertuples()]
    for number, name in enumerate(run.layers()):
        for kind, column in [("grad_norm", "norms"), ("update_to_weight", "updates")]:
            wanted = [(int(row["step"]), pytest.approx(float(row[column][number]), rel=1e-5)) for row in steps]
            assert found[f"{kind}/{name}"] == wanted


def test_long_runs_keep_every_step_but_average_the_layers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "POINTS", 4)
    found, steps = read(tensorboard.write(run, tmp_path / "out").parent), run.steps()
    assert len(found["train/loss"]) == len(steps) == 16
    name = run.layers()[-1]
    groups = np.log(steps["norms"][:, -1].astype(float)).reshape(4, 4)
    means = [(4 * (row + 1), pytest.approx(np.exp(group.mean()), rel=1e-5)) for row, group in enumerate(groups)]
    assert found[f"grad_norm/{name}"] == means


def test_times_are_those_of_the_training(run: Run, tmp_path: Path) -> None:
    path = tensorboard.write(run, tmp_path / "out")
    events = EventAccumulator(str(path.parent), size_guidance={"scalars": 0}).Reload().Scalars("train/loss")
    between = np.diff([event.wall_time for event in events])
    np.testing.assert_allclose(between, run.steps()["seconds"][1:], atol=1e-5)
    assert events[0].wall_time == pytest.approx(run.created() + run.steps()["seconds"][0], abs=1e-3)


def test_a_run_without_records_gives_a_file_that_can_be_read(run: Run, tmp_path: Path) -> None:
    for name in ("steps.bin", "epochs.jsonl"):
        (run.path / name).unlink()
    assert read(tensorboard.write(run, tmp_path / "out").parent) == {}


def test_the_archive_has_a_folder_for_each_run(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(tensorboard.zipped([run]))) as archive:
        assert archive.namelist() == [f"{run.id}/{tensorboard.FILE_NAME}"]
        archive.extractall(tmp_path / "out")
    assert len(read(tmp_path / "out" / run.id)["train/loss"]) == 16


def test_the_command_writes_where_it_is_told(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tensorboard", run.id, "--out", str(tmp_path / "out")]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "out" / run.id / tensorboard.FILE_NAME
    assert "train/loss" in read(tmp_path / "out" / run.id)
    assert main(["tensorboard", "nothing", "--out", str(tmp_path / "out")]) == 2
