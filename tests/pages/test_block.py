"""Block: the numbers of the equation are those of the library, and a step can be taken and undone."""

import pytest
import torch
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from torch import Tensor

from resnet.analysis.microscope import microscope
from resnet.data.photos import open_photo, photo_batch
from resnet.data.samples import SAMPLES
from resnet.nets.model import build
from resnet.nets.spec import PRESETS
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


@pytest.mark.parametrize("tensor", ["x", "conv1", "F(x)", "y"])
def test_a_cells_box_has_the_pixels_that_it_depends_on(tensor: str) -> None:
    app = open_page(PAGE, view="Layer by layer", block="layer2.1")
    table = convert_arrow_bytes_to_pandas_df(app.get("vega_lite_chart")[0].proto.data.data)
    net = build(PRESETS["ResNet-20"]).double().eval()
    image, kept = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True), dict[str, Tensor]()
    block = net.get_submodule("layer2.1")
    block.register_forward_pre_hook(lambda _, args: kept.update(x=args[0]))
    for name, module in {"conv1": "conv1", "F(x)": "bn2"}.items():
        block.get_submodule(module).register_forward_hook(lambda *run, name=name: kept.update({name: run[2]}))
    block.register_forward_hook(lambda *run: kept.update(y=run[2]))
    net(image)
    for row, column in [(0, 0), (7, 8), (15, 3)]:
        [gradient] = torch.autograd.grad(kept[tensor][0, :, row, column].sum(), image, retain_graph=True)
        down, across = (gradient[0].abs().sum(0) > 0).nonzero(as_tuple=True)
        expected = [int(across.min()), int(down.min()), int(across.max()) + 1, int(down.max()) + 1]
        [found] = table.query("map == @tensor and row == @row and column == @column").to_dict("records")
        assert [found[edge] for edge in ("left", "top", "right", "bottom")] == expected
