"""Train: what it starts, on which data, and which run it shows."""

import dataclasses
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from pages.ui import cached, live, moments
from pages.ui import strips as strips_of_runs
from resnet.analysis.gradients import gradient_norms
from resnet.analysis.travel import travel
from resnet.nets.codes import to_code
from resnet.nets.model import build
from resnet.nets.spec import plain_twin
from resnet.runs import store as runs
from resnet.runs.curves import Digest, follow
from resnet.runs.jobs import Job, Status
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.runs.table import distinct_names
from resnet.train.recipes import OPTIMIZERS, RECIPES, Recipe
from resnet.work.contract import duration
from resnet.work.predict import training
from tests.support.pages import TINY, address, field, fine, open_page, press, texts
from tests.support.tiny import until


def test_train_starts_both_twins(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "number_input", "train.epochs").set_value(2).run()
    field(app, "number_input", "train.n.").set_value(100).run()
    press(app, "Start training")
    residual, plain = started
    assert residual.job.net == TINY
    assert plain.job == dataclasses.replace(residual.job, net=plain_twin(TINY))
    assert (residual.job.recipe.epochs, residual.job.train_images) == (2, 100)
    assert address(app, "run") == residual.id


def test_train_alone(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "toggle", "train.twin").set_value(False).run()
    press(app, "Start training")
    assert [run.job.net for run in started] == [TINY]


def test_train_starts_a_race_of_several_nets(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "multiselect", "train.race").set_value(["plain-56", "ResNet-32"]).run()
    field(app, "button_group", "train.recipe").set_value("fast").run()
    press(app, "Start training")
    assert [run.job.net.name for run in started] == [TINY.name, plain_twin(TINY).name, "plain-56", "ResNet-32"]
    assert len({(run.job.group, run.job.recipe, run.job.threads) for run in started}) == 1
    assert started[0].job.recipe == RECIPES["fast"]


def test_the_recipe_of_a_minute_is_made_for_a_net_and_small_images(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    recipes = field(app, "button_group", "train.recipe")
    assert recipes.options[0].startswith("minute"), "the first one in the list"
    assert recipes.value == "short", "a visitor's net and images stay until it is chosen"
    assert app.session_state["net"] == to_code(TINY)
    recipes.set_value("minute").run()
    press(app, "Start training")
    assert [run.job.net.name for run in started] == ["ResNet-56", "plain-56"]
    assert {run.job.recipe for run in started} == {RECIPES["minute"]}
    assert {run.job.net.image_size for run in started} == {16}
    assert {run.job.train_images for run in started} == {None}, "all 5,000 shapes, fewer than the recipe takes"


def test_a_training_begins_with_the_weights_of_a_file(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "selectbox", "train.weights").set_value("my own file").run()
    start = next(button for button in app.button if button.label == "Start training")
    assert start.disabled, "there is no file yet"
    state = build(dataclasses.replace(TINY, classes=7), seed=3).state_dict()
    app.file_uploader[0].set_value(("own.safetensors", save(state), "application/x")).run()
    press(app, "Start training")
    begun, scratch, plain = started
    content = (begun.path / "start.safetensors").read_bytes()
    checksum = hashlib.sha256(content).hexdigest()[:12]
    counted = f"{len(state) - 2} of {len(state)} weights"
    assert begun.job.start == f"the file own.safetensors, {counted} (SHA-256 {checksum}…)"
    taken = load_file(begun.path / "start.safetensors")
    assert taken.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[name]) for name, value in taken.items())
    assert distinct_names([begun, scratch]) == [f"{TINY.name} from weights", TINY.name], "one legend tells them apart"
    for other in (scratch, plain):
        assert (other.job.start, other.job.recipe.frozen, other.job.recipe.body_lr) == ("", 0, 1.0)
        assert not (other.path / "start.safetensors").exists()
    assert (begun.job.recipe.frozen, begun.job.recipe.body_lr) == (0, 0.1)


def test_stages_are_frozen_and_the_head_alone_has_a_rate_of_its_own(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "selectbox", "train.weights").set_value("my own file").run()
    app.file_uploader[0].set_value(("own.safetensors", save(build(TINY).state_dict()), "application/x")).run()
    frozen = field(app, "selectbox", "train.start.frozen")
    assert frozen.options == ["nothing", "The stem", "The stem and stage 1", "The stem and stages 1 to 2"]
    field(app, "toggle", "train.scratch").set_value(False).run()
    field(app, "toggle", "train.twin").set_value(False).run()
    frozen.set_value(3).run()
    assert field(app, "number_input", "train.start.body_lr").disabled
    press(app, "Start training")
    [begun] = started
    assert (begun.job.recipe.frozen, begun.job.recipe.body_lr) == (3, 1.0)


