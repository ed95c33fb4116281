"""Replay, overlay and live view of real small runs in Streamlit's test runner, and the sentences about runs."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from pages.ui import replay, words
from resnet.files import ROOT
from resnet.nets.spec import PRESETS, plain_twin
from resnet.plots import runs as run_plots
from resnet.plots import theme
from resnet.plots.runs import Level, Line
from resnet.runs import store as runs
from resnet.runs.answers import answers
from resnet.runs.curves import Digest, Strip
from resnet.runs.jobs import Job, Status
from resnet.runs.store import Run
from resnet.runs.table import distinct_names
from resnet.runs.worker import work
from resnet.train.recipes import RECIPES, Recipe, differences, recipe_name
from resnet.zoo.he2015 import published_error
from tests.support.tiny import TINY, write_data

MAIN = ROOT / "pages" / "ui" / "main.py"
CLASSES = ("<b>cat</b>", "dog", "owl")
EPOCHS = 3


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `runs`: a residual net and its plain twin after three epochs of 8 steps."""
    folder = tmp_path_factory.mktemp("recorded")
    write_data(folder / "data", test=50, class_names=np.array(CLASSES))
    recipe, threads = Recipe(epochs=EPOCHS, batch=8, precision="fp32", ema=0.9), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNET_DATA_DIR", str(folder / "data"))
        patch.setenv("RESNET_RUNS_DIR", str(folder / "runs"))
        for net in (TINY, plain_twin(TINY)):
            run = runs.create(Job(net, "tiny.npz", recipe, threads=1, device="cpu", group="pair"))
            assert work(run.path).state == "finished"
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(autouse=True)
def pair(recorded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Run]:
    """The two runs in this test's own folder, the residual one first; no recorded ones."""
    monkeypatch.setenv("RESNET_DATA_DIR", str(recorded / "data"))
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    shutil.copytree(recorded / "runs", runs.runs_folder())
    return sorted(runs.all_runs(), key=lambda run: run.job.net.plain)


def open_train(**address: str) -> AppTest:
    app = AppTest.from_file(str(MAIN), default_timeout=120).run()
    for name, value in address.items():
        app.query_params[name] = value
    app.switch_page("../training/train.py").run()
    return fine(app)


def fine(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].value
    return app


def texts(app: AppTest) -> str:
    kinds = (app.error, app.warning, app.info, app.caption, app.markdown)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def field(app: AppTest, kind: str, key: str):
    return next(widget for widget in app.get(kind) if widget.key and widget.key.startswith(key))


def look(app: AppTest, view: str) -> AppTest:
    field(app, "button_group", "replay.view").set_value(view).run()
    return fine(app)


def charts(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


# The page's states


def test_a_finished_pair_opens_at_its_last_epoch(pair: list[Run]) -> None:
    said = texts(open_train())
    for run in pair:
        last = run.epochs().iloc[-1]
        name = run.job.net.name
        assert f"**{name}** at epoch 3, step 24: test accuracy {100 * last.test_accuracy:.2f} %" in said
    assert "Same batches in both nets up to step 24 (checked by a hash of every batch)." in said
    assert said.count("weights averaged over steps (EMA 0.9)") == 1, "once for both"


def test_play_goes_from_epoch_to_epoch_and_ends_at_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "PLAY_S", 3600.0)
    app = open_train()

    def epoch() -> int:
        [slider] = [slider for slider in app.slider if slider.label == "Epoch"]
        return int(slider.value)  # type: ignore[arg-type] # one end, no range

    app.button(key="replay.play").click().run()
    assert (epoch(), app.button(key="replay.play").label) == (1, "Pause"), "from the beginning"
    app.run()
    assert epoch() == 1, "an epoch stays until it is time for the next"
    monkeypatch.setattr(replay, "PLAY_S", 0.0)
    app.session_state["replay.due"] = 0.0
    seen: list[int] = []
    while app.button(key="replay.play").label == "Pause" and len(seen) < 5:
        seen.append(epoch())
        fine(app.run())
    assert (seen, epoch()) == ([1, 2, 3], 3)
    app.button(key="replay.play").click().run()
    app.button(key="replay.play").click().run()
    assert app.button(key="replay.play").label == "Play", "paused"


