"""Inputs as text: the same again, or refused."""

import pytest

from resnet.errors import Refused
from resnet.nets.inputs import Inputs

BY_PIXEL = (((0.25, 0.5), (0.75, 1.0)),)


@pytest.mark.parametrize("mean", [(0.485, 0.456, 0.406), BY_PIXEL], ids=["by channel", "by pixel"])
def test_text_gives_the_same_inputs(mean):
    inputs = Inputs(mean, mean, ("cat", "chien à poil long"))
    assert Inputs.from_json(inputs.to_json()) == inputs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"mean": 1, "std": [1], "class_names": []}',
        '{"mean": [NaN], "std": [1], "class_names": []}',
        '{"mean": ["0.5"], "std": [1], "class_names": []}',
        '{"mean": [true], "std": [1], "class_names": []}',
        '{"mean": [1], "std": [1], "class_names": 3}',
        '{"mean": ' + "[" * 100_000,
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(Refused, match="inputs"):
        Inputs.from_json(text)
