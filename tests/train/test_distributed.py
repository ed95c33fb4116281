"""Training on two processes under torchrun, against one process with the same batches and PyTorch's own norm."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from resnet.errors import Refused
from resnet.files import ROOT
from resnet.runs import store as runs
from resnet.runs import worker
from resnet.runs.store import Run
from resnet.train import distributed
from resnet.train.recipes import Recipe
from tests.support.tiny import TINY_CODE, assert_equal_results, until, write_data

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
RECIPE = Recipe(epochs=6, batch=8, lr=0.02, label_smoothing=0.1, ema=0.9, flip_test=True, precision="fp32")
OPTIONS = ["--epochs", "6", "--batch", "8", "--lr", "0.02", "--label-smoothing", "0.1", "--ema", "0.9"]
TRAIN = ["train", "--net", TINY_CODE, "--data", "tiny.npz", *OPTIONS, "--flip-test", "--precision", "fp32"]
TRAIN += ["--device", "cpu", "--threads", "1"]
STEPS = 48
TOLERANCE = 3e-5  # relative, of sums in another order; 1e-5 was measured after 160 steps
DEADLINE_S = 400  # for a busy machine
pytestmark = pytest.mark.usefixtures("tiny_data")
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A residual run and its plain twin that two processes trained one after the other."""
    folder = tmp_path_factory.mktemp("pair")
    write_data(folder)
    own = os.environ | {"RESNET_DATA_DIR": str(folder), "RESNET_RUNS_DIR": str(folder / "runs")}
    program = [*TORCHRUN, "-m", "resnet", *TRAIN, "--twin"]
    ended = subprocess.run(program, cwd=ROOT, env=own, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = [Run(path.parent) for path in (folder / "runs").glob("*/run.json")]
    return sorted(found, key=lambda run: run.job.net.plain)


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program on two processes; whatever is left of it ends with the test."""
    started = []

    def two(*program: str) -> subprocess.Popen[str]:
        out = subprocess.PIPE
        started.append(
            subprocess.Popen([*TORCHRUN, *program], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield two
    for process in started:
        process.terminate()  # it ends its children
        process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status, 0 only if both processes ended well, and all output."""
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


def only_run() -> Run | None:
    found = runs.all_runs()
    return found[0] if found else None


def recorded(number: int) -> Callable[[], bool]:
    return lambda: (run := only_run()) is not None and len(run.steps()) >= number


def second_process(agent: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    [found] = [pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return int(found)


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """|value - reference| / |reference|, L2."""
    difference = (value.double() - reference.double()).norm()
    return float(difference / reference.double().norm().clamp_min(1e-12))


@pytest.mark.parametrize("plain", [False, True], ids=["residual", "plain"])
def test_two_processes_train_as_one_does(plain: bool, pair: list[Run]) -> None:
    run = pair[plain]
    assert run.job.net.plain == plain
    assert run.job.group == pair[0].job.group
    assert run.status().state == "finished"
    assert run.info()["hardware"].endswith(", 2 processes")
    alone = runs.create(dataclasses.replace(run.job, recipe=RECIPE))
    assert worker.work(alone.path).state == "finished"
    steps, expected = run.steps(), alone.steps()
    for name in ("step", "batch", "lr", "accuracy"):
        assert np.array_equal(steps[name], expected[name]), name
    for name in ("loss", "norms", "updates"):
        np.testing.assert_allclose(steps[name], expected[name], rtol=TOLERANCE, err_msg=name)
    assert run.epochs().epoch.tolist() == list(range(1, RECIPE.epochs + 1))
    np.testing.assert_allclose(run.epochs(), alone.epochs(), rtol=TOLERANCE)
    assert np.array_equal(run.predictions()["predicted"], alone.predictions()["predicted"])
    weights, wanted = (load_file(found.path / "checkpoint.safetensors") for found in (run, alone))
    assert max(relative(weights[name], wanted[name]) for name in wanted) < TOLERANCE


@needs_proc
@pytest.mark.slow
def test_killed_and_paused_two_processes_end_as_if_nothing_had_happened(
    pair: list[Run], launch: Callable[..., subprocess.Popen[str]]
) -> None:
    killed = launch("-m", "resnet", *TRAIN)
    until(recorded(10), DEADLINE_S, killed)
    os.kill(second_process(killed), 9)
    status, output = finish(killed)
    assert status == 1
    run = only_run()
    assert run, output
    before = run.steps().copy()
    assert 10 <= len(before) < STEPS, "finished before the kill"
    assert run.status().state == "crashed"
    assert "Resume goes on from" in run.status().message

    resumed = launch("-m", "resnet", "resume", run.id)
    until(recorded(len(before) + 3), DEADLINE_S, resumed)
    run.request("pause")
    status, output = finish(resumed)
    assert (status, run.status().state) == (0, "paused"), output
    assert run.checkpoint_step() == len(run.steps()) < STEPS, "finished before the pause"
    assert np.array_equal(run.steps()[: len(before)], before)

    status, output = finish(launch("-m", "resnet", "resume", run.id))
    assert (status, run.status().state) == (0, "finished"), output
    assert run.steps()["step"].tolist() == list(range(1, STEPS + 1))
    assert_equal_results(run, pair[0])


SHAPES = {"images": (8, 5, 4, 4), "clips": (6, 3, 2, 3, 3), "one value each": (2, 4, 1, 1)}


def batch(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images far from mean 0, and a gradient."""
    draw = torch.Generator().manual_seed(0)
    return 3 * torch.randn(shape, generator=draw) + 7, torch.randn(shape, generator=draw)


def passed(norm: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """A norm's output, gradients and state after one training step's forward and backward."""
    x = x.clone().requires_grad_()
    out = norm(x)
    out.backward(gradient)
    grads = {f"grad {name}": value.grad for name, value in norm.named_parameters() if value.grad is not None}
    again = norm.eval()(x)
    return {"out": out, "grad x": x.grad, "eval": again, **grads, **norm.state_dict()}


def norm_of(shape: tuple[int, ...]) -> nn.Module:
    norm = nn.BatchNorm3d(shape[1]) if len(shape) == 5 else nn.BatchNorm2d(shape[1])
    nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    nn.init.uniform_(norm.bias, generator=torch.Generator().manual_seed(2))
    return norm


def two_processes(folder: Path) -> None:
    """What each of the two processes of the test below computes."""
    found: dict[str, torch.Tensor] = {}
    with distributed.process_group("cpu"):
        mine = distributed.rank()
        for name, shape in SHAPES.items():
            net = nn.Sequential(norm_of(shape))
            distributed._sync_batch_norms(net)
            x, gradient = batch(shape)
            part = distributed.shard(len(x))
            found |= {f"{name} {key}": value for key, value in passed(net[0], x[part], gradient[part]).items()}
        value = torch.full((2, 3), float(mine))
        distributed.broadcast_([value])
        found |= {"broadcast": value, "mean": distributed.all_reduce_mean_(torch.tensor(float(mine)))}
        found["object"] = torch.tensor(distributed.broadcast_object(lambda: 10 + mine))
        for wrong in (lambda: distributed.check(Recipe(batch=7)), lambda: distributed.check(Recipe(compile=True))):
            with pytest.raises(Refused):
                distributed.broadcast_object(wrong)
    save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, folder / f"{mine}.safetensors")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("both")
    program = [*TORCHRUN, "-m", "tests.train.test_distributed", str(folder)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.returncode == 0, ended.stderr
    return [load_file(folder / f"{number}.safetensors") for number in (0, 1)]


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=SHAPES)
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(
    name: str, shape: tuple[int, ...], both: list[dict[str, torch.Tensor]]
) -> None:
    expected = passed(norm_of(shape), *batch(shape))
    for key, value in expected.items():
        halves = [found[f"{name} {key}"] for found in both]
        if key in ("out", "grad x", "eval"):
            torch.testing.assert_close(torch.cat(halves), value, rtol=1e-5, atol=2e-6, msg=key)
        elif key.startswith("grad"):
            torch.testing.assert_close(halves[0] + halves[1], value, rtol=1e-5, atol=1e-5, msg=key)
        else:
            assert torch.equal(halves[0], halves[1]), key
            torch.testing.assert_close(halves[0], value, rtol=1e-6, atol=1e-6, msg=key)


def test_what_processes_tell_each_other(both: list[dict[str, torch.Tensor]]) -> None:
    for found in both:
        assert found["object"] == 10
        assert found["mean"] == 0.5
        assert torch.equal(found["broadcast"], torch.zeros(2, 3))


def test_one_process_needs_no_others() -> None:
    tensor = torch.ones(2)
    assert distributed.all_reduce_mean_(distributed.all_reduce_sum_(tensor)) is tensor
    assert distributed.broadcast_object(lambda: 3) == 3
    assert distributed.shard(7) == slice(0, 7)
    model = nn.Linear(2, 2)
    assert distributed.parallel(model) is model
    assert not distributed.under_torchrun()


def test_a_device_that_processes_cannot_share_is_one_sentence() -> None:
    with (
        pytest.raises(Refused, match=r"Received 'mps'\. Choose cpu or cuda\."),
        distributed.process_group("mps"),
    ):
        pass


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