def test_the_scrubber_goes_to_an_epoch(pair: list[Run]) -> None:
    app = open_train()
    app.slider[0].set_value(2).run()
    first = pair[0].epochs().iloc[1]
    assert f"at epoch 2, step 16: test accuracy {100 * first.test_accuracy:.2f} %" in texts(fine(app))
    bold = [trace for trace in charts(app)[0]["data"] if trace.get("opacity", 1) == 1]
    assert len(bold) == 2
    look(app, "Confusion matrix")
    labels, kept = pair[0].test_set()[0], pair[0].predictions()[1]
    wrong = int((kept["predicted"] != labels).sum())
    assert f"{wrong:,} of 50 test images are off the diagonal" in texts(app)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("Curves", "norm of dL/dW, layer (down) by step"),
        ("Confusion matrix", "of 50 test images are off the diagonal"),
        ("Classes", "Share of each class's test images"),
        ("Pictures", "✓ right; ✗ wrong, underlined"),
        ("Weight updates", "rule of thumb wants about 0.001"),
    ],
)
@pytest.mark.parametrize("damage", ["", "steps.bin", "epochs.jsonl", "info.json", "predictions.bin", "test.npz"])
def test_every_view_opens_also_of_a_damaged_run(pair: list[Run], view: str, said: str, damage: str) -> None:
    if damage:
        (pair[0].path / damage).write_bytes((pair[0].path / damage).read_bytes()[:7] or b"\x00")
    app = look(open_train(), view)
    assert said in texts(app)
    if damage in ("predictions.bin", "test.npz") and view in ("Confusion matrix", "Classes", "Pictures"):
        assert f"No predictions of {pair[0].job.net.name} are kept for this epoch." in texts(app)


def test_class_names_are_text_in_the_pictures(pair: list[Run]) -> None:
    app = look(open_train(), "Pictures")
    page = "".join(element.proto.body for element in app.get("html"))
    assert page.count("<figure>") == 40
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" not in page
    made = [answers(run, EPOCHS) for run in pair]
    assert all(made)
    right = np.array([one.right[one.rows] for one in made if one])
    assert (page.count(">✓ "), page.count(">✗ ")) == (right.sum(), (~right).sum())
    field(app, "toggle", "replay.wrong").set_value(True).run()
    page = "".join(element.proto.body for element in fine(app).get("html"))
    assert page.count("<figure>") == (~right).any(axis=0).sum()


def test_one_epoch_has_no_scrubber(pair: list[Run]) -> None:
    for run in pair:
        lines = (run.path / "epochs.jsonl").read_text().splitlines(keepends=True)
        (run.path / "epochs.jsonl").write_text(lines[0])
    app = open_train()
    assert not app.slider
    assert "One epoch has been tested so far: number 1." in texts(app)
    assert "at epoch 1, step 8" in texts(app)


def test_before_the_first_test_the_curves_are_there(pair: list[Run]) -> None:
    for run in pair:
        (run.path / "epochs.jsonl").unlink()
    app = open_train()
    field(app, "button_group", "train.view").set_value("Replay").run()
    assert "No epoch has been tested yet." in texts(fine(app))
    assert len(charts(app)) == 4
    assert "No predictions of" in texts(look(app, "Classes"))


def test_a_run_without_any_record(pair: list[Run]) -> None:
    for run in pair:
        for name in ("steps.bin", "epochs.jsonl", "info.json"):
            (run.path / name).unlink()
    app = open_train()
    field(app, "button_group", "train.view").set_value("Replay").run()
    assert "No step has been recorded yet." in texts(fine(app))


def test_a_queued_run_tells_its_place_and_no_error(pair: list[Run]) -> None:
    for run in pair:
        run.write_status(Status("queued", "Waiting for the CPU (next in line).", device="cpu"))
    with pair[0].lock(), pair[1].lock():
        app = open_train()
    assert [info.value for info in app.info] == ["Waiting for the CPU (next in line)."] * 2
    assert not app.error
    assert texts(app).count(":gray-badge[queued]") == 2


def test_a_running_run_opens_live_and_a_crashed_one_tells_it(pair: list[Run]) -> None:
    pair[0].write_status(Status("running", phase="training", steps=48, device="cpu"))
    pair[1].write_status(Status("running", phase="training", steps=48, device="cpu"))
    with pair[0].lock():
        app = open_train()
        assert field(app, "button_group", "train.view").value == "Training"
    assert ["ended without an error message" in str(error.value) for error in app.error] == [True]
    assert "Gradient norms of" in texts(app)
    field(app, "button_group", "live.quantity").set_value("updates").run()
    assert "Update-to-weight ratios of" in texts(fine(app))


