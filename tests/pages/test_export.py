"""Export: every form of file, with any weights."""

import asyncio
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

from pages.ui import cached, server
from resnet.exports.forms import EXPORTERS
from resnet.nets.codes import from_code, to_code
from resnet.nets.model import build
from resnet.runs.store import Run
from resnet.work import spool
from tests.support.pages import TINY, field, fine, open_page


def written(app: AppTest) -> bool:
    """Whether a file is offered, once it has been asked for where it takes long."""
    if found := [button for button in fine(app).button if button.label.startswith("Write the file (about ")]:
        found[0].click().run()
    return bool(fine(app).get("download_button") or app.get("link_button"))


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_export_can_be_downloaded_or_says_why_not(name: str) -> None:
    app = open_page("design/export.py", net="ResNet-8~stages.1x4s1-1x8s2~stem_width.4")
    app.radio[0].set_value(name).run()
    assert written(app) != bool(app.warning)
    assert not app.error


def test_the_weights_of_a_run_are_exported(pair: list[Run]) -> None:
    app = open_page("design/export.py", net=to_code(TINY))
    app.radio[0].set_value("weights").run()
    offered = field(app, "selectbox", "export.weights").options
    assert f"run {pair[0].id}" in offered
    assert f"run {pair[1].id}" not in offered, "it is another net's"
    field(app, "selectbox", "export.weights").set_value(f"run {pair[0].id}").run()
    assert written(app)
    assert not app.error


def test_weights_of_a_file_are_loaded_or_listed_key_by_key() -> None:
    net = "ResNet-8~stages.1x4s1-1x8s2~stem_width.4"
    model = build(from_code(net), seed=3)
    app = open_page("design/export.py", net=net)
    app.radio[0].set_value("weights").run()
    field(app, "selectbox", "export.weights").set_value("my own file").run()
    app.file_uploader[0].set_value(("own.safetensors", save(model.state_dict()), "application/octet-stream")).run()
    assert written(app)
    wrong = {"conv1.weight": torch.zeros(1), "linear.weight": torch.zeros(10, 8)}
    app.file_uploader[0].set_value(("wrong.safetensors", save(wrong), "application/octet-stream")).run()
    assert "Nothing was loaded: 1 of 27 weights fit" in fine(app).error[0].value
    listed = app.dataframe[0].value.set_index("key")
    assert tuple(listed.loc["conv1.weight"]) == ("shape", "4 x 3 x 3 x 3", "1")
    assert listed.problem["fc.bias"] == "missing"
    app.file_uploader[0].set_value(("text.pth", b"no weights", "application/octet-stream")).run()
    assert "no file of weights but text" in fine(app).error[0].value


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


@pytest.mark.parametrize(
    ("digest", "name", "status"),
    [
        ("own", "resnet-8.safetensors", 200),
        ("0" * 64, "resnet-8.safetensors", 404),
        ("../own", "resnet-8.safetensors", 404),
        ("/etc/hostname", "resnet-8.safetensors", 404),
        ("own", "a\r\nSet-Cookie: b", 404),
    ],
)
def test_only_exported_files_are_sent(digest: str, name: str, status: int) -> None:
    own = spool.put(Path(cached.files().name), b"weights").name
    request = Request({"type": "http", "path_params": {"digest": digest.replace("own", own), "name": name}})
    answer = asyncio.run(server.send_file(request))
    assert answer.status_code == status
    if status == 200:
        assert f'filename="{name}"' in answer.headers["content-disposition"]
