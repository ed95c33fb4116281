"""`python -m resnet` as a person types it: exit codes, sentences instead of tracebacks, Ctrl-C."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from resnet.cli.main import main
from resnet.files import ROOT
from resnet.nets.codes import from_code
from resnet.nets.model import build
from resnet.runs import process
from resnet.runs import store as runs
from resnet.runs.jobs import Status
from resnet.train.recipes import RECIPES, SETTINGS, Setting
from tests.support.tiny import TINY_CODE, job, until

TRAIN = ["train", "--net", TINY_CODE, "--data", "tiny.npz", "--batch", "8", "--device", "cpu", "--threads", "1"]


pytestmark = pytest.mark.usefixtures("tiny_data")


def test_profile_prints_the_published_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "ResNet-20"]) == 0
    out = capsys.readouterr().out
    assert "269,722 params, 40,551,040 MACs" in out
    assert "81,102,080 FLOPs" in out


WRONG = {
    "net": (["profile", "VGG-3"], "No net has this name. Received 'VGG-3'. Choose a known one; the nearest are "),
    "depth": (["profile", "ResNet-21"], "No net has this name. Received 'ResNet-21'."),
    "net to train": (["train", "--net", "nonsense"], "No ResNet has this name."),
    "data": (["train", "--data", "nonsense"], "There is no data set 'nonsense'."),
    "no images": ([*TRAIN, "--train", "0"], "At least one training image is needed. Received 0."),
    "size": ([*TRAIN, "--size", "3"], "Pictures must be 8 to 1,024 pixels wide and high. Received 3."),
    "rate": ([*TRAIN, "--lr", "99"], "lr must be a number from 1e-06 to 10. Received 99.0."),
    "schedule": ([*TRAIN, "--schedule", "linear"], "schedule must be one of one-cycle, steps, cosine, constant."),
    "run": (["resume", "../../etc"], "There is no run named '../../etc' in the runs folder."),
    "convention": (["profile", "ResNet-20", "--count", "me"], "The convention must be one this program knows."),
    "form": (["export", "ResNet-20", "caffe"], "The form must be one this program knows. Received 'caffe'."),
    "quantity": (["compare", "ResNet-20", "ResNet-50", "--what", "time"], "The quantity must be one this program"),
    "net to compare": (["compare", "ResNet-20", "ResNet-21"], "No net has this name."),
    "two nets": (["export", "resnext101", "spec"], "More than one net goes by this name. Received 'resnext101'."),
    "block": (["budget", "--block", "brick"], "The block must be one this program knows. Received 'brick'."),
    "budget": (["budget", "--params", "-1"], "A budget's params is a whole number. Received -1."),
    "folder": (["work", "nonsense"], "There is no run in nonsense."),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert error.startswith(sentence)
    assert error.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], [*TRAIN, "--epochs", "1.5"], [*TRAIN, "--device", "abacus"], ["budget", "--macs", "inf"]],
)
def test_arguments_that_cannot_be_read_are_exit_2_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_runs_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESNET_RUNS_DIR", str(tmp_path / "file" / "runs"))
    assert main(TRAIN) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_a_named_recipe_is_taken_and_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "start", lambda *found: [run.write_status(Status("finished")) for run in found])
    assert main([*TRAIN, "--recipe", "paper", "--batch", "16", "--nesterov"]) == 0
    [run] = runs.all_runs()
    assert run.job.recipe == dataclasses.replace(RECIPES["paper"], batch=16, nesterov=True)


def test_a_recipe_brings_its_net_and_images_unless_others_are_named(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "start", lambda *found: [run.write_status(Status("finished")) for run in found])
    command = ["train", "--data", "tiny.npz", "--recipe", "minute"]
    monkeypatch.setitem(SETTINGS, "minute", Setting("ResNet-56", 32, 16))
    assert main(command) == 0
    assert main([*command, "--net", TINY_CODE, "--train", "16", "--size", "8"]) == 0
    made = {run.job.net.depth: run.job for run in runs.all_runs()}
    assert (made[56].train_images, made[56].net.image_size, made[56].recipe) == (32, 16, RECIPES["minute"])
    other = made[min(made)]
    assert (other.train_images, other.net.image_size) == (16, 8)


def test_a_folder_named_like_a_data_set_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.npz").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "start", lambda *found: [run.write_status(Status("finished")) for run in found])
    assert main([*TRAIN, "--twin"]) == 0
    made = runs.all_runs()
    assert [run.job.data for run in made] == ["tiny.npz", "tiny.npz"]
    assert sorted(run.job.net.plain for run in made) == [False, True]
    assert made[0].job.group == made[1].job.group != ""


def test_train_finishes_and_the_run_shows_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--epochs", "2", "--no-augment"]) == 0
    out = capsys.readouterr().out
    [run] = runs.all_runs()
    assert str(run.path) in out
    assert "epoch 2, step 16, test accuracy " in out
    assert ": finished." in out
    assert run.job.recipe.augment is False
    assert main(["runs"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{run.id}  finished ")
    assert "16/16" in line
    assert main(["resume", run.id]) == 2
    assert "there is nothing to start" in capsys.readouterr().err


def heed_sigint() -> None:
    """What a background job of a shell starts ignores the signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_pauses_the_run() -> None:
    command = [sys.executable, "-m", "resnet", *TRAIN, "--epochs", "1000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_sigint) as process:
        until(lambda: any(len(run.steps()) for run in runs.all_runs()), process=process)
        os.kill(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=90)
    [run] = runs.all_runs()
    assert (process.returncode, error) == (0, "")
    assert ": paused." in out
    assert run.status().state == "paused"
    assert run.checkpoint_step() == len(run.steps()) > 0


def test_profile_counts_as_others_do_and_knows_relatives(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "ResNet-50", "--count", "keras-params"]) == 0
    assert "Keras' parameters: 25,636,712 params" in capsys.readouterr().out
    assert main(["profile", "VGG-16"]) == 0
    assert "138,357,544 params" in capsys.readouterr().out
    assert main(["profile", "FCN ResNet-50"]) == 0
    assert "input 3 x 520 x 520" in capsys.readouterr().out


