"""Answers and maps as the Saliency page asks for them: the library's own, net by net, and known while they are made."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from resnet.attribution.contract import Partial
from resnet.attribution.methods import METHODS, explain
from resnet.nets.codes import from_code
from resnet.work.explaining import Answer, Answers, Maps, Picture, Query
from resnet.work.weights import Model, Opened, Weights, prepared, usual
from tests.support.tiny import TINY_CODE
from tests.support.work import done

NET = from_code(TINY_CODE)
MODELS = [Model(NET, Weights("seed", str(seed)), usual(NET, "ImageNet's")) for seed in (0, 1)]
PIXELS = np.random.default_rng(0).integers(0, 256, (2, NET.in_channels, NET.image_size, NET.image_size), np.uint8)
PICTURES = [Picture.of(pixels) for pixels in PIXELS]


def query(
    model: int = 0, picture: int = 0, method: str = "grad-cam", target: int = 0, against: int | None = None
) -> Query:
    return Query(
        MODELS[model], PICTURES[picture], method, "layer1" if METHODS[method].needs_layer else "", target, against
    )


def wanted(each: Query) -> np.ndarray:
    model, _, inputs = each.model.open()
    images = prepared(each.picture.batch(), inputs)
    return explain(each.method, model, images, each.target, each.layer, None, each.against)[0].numpy()


def test_each_map_is_that_of_its_own_query() -> None:
    asked = (query(), query(1), query(1, 1, "saliency"), query(0, 1, target=1, against=2))
    for each, values in zip(asked, done(Maps(asked)), strict=True):
        assert np.array_equal(values, wanted(each))


def test_a_net_is_opened_once_for_queries_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = Model.open

    def counted(model: Model) -> Opened:
        opened.append(model.weights.name)
        return plain(model)

    monkeypatch.setattr(Model, "open", counted)
    done(Maps((query(), query(0, 1), query(1), query(1, 1), query())))
    assert opened == ["0", "1", "0"]


def test_maps_are_known_while_they_get_finer(monkeypatch: pytest.MonkeyPatch) -> None:
    def finer(model: object, request: object) -> Iterator[Partial]:
        for share in (0.5, 1.0):
            yield Partial(torch.full((1, 8, 8), share), share)

    monkeypatch.setitem(METHODS, "saliency", replace(METHODS["saliency"], function=finer))
    seen = list(Maps((query(method="saliency"), query(1, 0, "saliency"))).run())
    assert [round(each.share, 2) for each in seen] == [0, 0.25, 0.5, 0.5, 0.75, 1.0]
    assert [[float(values.max()) for values in each.so_far] for each in seen] == [
        [], [0.5], [1.0], [1.0], [1.0, 0.5], [1.0, 1.0],
    ]  # fmt: skip


def test_an_answer_has_every_class() -> None:
    [first, second] = done(Answers(tuple(MODELS), tuple(PICTURES)))
    model, _, inputs = MODELS[1].open()
    with torch.no_grad():
        probabilities = model.eval()(prepared(PIXELS[1:], inputs)).softmax(1)[0]
    torch.testing.assert_close(torch.from_numpy(second.probabilities), probabilities)
    assert first.probabilities.sum() == pytest.approx(1)
    assert second.top(2) == probabilities.topk(2).indices.tolist()


def test_the_likeliest_class_comes_first() -> None:
    assert Answer(np.array([0.1, 0.6, 0.3])).top(2) == [1, 2]


def test_methods_of_more_passes_cost_more() -> None:
    spec = from_code("ResNet-20")
    model, picture = Model(spec, Weights("seed", "0")), Picture.of(np.zeros(spec.input_shape, np.uint8))
    few, many = (
        Maps((Query(model, picture, method, "", 0),)).cost() for method in ("saliency", "integrated-gradients")
    )
    assert many.seconds > 5 * few.seconds
    assert many.bytes > 5 * few.bytes, "its steps run in batches"
    twice = Maps((query(), query(1))).cost()
    assert twice.seconds == pytest.approx(2 * Maps((query(),)).cost().seconds)