def test_different_batches_are_told(pair: list[Run]) -> None:
    steps = pair[1].steps()
    steps["batch"][4] += 1
    steps.tofile(pair[1].path / "steps.bin")
    assert "From step 5 on these nets had different batches" in texts(open_train())


def test_recorded_runs_are_replayed_where_there_are_no_others(pair: list[Run]) -> None:
    shutil.move(runs.runs_folder(), runs.SHIPPED)
    app = open_train()
    said = texts(app)
    assert said.count(":violet-badge[recorded]") == 2
    assert "at epoch 3, step 24" in said
    assert not [button for button in app.button if button.label in ("Pause", "Stop", "Resume")]
    assert app.dataframe[0].value["state"].tolist() == ["recorded"] * 2


def test_a_recipe_fills_the_fields_and_an_edit_stays() -> None:
    app = open_train()
    for name in ("paper", "fast"):
        field(app, "button_group", "train.recipe").set_value(name).run()
        fine(app)
        shown = {w.key: w.value for w in (*app.number_input, *app.toggle, *app.selectbox)}
        recipe = {key: value for key, value in vars(RECIPES[name]).items() if key not in ("frozen", "body_lr")}
        assert {key: shown[f"train.{key}"] for key in recipe} == recipe
    field(app, "number_input", "train.ema").set_value(0.0).run()
    app.switch_page("../start/start.py").run()
    app.switch_page("../training/train.py").run()
    assert field(fine(app), "number_input", "train.ema").value == 0
    assert field(app, "toggle", "train.flip_test").value is True


def test_a_batch_larger_than_the_data_is_told() -> None:
    app = open_train()
    field(app, "number_input", "train.n.").set_value(50).run()
    assert "A batch cannot be larger than the 50 training images" in texts(fine(app))


# The overlay


def overlay_script(chosen: str, ids: list[str]) -> None:
    from pages.ui import overlay, state
    from resnet.runs import store as runs

    state.set_widgets({"overlay.figure": chosen})
    overlay.show([runs.find(run_id) for run_id in ids])


def overlay(chosen: str, found: list[Run]) -> AppTest:
    ids = [run.id for run in found]
    return fine(AppTest.from_function(overlay_script, kwargs={"chosen": chosen, "ids": ids}, default_timeout=60).run())


def numbers(column: dict[str, Any]) -> np.ndarray:
    """What plotly's JSON holds as base64 or as a list."""
    import base64

    return np.frombuffer(base64.b64decode(column["bdata"]), column["dtype"]) if "bdata" in column else np.array(column)


@pytest.mark.parametrize("chosen", ["accuracy", "error", "loss"])
def test_the_overlay_has_a_line_for_each_run(pair: list[Run], chosen: str) -> None:
    (chart,) = charts(overlay(chosen, pair))
    assert [trace["name"] for trace in chart["data"]] == [run.job.net.name for run in pair]
    for run, trace in zip(pair, chart["data"], strict=True):
        if chosen == "loss":
            np.testing.assert_allclose(numbers(trace["y"]), run.steps()["loss"])
            np.testing.assert_allclose(numbers(trace["x"]), np.arange(1, 25) / 8)  # epochs of 8 steps
        else:
            shares = 100 * run.epochs().test_accuracy.to_numpy()
            np.testing.assert_allclose(numbers(trace["y"]), shares if chosen == "accuracy" else 100 - shares)
            assert list(numbers(trace["x"])) == [1, 2, 3]
    assert not chart["layout"].get("shapes")  # the paper has no line for this net


def copies(run: Run, count: int, **changes: Any) -> list[Run]:
    """Runs with the records of `run` and another job."""
    made = []
    for number in range(count):
        path = run.path.parent / f"copy-{number}-{''.join(changes)}-{1000 + number}"
        shutil.copytree(run.path, path)
        (path / "run.json").write_text(dataclasses.replace(run.job, **changes).to_json())
        made.append(Run(path))
    return made


def test_more_runs_than_a_chart_holds_are_told(pair: list[Run]) -> None:
    app = overlay("accuracy", copies(pair[0], 10))
    assert "10 are ticked; the first 8 of them are shown" in texts(app)
    (chart,) = charts(app)
    assert len({trace["name"] for trace in chart["data"]}) == 8
    assert len({trace["line"]["color"] for trace in chart["data"]}) == 8