def test_export_writes_a_file_with_the_weights_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(from_code(TINY_CODE), seed=7)
    given, out = tmp_path / "given.safetensors", tmp_path / "out.safetensors"
    save_file(model.state_dict(), given)
    assert main(["export", TINY_CODE, "weights", "--weights", str(given), "--out", str(out)]) == 0
    assert "does not say how images are prepared" in capsys.readouterr().err
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in load_file(out).items())
    assert main(["export", "ResNet-20", "weights", "--weights", str(given), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "layer2.0.conv1.weight" in told
    assert "does not hold the weights of ResNet-20" in told
    given.write_bytes(b"no weights")
    assert main(["export", TINY_CODE, "weights", "--weights", str(given), "--out", str(out)]) == 2
    assert "no file of weights but text" in capsys.readouterr().err
    source = tmp_path / "net.py"
    assert main(["export", TINY_CODE, "pytorch", "--out", str(source)]) == 0
    compile(source.read_text(), "net.py", "exec")


def heavy_after(*arguments: str) -> set[str]:
    """What of the heavy packages `python -m resnet` has imported by its end."""
    code = "import sys; from resnet.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"torch", "torchvision", "captum", "onnxscript"} & set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["dance"], ["runs"]], ids=" ".join)
def test_help_mistakes_and_the_list_of_runs_import_no_torch(arguments: list[str]) -> None:
    runs.create(job())
    assert heavy_after(*arguments) == set()


def test_compare_prints_costs_and_what_makes_up_the_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ResNet-50", "ResNet-50-D", "--what", "params"]) == 0
    out = capsys.readouterr().out
    assert "shortcut: B -> D" in out
    assert re.search(r"ResNet-50 +3 x 224 x 224 +50 +25557032 +4089184256", out)
    assert re.search(r"parameters, from ResNet-50 to ResNet-50-D by stage:\nlabel +delta\n +stem +19232\n", out)
    assert main(["compare", "ResNet-20", "DenseNet-121", "FCN ResNet-50"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["net", "ResNet-20", "DenseNet-121", "FCN"]


def test_nets_of_one_name_are_compared_under_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "resnet18d", "resnet18", "ResNet-18~classes.10", "resnetv2_18"]) == 0
    nets = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert nets == [[name, "3"] for name in ("resnet18d", "resnet18", "ResNet-18~classes.10", "resnetv2_18")]


@pytest.mark.parametrize("command", ["profile", "export", "gradients"])
def test_every_command_takes_the_names_that_people_have(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    more = {"export": ["spec", "--out", str(tmp_path / "net.json")], "gradients": ["--count", "2", "--alone"]}
    printed = []
    for name in ("ResNet-8", "cifar_resnet8"):
        assert main([command, name, *more.get(command, [])]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_budget_lists_the_nets_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budget", "--params", "1e5", "--macs", "10e6", "--memory", "40", "--batch", "16"]) == 0
    heads, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heads[-4:] == ["params", "macs", "peak", "MiB"]
    assert rows
    for *_, params, macs, mib in rows:
        assert int(params) <= 100_000
        assert int(macs) <= 10_000_000
        assert int(mib) <= 40
    assert main(["budget", "--params", "10"]) == 0
    assert capsys.readouterr().out == "No net of the grid fits. Allow more.\n"
