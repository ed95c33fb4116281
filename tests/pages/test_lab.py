"""The Saliency page's menus of nets and pictures, in a page that has nothing else."""

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torchvision.models import regnet_y_400mf

from pages.ui import widgets
from pages.ui.lab.nets import FILE, Shown
from pages.ui.lab.picture import Picked
from resnet.data.samples import SAMPLES, open_sample
from resnet.data.views import Frame, see
from resnet.files import ROOT
from resnet.nets.codes import to_code
from resnet.nets.model import build
from resnet.nets.spec import PRESETS
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.zoo import hub
from tests.support.pages import TINY, field, fine, press, texts
from tests.support.server import Server
from tests.support.weights import saved

THEIRS = "torchvision:RegNet-Y 400MF:IMAGENET1K_V2"


def page() -> None:
    import streamlit as st

    from pages.ui import widgets, work
    from pages.ui.lab.nets import nets_field
    from pages.ui.lab.picture import picture_field
    from resnet.errors import Refused

    address = st.query_params
    with work.page_run(), widgets.show_errors(Refused):
        shown = st.session_state["shown"] = nets_field(address.get_all("nets"))
        st.session_state["picked"] = picture_field(shown, address.get("picture", ""), address.get("cut", ""))


@pytest.fixture(autouse=True)
def without_other_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widgets, "page_link", lambda *_: None)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Those that come with the program."""
    monkeypatch.setattr(runs, "SHIPPED", ROOT / "assets" / "runs")
    return runs.recorded_twins()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The only place that weights come from, and an empty folder to put them."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    torch.manual_seed(0)
    _, name, version = THEIRS.split(":")
    with Server(saved(regnet_y_400mf().state_dict())) as server:
        url = server.url(f"net-{hashlib.sha256(server.body).hexdigest()[:8]}.pth")
        monkeypatch.setattr(hub.offered(name)[version]._value_, "url", url)
        yield server


def opened(**address: Any) -> AppTest:
    app = AppTest.from_function(page, default_timeout=120)
    for name, value in address.items():
        app.query_params[name] = value
    return fine(app.run())


def shown(app: AppTest) -> list[Shown]:
    return app.session_state["shown"]


def picked(app: AppTest) -> Picked:
    return app.session_state["picked"]


def ids(app: AppTest) -> list[str]:
    return [net.id for net in shown(app)]


def choose(app: AppTest, *nets: str) -> AppTest:
    field(app, "multiselect", "lab.nets").set_value(list(nets)).run()
    return fine(app)


def pick(app: AppTest, picture: str) -> AppTest:
    field(app, "button", f"lab.pick.{picture}").click().run()
    return fine(app)


def test_a_recorded_net_and_its_twin_are_there_at_once_with_a_sample_photo(
    recorded: list[Run], pair: list[Run]
) -> None:
    app = opened()
    assert [net.title for net in shown(app)] == ["ResNet-20", "plain-20"], "and not the newest run"
    assert all(net.run and net.run.shipped for net in shown(app))
    assert shown(app)[0].class_names[3] == "cat"
    found = picked(app)
    assert (found.id, found.title, found.notes) == ("sample:cat", "Cat", ())
    assert np.array_equal(found.views[0].pixels, see(open_sample("cat"), Frame(32)).pixels)
    assert found.right("cat", shown(app)[0].class_names)
    assert found.right("dog", shown(app)[0].class_names) is False
    assert found.right("dog", ["dog", "frog"]) is None, "a net that knows no cat cannot be right"
    assert not app.warning
    assert not app.error


def test_without_recorded_runs_the_newest_pair_is_there(pair: list[Run]) -> None:
    assert ids(opened()) == [f"run:{run.id}" for run in pair]


def test_nets_that_are_called_alike_stay_two_nets(pair: list[Run]) -> None:
    again = pair[0].path.with_name(f"{pair[0].id[:-4]}abcd")
    shutil.copytree(pair[0].path, again)  # the same net on the same data, begun in the same second
    both = [f"run:{pair[0].id}", f"run:{again.name}"]
    app = opened(nets=both)
    assert ids(app) == both
    assert [net.title for net in shown(app)] == [f"{TINY.name} ({each[-4:]})" for each in both]
    options = field(app, "multiselect", "lab.nets").options
    assert len(set(options)) == len(options), "Streamlit tells options apart by what they are called"
    assert ids(choose(app, *reversed(both))) == both[::-1]


def test_without_any_run_the_page_still_has_its_menus() -> None:
    app = opened()
    assert shown(app) == []
    assert picked(app).id == "sample:cat"


def test_nets_come_from_the_address_and_the_choice_has_ids_for_it(recorded: list[Run]) -> None:
    run = next(run for run in recorded if run.job.net == PRESETS["ResNet-20"])
    wanted = [f"run:{run.id}@1", f"run:{run.id}"]
    app = opened(nets=wanted)
    assert ids(app) == wanted
    early, last = shown(app)
    assert (early.title, early.epoch, last.epoch) == ("ResNet-20 after epoch 1", 1, None)
    assert early.model.weights.epoch == 1
    assert early.trained == "after epoch 1 of its training on cifar10"
    assert last.trained.startswith("after ")
    assert "training steps on cifar10" in last.trained
    app = choose(app, wanted[1])
    assert ids(app) == [wanted[1]] == field(app, "multiselect", "lab.nets").value


@pytest.mark.parametrize(
    "wanted", ["run:20200101-000000-gone-abcd", "run:../../etc", "torchvision:ResNet-50:V9", "nonsense", "run:@x"]
)
def test_an_unknown_net_is_a_sentence_and_the_default(wanted: str, recorded: list[Run]) -> None:
    app = opened(nets=[wanted])
    assert wanted in app.warning[0].value
    assert [net.title for net in shown(app)] == ["ResNet-20", "plain-20"]
    known = f"run:{recorded[0].id}"
    assert ids(opened(nets=[wanted, known])) == [known]


def test_at_most_four_nets_are_taken_from_an_address(recorded: list[Run]) -> None:
    wanted = [f"run:{run.id}" for run in recorded]
    assert ids(opened(nets=[*wanted, f"{wanted[1]}@1"])) == wanted


def test_a_run_that_was_deleted_leaves_the_choice(pair: list[Run]) -> None:
    app = opened()
    pair[1].delete()
    app.run()
    assert ids(fine(app)) == [f"run:{pair[0].id}"]
    assert pair[1].id in app.warning[0].value


def test_a_relative_is_downloaded_at_one_click(server: Server, recorded: list[Run]) -> None:
    app = opened(nets=[THEIRS, f"run:{recorded[0].id}"])
    assert ids(app) == [f"run:{recorded[0].id}"], "the rest of the page goes on"
    assert "RegNet-Y 400MF: 17 MB from PyTorch's server" in texts(app)
    assert server.requests == 0
    press(app, "Download")
    assert ids(app) == [THEIRS, f"run:{recorded[0].id}"]
    net = shown(app)[0]
    assert (net.title, net.model.image_size, net.class_names[0]) == ("RegNet-Y 400MF", 224, "tench")
    assert net.trained == "with torchvision's IMAGENET1K_V2 (75.8 % right on ImageNet-1K)"
    assert [view.pixels.shape for view in picked(app).views] == [(3, 224, 224), (3, 32, 32)]
    cat = open_sample("cat")
    assert np.array_equal(picked(app).views[0].pixels, see(cat, Frame(224, 3, 232 / 224)).pixels)
    assert picked(app).right("tabby", net.class_names)
    [view] = picked(opened(nets=[THEIRS], picture="data:cifar10:256")).views
    assert view.box == (0, 0, 32, 32), "a test image is cut already"
    net.model.open()
    app.run()
    assert not [button for button in fine(app).button if button.label == "Download"]


def test_without_a_network_a_sentence_says_where_to_put_the_file(server: Server, recorded: list[Run]) -> None:
    app = opened(nets=[THEIRS, f"run:{recorded[0].id}"])
    server.shutdown()
    server.server_close()
    press(app, "Download")
    assert "put net-" in app.error[0].value
    assert "the recorded runs need no network" in app.error[0].value
    assert ids(app) == [f"run:{recorded[0].id}"]
    assert picked(app).views


def test_weights_from_a_file(recorded: list[Run]) -> None:
    app = opened(nets=[FILE], net=to_code(TINY))
    assert shown(app) == [], "there is no file yet"
    files = [each for each in app.file_uploader if "safetensors" in each.label]
    files[0].set_value(("own.pth", saved(build(TINY, seed=3).state_dict()), "application/octet-stream")).run()
    [net] = shown(fine(app))
    assert (net.id, net.model.spec, net.trained) == ("file", TINY, "with the file own.pth")
    assert net.model.frame == Frame(32, 3, 256 / 224), "ImageNet's usual way, until another is chosen"
    field(app, "selectbox", "lab.moments").set_value("CIFAR-10's").run()
    assert shown(fine(app))[0].model.frame == Frame(32)


def test_a_net_for_volumes_is_refused_alone(recorded: list[Run]) -> None:
    app = opened(nets=[FILE, f"run:{recorded[0].id}"], net="ResNet3D-18")
    assert "this net reads clips or volumes" in app.error[0].value
    assert ids(app) == [f"run:{recorded[0].id}"]


def test_a_sample_is_chosen_by_its_thumbnail(recorded: list[Run]) -> None:
    app = opened()
    keys = [button.key for button in app.button]
    assert keys == [f"lab.pick.sample:{name}" for name in SAMPLES]
    app = pick(app, "sample:rocket")
    assert picked(app).id == "sample:rocket"
    assert not picked(app).right("ship", shown(app)[0].class_names)


def test_a_photo_is_cropped_or_squeezed(recorded: list[Run]) -> None:
    app = opened()
    assert picked(app).views[0].box[0] > 0
    field(app, "button_group", "lab.cut").set_value("squeeze").run()
    assert picked(fine(app)).views[0].box == (0, 0, *open_sample("cat").size)
    assert picked(app).cut == "squeeze"
    assert picked(opened(cut="squeeze")).cut == "squeeze"
    assert picked(opened(cut="nonsense")).cut == "crop"


def test_a_test_image_of_the_runs_data_is_chosen_by_its_thumbnail(recorded: list[Run]) -> None:
    app = opened()
    field(app, "button_group", "lab.picture.kind").set_value("Test images").run()
    buttons = {str(button.key).removeprefix("lab.pick."): button.label for button in fine(app).button}
    assert {*buttons.values()} == {*shown(app)[0].class_names}, "one of each class"
    assert picked(app).id == "sample:cat", "until another is chosen"
    wanted, name = next(iter(buttons.items()))
    app = pick(app, wanted)
    found, row = picked(app), int(wanted.removeprefix("data:cifar10:"))
    labels, rows, pictures = recorded[0].test_set()
    expected = pictures[list(rows).index(row)]
    assert np.array_equal(found.views[0].pixels.transpose(1, 2, 0), expected)
    assert found.truth == (shown(app)[0].class_names[labels[row]],) == (name,)
    field(app, "selectbox", "lab.picture.class").set_value(3).run()
    assert {button.label for button in fine(app).button} == {"cat", name}, "and the chosen one stays in sight"
    again = opened(picture=found.id)
    assert picked(again).id == found.id
    assert np.array_equal(picked(again).views[0].pixels, found.views[0].pixels)
    assert field(again, "button_group", "lab.picture.kind").value == "Test images"


@pytest.mark.parametrize(
    "wanted", ["sample:dog", "data:cifar10:1", "data:cifar10:x", "data:gone:3", "data:", "https://x.org/a.jpg"]
)
def test_an_unknown_picture_is_a_sentence_and_the_default(wanted: str, recorded: list[Run]) -> None:
    app = opened(picture=wanted)
    assert wanted in app.warning[0].value
    assert picked(app).id == "sample:cat"


def test_an_uploaded_photo_is_upright_and_in_no_link(recorded: list[Run]) -> None:
    app = opened()
    field(app, "button_group", "lab.picture.kind").set_value("Upload").run()
    assert picked(fine(app)).id == "sample:cat", "never an empty form"
    assert "not in the link" in texts(app)
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (80, 40), (200, 0, 0)).save(out, "JPEG", exif=exif)
    app.file_uploader[0].set_value(("phone.jpg", out.getvalue(), "image/jpeg")).run()
    found = picked(fine(app))
    assert (found.id, found.title, found.photo.size) == (None, "phone.jpg", (40, 80))
    assert found.views[0].box == (0, 20, 40, 60)
    assert found.right("cat", shown(app)[0].class_names) is None
    app.file_uploader[0].set_value(("text.png", b"just words", "image/png")).run()
    assert "This is text, not a PNG" in fine(app).error[0].value
