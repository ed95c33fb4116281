"""Every analysis on one net: tables that end in a whole one, and the net as it was."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.contract import last
from resnet.nets.model import build
from tests.support.unchanged import SMALL, images, leaves_model_as_found, worn


def goes_back(call: Callable[[nn.Module], object]) -> bool:
    """Whether it differentiates what leaves the head."""
    model, reached = worn(), list[Tensor]()

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(reached.append)

    model.get_submodule("fc").register_forward_hook(hook)
    call(model)
    return bool(reached)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_gives_a_table_and_leaves_the_net_as_it_was(name: str) -> None:
    analysis, labels = ANALYSES[name], torch.arange(4)
    steps = list(analysis.function(build(SMALL), images(), labels, **analysis.options))
    assert [step.share for step in steps] == sorted(step.share for step in steps)
    assert steps[-1].share == 1.0
    assert isinstance(steps[-1].table, pd.DataFrame)
    assert len(steps[-1].table)
    assert all([analysis.title, analysis.question, analysis.formula, analysis.paper, analysis.look, analysis.expect])
    assert analysis.passes(9, analysis.options) > 0

    def call(model: nn.Module) -> object:
        return last(analysis.function(model, images(), labels, **analysis.options))

    leaves_model_as_found(call, backward=goes_back(call))
    again = last(analysis.function(build(SMALL), images(), labels, **analysis.options))
    pd.testing.assert_frame_equal(again, steps[-1].table)
