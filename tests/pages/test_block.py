"""Block: the numbers of the equation are those of the library, and a step can be taken and undone."""

import pytest
import torch

from resnet.analysis.microscope import microscope
from resnet.data.photos import open_photo, photo_batch
from resnet.data.samples import SAMPLES
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from tests.support.pages import field, fine, open_page, texts

PAGE = "why/block.py"
VIEWS = ["Forward", "Back", "Layer by layer", "One step"]


def linked(pair: list[Run]) -> str:
    return f"run:{pair[0].id}"


@pytest.mark.parametrize("view", VIEWS)
def test_untrained_twins_are_seen_at_once(view: str) -> None:
    app = open_page(PAGE, view=view)
    assert "ResNet-20" in texts(app)
    assert "A plain block has no shortcut" in texts(app)
    assert len(app.get("plotly_chart")) >= 3  # the diagram and each net's maps
    assert not app.error


def test_the_equation_has_the_numbers_of_the_run(pair: list[Run]) -> None:
    app = open_page(PAGE, nets=linked(pair), photo="sample:cat", block="layer2.0")
    opened = open_run(pair[0])
    spec = pair[0].job.net
    [sample] = [each for name, each in SAMPLES.items() if name == "cat"]
    images = opened.prepare(photo_batch(open_photo(sample.path.read_bytes()), spec.image_size, spec.in_channels))
    with torch.no_grad():
        label = int(opened.model.eval()(images).argmax())
    expected = microscope(opened.model, images, label, "layer2.0").before
    assert f"{expected.forward.branch:.3g}, the cosine between them {expected.forward.cosine:.2f}" in texts(app)
    field(app, "button_group", "view").set_value("Back").run()
    assert f"through the branch {expected.backward.branch:.3g}" in texts(fine(app))
    assert field(app, "selectbox", "block").value == "layer2.0"


def test_a_step_is_taken_and_undone(pair: list[Run]) -> None:
    app = open_page(PAGE, nets=linked(pair), view="One step")
    before = app.metric[0].value
    field(app, "toggle", "block.step").set_value(True).run()
    assert fine(app).metric[0].value != before
    assert app.metric[0].delta
    field(app, "toggle", "block.step").set_value(False).run()
    assert fine(app).metric[0].value == before


def test_a_net_without_the_block_says_so(pair: list[Run]) -> None:
    app = open_page(PAGE, block="layer3.2")
    field(app, "multiselect", "why.nets").set_value([*field(app, "multiselect", "why.nets").value, linked(pair)]).run()
    assert "has no block layer3.2" in "\n".join(box.value for box in fine(app).info)