@pytest.mark.parametrize(("chosen", "value"), [("error", 8.75), ("accuracy", 91.25)])
def test_the_papers_error_is_a_line_with_its_source(pair: list[Run], chosen: str, value: float) -> None:
    net = PRESETS["ResNet-20"]
    (ours,) = copies(pair[0], 1, net=net, data="cifar10", recipe=RECIPES["fast"])
    (plain,) = copies(pair[1], 1, data="cifar10", net=plain_twin(net), recipe=RECIPES["fast"], group="")
    app = overlay(chosen, [ours, plain])
    (line,) = charts(app)[0]["layout"]["shapes"]
    assert line["y0"] == line["y1"] == value
    assert line["showlegend"]
    assert line["name"] == "ResNet-20 in He 2015, Table 6: 8.75 % error"
    said = texts(app)
    assert "ResNet-20: Not a fair comparison with the paper: averaged weights (EMA) in the test; a flip test" in said
    assert "plain-20: the paper's Table 6 has no plain nets" in said


def test_a_run_as_in_the_paper_may_be_compared(pair: list[Run]) -> None:
    (ours,) = copies(pair[0], 1, net=PRESETS["ResNet-20"], data="cifar10", recipe=RECIPES["paper"])
    info = ours.info() | {"source": "CIFAR-10, original pixels (Krizhevsky 2009)"}
    (ours.path / "info.json").write_text(json.dumps(info))
    assert "ResNet-20: trained as in the paper." in texts(overlay("error", [ours]))


def test_an_overlay_of_runs_without_records(pair: list[Run]) -> None:
    (pair[0].path / "epochs.jsonl").unlink()
    assert "Nothing has been recorded for this chart yet." in texts(overlay("accuracy", pair[:1]))


# Sentences and rules


def test_errors_of_the_paper() -> None:
    assert published_error("ResNet-20", "cifar10") == 8.75
    assert published_error("ResNet-110", "cifar10") == 6.43
    assert published_error("plain-20", "cifar10") is None
    assert published_error("ResNet-20", "shapes") is None
    assert published_error("ResNet-50", "cifar10") is None


def test_a_recipe_has_its_name_whatever_seed_and_precision() -> None:
    for name, recipe in RECIPES.items():
        assert recipe_name(dataclasses.replace(recipe, seed=7, precision="bf16", compile=True)) == name
        assert recipe_name(dataclasses.replace(recipe, lr=0.123)) == "own"
        assert recipe_name(dataclasses.replace(recipe, lr=0.123, epochs=7)) == "own"
    assert recipe_name(dataclasses.replace(RECIPES["fast"], epochs=7)) == "fast, 7 epochs"
    longer = dataclasses.replace(RECIPES["short"], epochs=7, weight_decay=2e-4)
    assert recipe_name(longer) == "short, 7 epochs, weight decay 0.0002"
    assert recipe_name(dataclasses.replace(RECIPES["short"], mask=True)) == "short, blanked patches"
    assert recipe_name(dataclasses.replace(RECIPES["paper"], epochs=7)) == "paper"  # 64,000 steps all the same


def test_differences_from_the_paper() -> None:
    paper, pixels = RECIPES["paper"], "CIFAR-10, original pixels"
    assert differences(paper, pixels, whole=True) == []
    assert differences(dataclasses.replace(paper, epochs=3), pixels, whole=True) == []  # its steps count
    assert differences(dataclasses.replace(paper, lr=0.3, ema=0.9), pixels, whole=True) == [
        "averaged weights (EMA) in the test",
        "another recipe (lr 0.3)",
    ]
    assert differences(dataclasses.replace(paper, flip_test=True, label_smoothing=0.1), "a JPEG copy", whole=False) == [
        "label smoothing",
        "a flip test (each image and its mirror image)",
        "other pixels (a JPEG copy)",
        "a part of the training images",
    ]
    assert differences(dataclasses.replace(paper, mask=True), pixels, whole=True) == ["blanked patches in training"]


def after(*shares: float) -> pd.DataFrame:
    return pd.DataFrame({"epoch": np.arange(1, len(shares) + 1), "test_accuracy": shares})


def test_the_best_and_the_last_epoch_are_both_given() -> None:
    assert (
        words.accuracy(after(0.5, 0.876, 0.873)) == "test accuracy 87.3 % after epoch 3 (last), best 87.6 % at epoch 2"
    )
    assert words.accuracy(after(0.5, 0.876)) == "test accuracy 87.6 % after epoch 2 (last and best)"
    assert words.accuracy(after()) == ""


