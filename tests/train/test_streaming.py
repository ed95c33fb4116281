"""Pictures streamed from a folder: the same whatever the number of loaders, in bounded memory, by hand and in a run."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from pages.ui import cached
from resnet import limits
from resnet.cli.main import main
from resnet.data import pictures, sizes
from resnet.data.dataset import load
from resnet.data.folder import Folder, Pictures, open_folder
from resnet.data.source import Source
from resnet.errors import Refused
from resnet.files import ROOT
from resnet.nets.model import build
from resnet.runs import store as runs
from resnet.runs import worker, writer
from resnet.runs.store import Job, Run
from resnet.train import feeds
from resnet.train.feeds import Feed, Resident, Streaming, feed_of
from resnet.train.recipes import Recipe
from tests.support.pictures import ZOO, write_zoo
from tests.support.tiny import TINY

SIZE = 16
RECIPE = Recipe(epochs=2, batch=4, seed=3, precision="fp32")
NET = dataclasses.replace(TINY, image_size=SIZE)

pytestmark = pytest.mark.usefixtures("threads_back")


@pytest.fixture(autouse=True)
def folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(feeds, "MAX_LOADERS", 1)
    return write_zoo(data_dir / "zoo")


def streaming(found: Folder, workers: int = 0, **changes: Any) -> Streaming:
    recipe = dataclasses.replace(RECIPE, **changes)
    return Streaming(found, recipe, torch.device("cpu"), torch.contiguous_format, workers)


def steps(feed: Streaming, first: int, last: int) -> list[tuple[Tensor, Tensor, int]]:
    return [(images, labels, crc) for (images, labels), crc in feed.inputs(first, last)]


def assert_same(found: list[tuple[Tensor, Tensor, int]], expected: list[tuple[Tensor, Tensor, int]]) -> None:
    assert len(found) == len(expected)
    for (images, labels, crc), (images_0, labels_0, crc_0) in zip(found, expected, strict=True):
        assert torch.equal(images, images_0)
        assert torch.equal(labels, labels_0)
        assert crc == crc_0


def test_training_pictures_become_numbers_on_the_device_by_imagenets_mean_and_deviation() -> None:
    feed = streaming(open_folder("zoo", SIZE))
    [(images, labels, _)] = steps(feed, 0, 1)
    assert images.dtype == torch.uint8
    expected = V.normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    x, same = feed.prepare(images, labels)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(same, labels)
    other = streaming(open_folder("zoo", SIZE, mean=(0.5,) * 3, std=(0.25,) * 3))
    torch.testing.assert_close(other.prepare(images, labels)[0], (images / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("opened", "kind"), [(load, Resident), (open_folder, Streaming)])
def test_a_source_in_memory_and_one_on_the_disk_feed_the_same_shapes(
    opened: Callable[[str, int], Source], kind: type[Feed]
) -> None:
    source = opened("zoo", SIZE)
    feed = feed_of(source, RECIPE, torch.device("cpu"), build(NET))
    assert type(feed) is kind
    inputs, _ = next(feed.inputs(0, 1))
    images, labels = feed.prepare(*inputs)
    assert (images.shape, images.dtype, labels.shape) == ((4, 3, SIZE, SIZE), torch.float32, (4,))
    assert torch.cat(list(feed.tests())).shape == (9, 3, SIZE, SIZE)
    assert torch.equal(feed.test_labels, source.test_labels)


# What each step gets


def test_every_picture_comes_once_an_epoch_with_its_label() -> None:
    found = open_folder("zoo", SIZE)
    centre = [Pictures(found, 0, False)[0, index] for index in range(24)]
    for epoch in (0, 1):
        seen = []
        for images, labels, _ in steps(streaming(found, augment=False), 6 * epoch, 6 * epoch + 6):
            for image, label in zip(images, labels, strict=True):
                [index] = [i for i, one in enumerate(centre) if torch.equal(one, image)]  # type: ignore[arg-type]
                assert found.train_labels[index] == label
                seen.append(index)
        assert sorted(seen) == list(range(24))
        assert seen != sorted(seen)


def test_batches_are_the_same_with_any_number_of_loaders_and_from_any_step() -> None:
    found = open_folder("zoo", SIZE)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    here = steps(streaming(found), 6, 12)
    assert torch.equal(torch.get_rng_state(), before)
    feed = streaming(found, workers=2)
    torch.manual_seed(6)
    assert_same(steps(feed, 6, 12), here)
    tests = torch.cat(list(feed.tests()))
    assert_same(steps(feed, 6, 12), here)  # the same loaders, after a test
    assert_same(steps(streaming(found), 9, 12), here[3:])  # as after a resume
    assert torch.equal(tests, torch.cat(list(streaming(found).tests())))
    others = (steps(streaming(found), 0, 6), steps(streaming(found, seed=4), 6, 12))
    for other in others:
        assert not {crc for *_, crc in other} & {crc for *_, crc in here}
        assert not torch.equal(other[0][0], here[0][0])


def test_blanked_patches_follow_from_the_step_and_count_in_the_hash() -> None:
    found = open_folder("zoo", SIZE)
    whole, feed = streaming(found), streaming(found, mask=True)
    for step, (inputs, crc) in enumerate(feed.inputs(6, 12), 6):
        [(plain, plain_crc)] = whole.inputs(step, step + 1)
        assert crc != plain_crc
        expected = whole.prepare(*plain)[0].clone()
        patches = torch.randint(0, 32, (4,), generator=feeds.generator(3, 4, step))
        for image, patch in zip(expected, patches.tolist(), strict=True):
            if patch < 16:
                top, left = 4 * (patch // 4), 4 * (patch % 4)  # of 16 x 16 pixels
                image[:, top : top + 4, left : left + 4] = 0
        assert torch.equal(feed.prepare(*inputs)[0], expected), step
        [(_, again)] = feed.inputs(step, step + 1)  # as after a resume
        assert again == crc


def test_the_hash_differs_where_only_the_crops_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "generator", lambda *key: torch.Generator().manual_seed(0))  # one order for all
    found = open_folder("zoo", SIZE)
    hashes = [steps(streaming(found, seed=seed), step, step + 1)[0][2] for seed in (0, 1) for step in (0, 6)]
    assert len(set(hashes)) == 4


def test_memory_holds_a_few_batches_not_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "memory_limit", lambda: 10 * 3 * SIZE * SIZE)
    with pytest.raises(Refused, match="33 pictures at 16 x 16 pixels"):
        load("zoo", SIZE)
    opened: list[int] = []
    original = pictures.open_photo

    def counting(raw: bytes, at_least: int) -> Image.Image:
        opened.append(len(raw))
        return original(raw, at_least)

    found = open_folder("zoo", SIZE)
    monkeypatch.setattr(pictures, "open_photo", counting)
    batches = streaming(found).inputs(0, 6)
    assert opened == []
    for number in range(1, 7):
        next(batches)
        assert len(opened) == 4 * number


# What is wrong


def test_a_picture_that_is_damaged_after_the_first_look_is_named(folder: Path) -> None:
    (folder / "val" / "owl" / "0.jpg").unlink()
    found = open_folder("zoo", SIZE)
    (folder / "train" / "dog" / "2.jpg").write_bytes(b"\xff\xd8\xffnothing")
    (folder / "val" / "owl" / "1.png").unlink()
    for workers in (0, 1):
        with pytest.raises(Refused, match=r"^train/dog/2.jpg: This JPEG is damaged or cut off") as caught:
            steps(streaming(found, workers), 0, 6)
        assert "Traceback" not in str(caught.value)
        with pytest.raises(Refused, match=r"^val/owl/1.png cannot be read \(No such file or directory\)"):
            list(streaming(found, workers).tests())


def test_a_file_that_is_too_large_is_named_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_folder("zoo", SIZE)
    monkeypatch.setattr(pictures, "MAX_FILE", 10)
    with pytest.raises(Refused, match="This file has more than"):
        steps(streaming(found), 0, 1)
    with pytest.raises(Refused, match=r"33 of 33 pictures .*This file has more than"):
        open_folder("zoo", SIZE)


def test_a_mean_image_of_streamed_pictures_is_refused() -> None:
    with pytest.raises(Refused, match="Choose the scaling channel"):
        streaming(open_folder("zoo", SIZE), scaling="pixel")


# A run


def job(**changes: Any) -> Job:
    made = Job(NET, "zoo", RECIPE, device="cpu", threads=1, stream=True)
    return dataclasses.replace(made, **changes)


def finished(run: Run) -> Run:
    status = worker.work(run.path)
    assert (status.state, status.message) == ("finished", "")
    return run


def test_a_streaming_run_stopped_in_an_epoch_ends_as_one_that_never_was(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finished(runs.create(job()))
    assert whole.info()["class_names"] == list(ZOO)
    assert whole.info()["mean"] == pytest.approx([0.485, 0.456, 0.406])
    labels, _, pictures = whole.test_set()
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert pictures.shape == (9, SIZE, SIZE, 3)
    shown, of_class = cached.samples(whole)  # by Saliency and Gradients
    assert np.array_equal(shown, pictures)
    assert np.array_equal(of_class, labels)

    run = runs.create(job())
    append = writer._append_steps

    def pausing(run: Run, rows: np.ndarray) -> None:
        append(run, rows)
        if 8 in rows["step"]:  # the second of the second epoch
            run.request("pause")

    monkeypatch.setattr(writer, "_append_steps", pausing)
    assert worker.work(run.path).state == "paused"
    assert run.checkpoint_step() == 8
    (run.path / "request").unlink()
    finished(run)
    for name in ("step", "loss", "batch", "norms"):
        assert np.array_equal(run.steps()[name], whole.steps()[name])
    assert run.epochs().equals(whole.epochs())
    weights, expected = (load_file(found.path / "checkpoint.safetensors") for found in (run, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_run_whose_folder_is_not_offered_or_damaged_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = worker.work(runs.create(job(data=str(folder))).path)
    assert status.state == "failed"
    assert status.message.startswith("There is no data set")
    (folder / "train" / "owl" / "3.png").write_bytes(b"")
    assert finished(runs.create(job())).info()["train_images"] == 23
    monkeypatch.setattr(limits, "BROKEN_SHARE", 0)
    status = worker.work(runs.create(job()).path)
    assert status.state == "failed"
    assert "The first is train/owl/3.png: This file is empty" in status.message


@pytest.mark.parametrize(("file", "kind"), [("train/owl/3.png", "training"), ("val/owl/1.png", "test")])
def test_a_run_does_not_go_on_with_a_picture_less(folder: Path, file: str, kind: str) -> None:
    run = finished(runs.create(job()))
    before = (run.path / "info.json").read_bytes(), run.predictions()
    (folder / file).write_bytes(b"")
    status = worker.work(run.path)
    assert status.state == "failed"
    assert re.match(rf"This run began with \d+ {kind} images of zoo, and now there are \d+", status.message)
    assert (run.path / "info.json").read_bytes() == before[0]
    assert np.array_equal(run.predictions(), before[1])


TYPED = [
    "train",
    "--net",
    "ResNet-20~stages.1x4s1-1x8s2~stem_width.4",
    "--data",
    "zoo",
    "--stream",
    "--size",
    str(SIZE),
]
TYPED += ["--epochs", "2", "--batch", "4", "--seed", "3", "--precision", "fp32", "--device", "cpu", "--threads", "1"]


def test_the_command_line_streams(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TYPED) == 0
    assert "test accuracy" in capsys.readouterr().out
    [run] = runs.all_runs()
    assert run.job.stream
    assert run.job.net.image_size == SIZE


def test_two_processes_stream_their_shares_and_name_what_is_damaged(folder: Path, tmp_path: Path) -> None:
    """The second process's picture is the damaged one, and the status names it."""
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "resnet"]
    ended = subprocess.run([*two, *TYPED], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [run] = runs.all_runs()
    alone = finished(runs.create(run.job))
    assert np.array_equal(run.steps()["batch"], alone.steps()["batch"])
    np.testing.assert_allclose(run.steps()["loss"], alone.steps()["loss"], rtol=3e-5)
    np.testing.assert_allclose(run.epochs(), alone.epochs(), rtol=3e-5)
    assert np.array_equal(run.predictions()["predicted"], alone.predictions()["predicted"])
    run.delete()
    alone.delete()

    found = open_folder("zoo", SIZE)
    order = torch.randperm(24, generator=feeds.generator(RECIPE.seed, 0, 0))
    damaged = found.train_files[int(order[2])].decode()  # the first step's third of four
    cut = (folder / damaged).read_bytes()[:-400]  # its header is whole, and no more than that is looked at
    (folder / damaged).write_bytes(cut)
    (tmp_path / "sitecustomize.py").write_text("from resnet.data import pictures; pictures.MAX_DECODED = 0\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run([*two, *TYPED], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 1
    [run] = runs.all_runs()
    assert run.status().state == "failed"
    assert run.status().message.startswith(f"Process 1 of 2: {damaged}: This PNG is damaged or cut off")