def test_an_optimiser_brings_a_learning_rate_to_begin_with(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "selectbox", "train.optimizer").set_value("adamw").run()
    assert field(app, "number_input", "train.lr").value == OPTIMIZERS["adamw"]
    assert field(app, "number_input", "train.momentum").disabled
    field(app, "number_input", "train.cutmix").set_value(1.0).run()
    press(app, "Start training")
    assert {run.job.recipe for run in started} == {
        dataclasses.replace(RECIPES["short"], optimizer="adamw", lr=OPTIMIZERS["adamw"], cutmix=1.0)
    }


def save_npz(path: Path, leave_out: str = "", **changes: np.ndarray) -> None:
    arrays = {
        "train_images": np.zeros((20, 16, 16, 3), np.uint8),
        "train_labels": np.arange(20, dtype=np.uint8) % 4,
        "test_images": np.zeros((8, 16, 16, 3), np.uint8),
        "test_labels": np.arange(8, dtype=np.uint8) % 4,
    } | changes
    arrays.pop(leave_out, None)
    np.savez(path, allow_pickle=False, **arrays)


def test_train_fits_the_net_to_the_data(data_of_its_own: Path, started: list[Run]) -> None:
    save_npz(data_of_its_own / "mine.npz")
    app = open_page("training/train.py")
    field(app, "selectbox", "train.data").set_value("mine.npz").run()
    assert "20 training and 8 test images, 4 classes" in texts(fine(app))
    press(app, "Start training")
    assert (started[0].job.net.classes, started[0].job.net.image_size) == (4, 16)


def test_train_says_what_is_wrong_with_the_data(data_of_its_own: Path) -> None:
    save_npz(data_of_its_own / "floats.npz", train_images=np.full((20, 16, 16, 3), 300.5, np.float32))
    save_npz(data_of_its_own / "short.npz", leave_out="test_labels")
    (data_of_its_own / "text.npz").write_text("not an archive")
    (data_of_its_own / "one class" / "cat").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(data_of_its_own / "one class" / "cat" / "a.png")
    app = open_page("training/train.py")
    offered = [name for name in field(app, "selectbox", "train.data").options if "shapes" not in name]
    assert {"floats.npz", "short.npz", "text.npz", "CIFAR-10"} <= set(offered)
    for name in ("floats.npz", "short.npz", "text.npz", "one class", "cifar10"):
        field(app, "selectbox", "train.data").set_value(name).run()
        assert len(fine(app).warning) == 1, name
        assert len(app.warning[0].value) > 30
        assert not [button for button in app.button if button.label == "Start training"]
    assert [button for button in app.button if button.label.startswith("Download CIFAR-10")]


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "nothing", "%00", "a" * 5000, "/"])
def test_train_refuses_a_run_that_is_none(run_id: str) -> None:
    assert "There is no run named" in texts(open_page("training/train.py", run=run_id))


def test_train_shows_the_run_in_the_address(pair: list[Run]) -> None:
    said = texts(open_page("training/train.py", run=pair[1].id))
    assert "norm of dL/dW" in said
    assert said.count("finished") == 2


def test_the_time_to_go_is_there_before_the_first_step() -> None:
    recipe = Recipe(epochs=5, batch=32)
    run = runs.create(Job(TINY, "shapes", recipe, train_images=640, device="cpu", threads=1))
    run.write_status(Status("starting"))
    predicted = duration(training(TINY, 32, 100, 5000, 1))
    assert f"starting the process · about {predicted} to go" in bars(open_page("training/train.py", run=run.id))
    run.write_status(Status("stopped"))
    cached.look_anew()
    assert "to go" not in bars(open_page("training/train.py", run=run.id))


def bars(app: AppTest) -> str:
    """What the progress bars say."""
    return "\n".join(bar.proto.text for bar in fine(app).get("progress"))


# A race that several visitors watch