def test_names_tell_runs_apart(pair: list[Run]) -> None:
    assert distinct_names(pair) == [run.job.net.name for run in pair]
    (other,) = copies(pair[0], 1, recipe=RECIPES["fast"])
    name = pair[0].job.net.name
    assert distinct_names([pair[0], other]) == [f"{name}, own", f"{name}, fast"]
    same = copies(pair[0], 2, group="")
    assert distinct_names(same) == [f"{name}, own (1000)", f"{name}, own (1001)"]


def test_the_origin_names_pixels_precision_and_hardware(pair: list[Run]) -> None:
    info = pair[0].info() | {"source": "a JPEG copy.", "hardware": "cpu AMX 2 threads", "train_images": 50_000}
    (pair[0].path / "info.json").write_text(json.dumps(info))
    said = words.origin(pair[0].look())
    assert "50,000 images of tiny.npz; pixels: a JPEG copy; fp32; cpu AMX 2 threads" in said
    (pair[0].path / "info.json").unlink()
    assert words.origin(pair[0].look()) == ""


def test_predictions_that_do_not_fit_are_none(pair: list[Run]) -> None:
    run = pair[0]
    assert answers(run, EPOCHS) is not None
    assert answers(run, None) is None
    assert answers(run, EPOCHS + 1) is None
    rows = run.predictions()
    rows["predicted"][-1, 3] = 200  # no such class
    rows.tofile(run.path / "predictions.bin")
    assert answers(run, EPOCHS) is None


# Figures


def test_what_lies_beyond_the_marker_is_faint() -> None:
    line = Line("a", "red", np.array([1, 2, 3, 4]), np.array([4.0, 3.0, 2.0, 1.0]))
    figure = run_plots.line_chart([line], "step", "loss", at=2, levels=[Level(2.5, "limit")])
    assert [list(trace.x) for trace in figure.data] == [[1, 2, 3, 4], [1, 2]]
    assert [(trace.opacity, trace.showlegend) for trace in figure.data] == [(run_plots.FAINT, False), (None, True)]
    assert [(shape.x0, shape.y0) for shape in figure.layout.shapes] == [(0, 2.5), (2, 0)]
    assert len(run_plots.line_chart([line], "step", "loss", at=4).data) == 1


def test_a_strip_has_its_layers_and_limits() -> None:
    strip = Strip(np.array([0, 4, 8]), np.array([[-1.0, -2.0], [-3.0, -4.0]]))
    (heat,) = run_plots.strip_chart(strip.log10, strip.borders, ["conv1", "fc"], (-4, -1), at=4).data
    assert (heat.zmin, heat.zmax, list(heat.x)) == (-4, -1, [0, 4, 8])
    assert heat.text.tolist() == [["1  conv1"] * 2, ["2  fc"] * 2]
    np.testing.assert_allclose(heat.customdata, [[0.1, 0.01], [1e-3, 1e-4]])
    assert Digest().layers == 0


def test_a_confusion_matrix_shows_counts_and_shares_of_its_rows() -> None:
    (heat,) = run_plots.confusion_chart(np.array([[3, 1], [0, 0]]), ["a", "b"]).data
    assert heat.text.tolist() == [["3", "1"], ["0", "0"]]
    np.testing.assert_allclose(heat.customdata, [[75, 25], [0, 0]])
    np.testing.assert_allclose(np.square(heat.z), heat.customdata)


def test_a_pair_is_blue_and_orange_and_more_runs_all_differ() -> None:
    assert theme.colors([False, True]) == [theme.RESIDUAL, theme.PLAIN]
    assert theme.colors([True]) == [theme.PLAIN]
    assert len(set(theme.colors([False] * 8))) == 8


def test_what_the_weights_reach_on_other_images_is_told(pair: list[Run]) -> None:
    tests = [{"accuracy": 0.875, "images": 40, "data": "other"}, {"accuracy": "high"}]
    (pair[0].path / "tests.json").write_text(json.dumps(tests))
    assert "On the 40 test images of other it gets 87.5 % right." in texts(fine(open_train()))


def test_one_click_opens_the_nets_with_a_picture_of_their_data_on_saliency(pair: list[Run]) -> None:
    app = open_train(run=pair[0].id)
    next(button for button in app.button if button.label.startswith("What do they look at?")).click().run()
    fine(app)
    assert app.session_state["lab.nets"] == [f"run:{run.id}" for run in pair]
    assert app.session_state["results"]["lab.picture"].startswith(f"data:{pair[0].job.data}:")
    assert app.session_state["lab.picture.kind"] == "Test images"
