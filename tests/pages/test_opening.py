"""What holds for every page: it opens, and nothing in the address or in a run's folder breaks it."""

from pathlib import Path

import pytest

from pages.ui import navigation
from resnet.nets.codes import to_code
from resnet.nets.spec import plain_twin
from resnet.runs.store import Run
from tests.support.pages import TINY, address, field, fine, open_page, texts

PAGES = {path.relative_to(navigation.PAGES).as_posix() for paths in navigation.found().values() for path in paths}
HEADINGS = {page: navigation.words(Path(page).stem) for page in sorted(PAGES)} | {"start/start.py": "ResNet Explorer"}
DAMAGED = ["status.json", "steps.bin", "epochs.jsonl", "info.json", "checkpoint.safetensors"]


@pytest.mark.parametrize(("page", "heading"), HEADINGS.items())
def test_a_page_opens_with_nothing_there(page: str, heading: str) -> None:
    app = open_page(page)
    assert [title.value for title in app.title] == [heading]
    assert not app.error


@pytest.mark.parametrize("code", ["ResNet-20~stages.x", "../../etc", "ResNet-20~classes.99999999999", "", "🦊" * 500])
@pytest.mark.parametrize("page", ["design/build.py", "training/train.py", "why/gradients.py"])
def test_a_net_in_the_address_that_is_none_is_told(page: str, code: str) -> None:
    app = open_page(page, net=code)
    assert "The net in the address cannot be built" in texts(app)
    assert address(app) == "ResNet-20"


def test_codes_in_a_warning_are_not_struck_out() -> None:
    app = open_page("design/build.py", net="preact_resnet18")
    assert r"ResNet-18\~block.preact-basic or ResNet-18\~stem.3x3" in fine(app).warning[0].value


def test_a_net_in_the_address_may_have_any_of_its_names() -> None:
    app = open_page("design/build.py", net="timm/resnet50.a1_in1k~classes.10")
    assert address(fine(app)) == "ResNet-50~classes.10"


@pytest.mark.parametrize("torn", DAMAGED)
def test_a_damaged_run_leaves_the_others_on_the_train_page(pair: list[Run], torn: str) -> None:
    (pair[0].path / torn).write_bytes(b"\x00{")
    assert pair[1].id in set(open_page("training/train.py").dataframe[-1].value.run)


@pytest.mark.parametrize("torn", DAMAGED)
def test_a_damaged_run_leaves_the_others_weights_for_export(pair: list[Run], torn: str) -> None:
    (pair[0].path / torn).write_bytes(b"\x00{")
    app = open_page("design/export.py", net=to_code(plain_twin(TINY)))
    app.radio[0].set_value("weights").run()
    assert f"run {pair[1].id}" in field(fine(app), "selectbox", "export.weights").options


@pytest.mark.parametrize("torn", DAMAGED)
def test_a_damaged_run_leaves_the_others_gradients(pair: list[Run], torn: str) -> None:
    (pair[0].path / torn).write_bytes(b"\x00{")
    offered = field(open_page("why/gradients.py"), "multiselect", "why.nets").options
    assert any(pair[1].id[:15] in option for option in offered)


@pytest.mark.parametrize("torn", DAMAGED)
def test_a_damaged_run_leaves_the_saliency_page_usable(pair: list[Run], torn: str) -> None:
    (pair[0].path / torn).write_bytes(b"\x00{")
    offered = field(open_page("insight/saliency.py"), "multiselect", "lab.nets").options
    assert any(pair[1].id[:15] in option for option in offered)
