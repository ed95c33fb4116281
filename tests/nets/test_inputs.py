"""Inputs as text: the same again, or refused."""

import dataclasses

import pytest

from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.nets.spec import cifar

BY_PIXEL = (((0.25, 0.5), (0.75, 1.0)),)


@pytest.mark.parametrize("mean", [(0.485, 0.456, 0.406), BY_PIXEL], ids=["by channel", "by pixel"])
def test_text_gives_the_same_inputs(mean):
    inputs = Inputs(mean, mean, ("cat", "chien à poil long"), began="run 1, 30 of 32 weights")
    assert Inputs.from_json(inputs.to_json()) == inputs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"mean": 1, "std": [1], "class_names": []}',
        '{"mean": [NaN], "std": [1], "class_names": []}',
        '{"mean": ["half"], "std": [1], "class_names": []}',
        '{"mean": [[[1, 2], [3]]], "std": [1], "class_names": []}',
        '{"mean": [1' + "0" * 400 + '], "std": [1], "class_names": []}',
        '{"mean": [1], "std": [1], "class_names": 3}',
        '{"mean": ' + "[" * 100_000,
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(Refused, match="inputs"):
        Inputs.from_json(text)


NET = dataclasses.replace(cifar(8), in_channels=1, image_size=8)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (Inputs((0.5,), (0.5,), tuple("abcdefghij")), tuple("abcdefghij")),
        (Inputs((0.5,), (0.5,), ("cat", "dog")), tuple("0123456789")),
        (Inputs((((0.5,) * 8,) * 8,), (1.0,), ()), tuple("0123456789")),
        (Inputs((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ()), None),
        (Inputs(BY_PIXEL, (1.0,), ()), None),
        (Inputs((0.5,), (0.0,), ()), None),
    ],
    ids=["its own", "other classes", "by pixel", "other channels", "other pixels", "a deviation of 0"],
)
def test_inputs_are_fitted_to_a_net(inputs, names):
    fitted = inputs.fitted(NET)
    assert (fitted and fitted.class_names) == names
    assert fitted is None or (fitted.mean, fitted.std) == (inputs.mean, inputs.std)
