"""Every page in Streamlit's test runner: it opens, follows its controls, and answers bad input in a sentence."""

import base64
import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from resnet.attribution.methods import METHODS
from resnet.costs.conventions import count
from resnet.costs.profiler import profile
from resnet.data.shapes import SHAPES
from resnet.exports.forms import EXPORTERS
from resnet.files import ROOT
from resnet.nets.codes import from_code, to_code
from resnet.nets.model import build
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, plain_twin
from resnet.runs import store as runs
from resnet.runs.store import Job, Run
from resnet.runs.worker import work
from resnet.train.recipes import RECIPES, Recipe

PAGE_SCRIPTS = ROOT / "pages"
MAIN = PAGE_SCRIPTS / "ui" / "main.py"
PAGES = sorted(
    path.relative_to(PAGE_SCRIPTS).as_posix() for path in PAGE_SCRIPTS.glob("*/*.py") if path.parent.name != "ui"
)
TINY = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), shortcut="A", stem="3x3", stem_width=4, classes=10, image_size=32)


@pytest.fixture(autouse=True)
def data_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("RESNET_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a tiny residual net and its plain twin, trained for two steps on shapes."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = vars(Recipe(epochs=1, batch=32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNET_RUNS_DIR", str(folder))
        for net in (TINY, plain_twin(TINY)):
            run = runs.create(Job(net, "shapes", recipe, train_images=64, group="pair"))
            assert work(run.path).state == "finished"
    return folder


@pytest.fixture
def pair(trained: Path) -> list[Run]:
    """The residual and the plain run in this test's own runs folder."""
    shutil.copytree(trained, runs.runs_folder())
    return sorted(runs.all_runs(), key=lambda run: run.job.net.plain)


def open_page(page: str, **address: str) -> AppTest:
    app = AppTest.from_file(str(MAIN), default_timeout=120).run()
    for name, value in address.items():
        app.query_params[name] = value
    app.switch_page(f"../{page}").run()
    return fine(app)


def fine(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].value
    return app


def address(app: AppTest, name: str = "net") -> str:
    """What the address holds under that name; AppTest gives a string or a list of one."""
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def texts(app: AppTest) -> str:
    """All that the page says in boxes and captions."""
    kinds = (app.error, app.warning, app.info, app.caption, app.markdown, app.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def plain_list(values: list | dict) -> list:
    """A figure's numbers, which plotly writes as base64 where they came from an array."""
    if isinstance(values, list):
        return values
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()


def field(app: AppTest, kind: str, key: str):
    """The widget with that key, among those of one kind."""
    return next(widget for widget in app.get(kind) if widget.key and widget.key.startswith(key))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_nothing_there(page: str) -> None:
    app = open_page(page)
    assert app.title
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_trained_runs(page: str, pair: list[Run]) -> None:
    assert not open_page(page).error


def test_the_first_words_are_on_screen_before_torch_is_imported() -> None:
    """The Start page's spinner is where it begins to import; before it there must be words and no torch."""
    code = """
import runpy, sys, streamlit as st
said = []
st.markdown = said.append
st.spinner = lambda text: sys.exit(7 if said and "torch" not in sys.modules else 1)
runpy.run_path("pages/start/start.py")
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert result.returncode == 7, result.stderr


@pytest.mark.parametrize("code", ["ResNet-20~stages.x", "../../etc", "ResNet-20~classes.99999999999", "", "🦊" * 500])
@pytest.mark.parametrize("page", ["design/build.py", "training/train.py", "insight/gradients.py"])
def test_a_net_in_the_address_that_is_none_is_told(page: str, code: str) -> None:
    app = open_page(page, net=code)
    assert "The net in the address cannot be built" in texts(app)
    assert address(app) == "ResNet-20"


@pytest.mark.parametrize(
    "name", ["ResNet-20", "ResNet-1202", "ResNet-152", "SE-ResNet-50", "Pre-ResNet-50", "ResNet3D-18"]
)
def test_build_shows_a_preset_and_its_twin(name: str) -> None:
    app = open_page("design/build.py")
    field(app, "selectbox", "build.preset").set_value(name).run()
    figures = {metric.label: metric for metric in fine(app).metric}
    own, twin = profile(PRESETS[name]), profile(plain_twin(PRESETS[name]))
    assert figures["Parameters"].value == f"{own.params:,}"
    assert figures["MACs per image"].value == f"{own.macs:,}"
    assert figures["FLOPs per image"].value == f"{2 * own.macs:,}"
    assert figures["MACs per image"].delta.endswith(f"{twin.macs:,}")
    assert address(app) == to_code(PRESETS[name])


def test_build_keeps_the_last_valid_net_and_names_the_rule() -> None:
    app = open_page("design/build.py")
    field(app, "number_input", "build.width.2").set_value(8).run()
    assert "Shortcut A pads" in fine(app).error[0].value
    assert address(app) == "ResNet-20"
    field(app, "button_group", "build.shortcut").set_value("B").run()
    assert not fine(app).error
    assert "8s2" in address(app)


def test_build_edits_follow_one_another() -> None:
    app = open_page("design/build.py", net="ResNet-56")
    for blocks in (10, 11, 12):
        field(app, "number_input", "build.blocks.0").set_value(blocks).run()
        assert f"{blocks}x16s1" in address(fine(app))
    field(app, "number_input", "build.stages").set_value(4).run()
    assert address(fine(app)).endswith("9x64s2-9x128s2")
    for view in ("Layers", "Costs by stage", "Stages"):
        field(app, "button_group", "build.view").set_value(view).run()
        fine(app)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that the page starts, without their processes."""
    found: list[Run] = []
    monkeypatch.setattr(runs, "start", lambda *some: found.extend(some))
    return found


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click().run()
    return fine(app)


def test_train_starts_both_twins(started: list[Run]) -> None:
    app = open_page("training/train.py", net=to_code(TINY))
    field(app, "number_input", "train.epochs").set_value(2).run()
    field(app, "number_input", "train.n.").set_value(100).run()
    press(app, "Start training")
    residual, plain = started
    assert residual.job.net == TINY
    assert plain.job == dataclasses.replace(residual.job, net=plain_twin(TINY))
    assert (residual.job.recipe["epochs"], residual.job.train_images) == (2, 100)
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
    assert len({(run.job.group, tuple(run.job.recipe.items()), run.job.threads) for run in started}) == 1
    assert started[0].job.recipe == vars(RECIPES["fast"])


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
    save_npz(data_of_its_own / "floats.npz", train_images=np.zeros((20, 16, 16, 3), np.float32))
    save_npz(data_of_its_own / "short.npz", leave_out="test_labels")
    (data_of_its_own / "text.npz").write_text("not an archive")
    (data_of_its_own / "one class" / "cat").mkdir(parents=True)
    PHOTO.save(data_of_its_own / "one class" / "cat" / "a.png")
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


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("torn", ["status.json", "steps.bin", "epochs.jsonl", "info.json", "checkpoint.safetensors"])
def test_every_page_survives_a_damaged_run(pair: list[Run], torn: str, page: str) -> None:
    (pair[0].path / torn).write_bytes(b"\x00{")
    open_page(page)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_of_both_norms(norm: str) -> None:
    app = open_page("insight/gradients.py", net=to_code(TINY))
    field(app, "button_group", "gradients.norm").set_value(norm).run()
    captions = "\n".join(caption.value for caption in fine(app).caption)
    assert captions.count("per layer") == 4  # two nets in each of two figures


def test_gradients_with_zero_init() -> None:
    app = open_page("insight/gradients.py", net=to_code(TINY))
    field(app, "toggle", "gradients.zero").set_value(True).run()
    fine(app)


def test_gradients_refuses_a_net_that_would_not_fit() -> None:
    app = open_page("insight/gradients.py", net="ResNet-152~stages.50x4096s1~image_size.1024")
    assert "too large to be run inside the app" in app.error[0].value


def test_gradients_after_training(pair: list[Run]) -> None:
    app = open_page("insight/gradients.py")
    field(app, "button_group", "gradients.when").set_value("after training").run()
    assert "after training, on one batch" in texts(fine(app))


def test_saliency_offers_to_train_a_pair(started: list[Run]) -> None:
    app = open_page("insight/saliency.py")
    assert "no trained pair" in texts(app)
    press(app, "Train a small pair on drawn shapes (about a minute)")
    assert [run.job.net.plain for run in started] == [False, True]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def upload(app: AppTest, name: str, content: bytes) -> AppTest:
    field(app, "button_group", "saliency.kind").set_value("Upload").run()
    app.file_uploader[0].set_value((name, content, "image/png")).run()
    return fine(app)


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"just words", "not a PNG, JPEG or WebP"),
        ("empty.jpg", b"", "empty"),
        ("cut.jpg", encoded(PHOTO, "JPEG")[:700], "damaged or cut off"),
        ("huge.png", encoded(Image.new("1", (30_000, 30_000)), "PNG"), "30,000 x 30,000"),
        ("tiny.png", encoded(PHOTO.resize((4, 4)), "PNG"), "at least 8 x 8"),
        ("moving.gif", encoded(PHOTO, "GIF"), "not a PNG, JPEG or WebP"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_saliency_says_what_is_wrong_with_a_photo(pair: list[Run], name: str, content: bytes, words: str) -> None:
    app = upload(open_page("insight/saliency.py"), name, content)
    assert words in app.error[0].value


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("method", METHODS)
def test_saliency_explains_a_photo_with_both_nets(pair: list[Run], method: str, mode: str) -> None:
    app = upload(open_page("insight/saliency.py"), "photo.jpg", encoded(PHOTO.convert(mode), "JPEG"))
    field(app, "button_group", "saliency.method").set_value(method).run()
    captions = [caption.value for caption in fine(app).caption]
    assert sum(caption.startswith(f"{METHODS[method].title} for the logit of") for caption in captions) == 2
    assert not app.error


def test_saliency_of_a_sample_by_layer_and_class(pair: list[Run]) -> None:
    app = open_page("insight/saliency.py")
    field(app, "slider", "saliency.sample").set_value(3).run()
    field(app, "selectbox", "saliency.layer").set_value("layer1.0").run()
    target = next(box for box in app.selectbox if box.label == "Class to explain")
    target.set_value(7).run()
    assert texts(fine(app)).count(f"logit of “{list(SHAPES)[7]}”") == 2


# Compare, Budget, Relatives, Export


def test_build_marks_the_field_that_breaks_a_rule_and_opens_its_topic() -> None:
    app = open_page("design/build.py", net="ResNet-50")
    field(app, "number_input", "build.cardinality").set_value(32).run()
    assert "cardinality.32" in address(fine(app))
    field(app, "button_group", "build.block").set_value("basic").run()
    assert "belongs to a bottleneck" in fine(app).error[0].value
    assert "cardinality.32" in address(app), "the last valid net stays"
    assert [e.label for e in app.expander if e.proto.expanded] == ["Inside a block"]
    assert any(".st-key-build-cardinality" in getattr(html, "body", "") for html in app.get("html"))


def test_output_stride_dilates() -> None:
    app = open_page("design/build.py", net="ResNet-50")
    field(app, "selectbox", "build.output_stride").set_value(8).run()
    assert address(fine(app)) == "ResNet-50_OS8"
    assert field(app, "number_input", "build.dilation.3").value == 4


@pytest.mark.parametrize("view", ["Counting rules", "Memory", "Speed"])
@pytest.mark.parametrize("net", ["ResNet-20", "ResNet3D-10_volume~frames.8~image_size.16"])
def test_views_of_costs(view: str, net: str) -> None:
    app = open_page("design/build.py", net=net)
    field(app, "button_group", "build.view").set_value(view).run()
    if view == "Counting rules":
        assert count(profile(from_code(net)), "he2015") == int(fine(app).metric[-1].value.replace(",", ""))
        field(app, "selectbox", "costs.convention").set_value("thop").run()
        assert count(profile(from_code(net)), "thop") == int(fine(app).metric[-1].value.replace(",", ""))
    if view == "Memory" and net == "ResNet-20":
        field(app, "number_input", "costs.batch").set_value(8).run()
        next(button for button in app.button if "Measure the peak" in button.label).click().run()
        values = {metric.label: float(metric.value.split()[0].replace(",", "")) for metric in fine(app).metric[4:]}
        assert values["Measured peak while training"] == pytest.approx(values["Peak while training"], rel=0.25)
    if view == "Speed":
        next(button for button in app.button if "Measure" in button.label).click().run()
        assert "Median of" in texts(app)
    assert not fine(app).error


def test_compare_explains_the_two_listings() -> None:
    app = open_page("design/compare.py", net="ResNet-50")
    assert "ResNet-50 Keras listing" in field(app, "multiselect", "compare.nets").value
    field(app, "button_group", "compare.view").set_value("Difference of two").run()
    assert "stride of stage 1: `1` → `2`" in texts(fine(app))
    assert "exactly -2,978,611,200" in texts(app)
    field(app, "button_group", "compare.view").set_value("Published accuracy").run()
    assert {76.13, 80.858} <= set(fine(app).dataframe[-1].value["value"])
    field(app, "multiselect", "compare.nets").set_value(["VGG-11"]).run()
    assert "two nets or more" in texts(fine(app))
    field(app, "multiselect", "compare.nets").set_value(["VGG-11", "FCN ResNet-50"]).run()
    for view in ("Costs", "Difference of two", "Published accuracy"):
        field(app, "button_group", "compare.view").set_value(view).run()
        assert not fine(app).error


def test_an_accuracy_measured_at_another_size_is_marked() -> None:
    app = open_page("design/compare.py", net="ResNet-50~image_size.160")
    field(app, "button_group", "compare.view").set_value("Published accuracy").run()
    marks = {trace["name"]: trace for trace in json.loads(fine(app).get("plotly_chart")[0].proto.spec)["data"]}
    own = marks["My net: ResNet-50"]
    assert set(plain_list(own["marker"]["symbol"])) <= set(range(100, 108))  # hollow
    assert all("measured at 224 px" in text for text in own["text"])
    for other in ("ResNet-50", "ResNeXt-50 32x4d"):
        assert set(plain_list(marks[other]["marker"]["symbol"])) <= set(range(8))
    assert "A hollow mark was measured at another size" in texts(app)


def test_budget_lists_nets_that_fit_and_loads_one() -> None:
    app = open_page("design/budget.py", net="ResNet-20")
    field(app, "number_input", "budget.params").set_value(0.3).run()
    next(button for button in app.button if button.label == "Find nets").click().run()
    table = fine(app).dataframe[0].value
    assert len(table) > 1
    assert (table.params <= 300_000).all()
    field(app, "number_input", "budget.params").set_value(0.000001).run()
    next(button for button in app.button if button.label == "Find nets").click().run()
    assert "No net of the grid fits" in texts(fine(app))


def test_a_relative_on_too_small_an_image_is_shown_up_to_there() -> None:
    app = open_page("design/relatives.py")
    assert {"Parameters": "132,863,336"}.items() <= {metric.label: metric.value for metric in app.metric}.items()
    field(app, "number_input", "relatives.size").set_value(16).run()
    assert "stops at features.20" in fine(app).error[0].value
    assert len(app.dataframe[0].value) == 20
    field(app, "button_group", "relatives.kind").set_value("Systems").run()
    assert not fine(app).error


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_export_can_be_downloaded_or_says_why_not(name: str) -> None:
    app = open_page("design/export.py", net="ResNet-8~stages.1x4s1-1x8s2~stem_width.4")
    app.radio[0].set_value(name).run()
    if EXPORTERS[name].needs_weights:
        app.toggle[0].set_value(True).run()
    offered = fine(app).get("download_button")
    assert bool(offered) != bool(app.warning)
    assert not app.error


def test_weights_of_a_file_are_loaded_or_listed_key_by_key() -> None:
    net = "ResNet-8~stages.1x4s1-1x8s2~stem_width.4"
    model = build(from_code(net), seed=3)
    app = open_page("design/export.py", net=net)
    app.radio[0].set_value("weights").run()
    field(app, "selectbox", "export.weights").set_value("my own file").run()
    app.file_uploader[0].set_value(("own.safetensors", save(model.state_dict()), "application/octet-stream")).run()
    app.toggle[0].set_value(True).run()
    assert fine(app).get("download_button")
    wrong = {"conv1.weight": torch.zeros(1), "linear.weight": torch.zeros(10, 8)}
    app.file_uploader[0].set_value(("wrong.safetensors", save(wrong), "application/octet-stream")).run()
    assert "nothing was loaded" in fine(app).error[0].value
    listed = app.dataframe[0].value.set_index("key")
    assert tuple(listed.loc["conv1.weight"]) == ("shape", "4 x 3 x 3 x 3", "1")
    assert listed.problem["fc.bias"] == "missing"
    app.file_uploader[0].set_value(("text.pth", b"no weights", "application/octet-stream")).run()
    assert "no whole file of weights" in fine(app).error[0].value


def test_torchvisions_weights_without_a_network_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args: object, **options: object) -> None:
        raise URLError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    app = open_page("design/export.py", net="ResNet-18")
    app.radio[0].set_value("weights").run()
    field(app, "selectbox", "export.weights").set_value("torchvision's IMAGENET1K_V1").run()
    next(button for button in app.button if button.label == "Download").click().run()
    assert len(fine(app).error) == 1
    assert "resnet18-f37072fd.pth" in app.error[0].value
    assert "cannot be reached (Network is unreachable)" in app.error[0].value


def test_compare_follows_the_visitors_net() -> None:
    app = open_page("design/compare.py", net="ResNet-20~stem_width.9~shortcut.B")
    chosen = field(app, "multiselect", "compare.nets").value
    assert chosen[0] == "My net: ResNet-20 (custom)"
    app.query_params["net"] = "plain-56"
    fine(app.run())
    assert not app.error
    assert "My net: plain-56" in field(app, "multiselect", "compare.nets").options
