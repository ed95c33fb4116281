"""Every analysis on one net: a table, and the net as it was."""

import pandas as pd
import pytest
import torch

from resnet.analysis.analyses import ANALYSES
from resnet.nets.model import build
from tests.support.unchanged import SMALL, images, leaves_model_as_found


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_gives_a_table_and_leaves_the_net_as_it_was(name: str) -> None:
    analysis, labels = ANALYSES[name], torch.arange(4)
    table = analysis.function(build(SMALL), images(), labels)
    assert isinstance(table, pd.DataFrame)
    assert len(table)
    assert all([analysis.title, analysis.formula, analysis.paper])
    leaves_model_as_found(lambda model: analysis.function(model, images(), labels))