@pytest.fixture
def going(pair: list[Run], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    """The pair as it trains, and looks that last until `cached.look_anew`."""
    monkeypatch.setattr(cached, "_forget_looks", lambda: None)
    with ExitStack() as stack:
        for run in pair:
            run.write_status(Status("running", phase="training", steps=48, device="cpu"))
            stack.enter_context(run.lock())
        yield pair


def add_step(run: Run) -> None:
    rows = run.steps()[-1:]
    rows["step"] += 1
    with open(run.path / "steps.bin", "ab") as file:
        rows.tofile(file)


def chart_data(app: AppTest) -> list[bytes]:
    return [chart.proto.data.data for chart in app.get("vega_lite_chart")]


def test_what_a_race_shows_is_made_once_for_all_who_watch(going: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[str]()

    def count(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: object) -> object:
            made[name] += 1
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)

    for module, name in ((live, "duration"), (live, "race_curves"), (strips_of_runs, "robust_limits")):
        count(module, name)
    apps = [open_page("training/train.py") for _ in range(3)]
    assert made == {"duration": 2, "race_curves": 1, "robust_limits": 1}, "the first is made for each run"
    first = chart_data(apps[0])
    assert len(first) == 4
    assert [chart_data(app) for app in apps] == [first] * 3
    for run in going:
        add_step(run)
    cached.look_anew()
    texts_now = [texts(fine(app.run())) for app in apps]
    assert made == {"duration": 4, "race_curves": 2, "robust_limits": 2}
    assert len(set(texts_now)) == 1
    later = chart_data(apps[0])
    assert all(new != old for new, old in zip(later, first, strict=True))
    assert [chart_data(app) for app in apps] == [later] * 3


@pytest.mark.usefixtures("going")
def test_each_who_watches_chooses_what_to_see_layer_by_layer() -> None:
    one, other = (open_page("training/train.py") for _ in range(2))
    field(other, "button_group", "live.quantity").set_value("updates").run()
    assert "Update-to-weight ratios of **" in texts(fine(other))
    assert "Gradient norms of **" in texts(fine(one.run()))
    assert chart_data(one)[:2] == chart_data(other)[:2]
    assert chart_data(one)[2:] != chart_data(other)[2:]


def strips(app: AppTest) -> list[pd.DataFrame]:
    """The tables of the strips, one for each net; the first two charts are of loss and accuracy."""
    return [convert_arrow_bytes_to_pandas_df(chart.proto.data.data) for chart in app.get("vega_lite_chart")[2:]]


def steps_of(app: AppTest) -> list[list[int]]:
    """Those at which each strip has a column."""
    return [sorted(set(strip.step_end)) for strip in strips(fine(app))]


def go_on(run: Run, step: int) -> None:
    """The worker has written another checkpoint."""
    path = run.path / "checkpoint.safetensors"
    path.write_bytes(save(load_file(path), {"step": str(step)}))


def test_the_gradients_of_a_race_are_measured_at_each_checkpoint(going: list[Run]) -> None:
    app = open_page("training/train.py")
    field(app, "button_group", "live.quantity").set_value("gradients").run()
    assert steps_of(app) == [[2], [2]]
    for run, strip in zip(going, strips(app), strict=True):
        opened = open_run(run)
        expected = gradient_norms(opened.model, *opened.test_batch(moments.IMAGES)).query("kind == 'block output'")
        assert strip.layer.tolist() == expected["name"].tolist()
        assert strip["norm"].tolist() == pytest.approx(expected["norm"].tolist(), rel=1e-5)
    for run in going:
        go_on(run, 4)
    cached.look_anew()
    until(lambda: steps_of(app.run()) == [[2, 4], [2, 4]])


def test_the_ways_of_the_gradient_are_shown_of_nets_that_have_two(going: list[Run]) -> None:
    app = open_page("training/train.py")
    field(app, "button_group", "live.quantity").set_value("travel").run()
    assert "is left out. This net adds no shortcut" in texts(fine(app))
    opened = open_run(going[0])
    ways = travel(opened.model, *opened.test_batch(moments.IMAGES))
    [strip] = strips(app)
    assert strip["norm"].tolist() == pytest.approx((ways.branch / ways.shortcut).tolist(), rel=1e-5)


def test_a_race_without_a_checkpoint_has_nothing_to_measure(going: list[Run]) -> None:
    for run in going:
        (run.path / "checkpoint.safetensors").unlink()
    app = open_page("training/train.py")
    field(app, "button_group", "live.quantity").set_value("gradients").run()
    assert "has no checkpoint yet" in texts(fine(app))
    assert not strips(app)


def test_one_thread_at_a_time_follows_a_run(going: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    calls, two = Counter[str](), threading.Barrier(2)

    def counted(digest: Digest, path: Path, kind: np.dtype) -> Digest:
        calls["follow"] += 1
        with suppress(threading.BrokenBarrierError):
            two.wait(0.2)  # for another one
        return follow(digest, path, kind)

    monkeypatch.setattr(cached, "follow", counted)
    seen = cached.look(going[0])
    with ThreadPoolExecutor(4) as threads:
        digests = list(threads.map(cached.digest, [seen] * 4))
    assert {digest.count for digest in digests} == {2}
    assert calls["follow"] == 1
