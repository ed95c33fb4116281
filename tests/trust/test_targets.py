"""The maps of which other classes are compared, and as what."""

import dataclasses

import pytest
import torch

from resnet.attribution.methods import explain
from resnet.trust.checks import judge
from resnet.trust.contract import Case
from resnet.trust.similarity import spearman
from tests.support.unchanged import images, worn


@pytest.mark.parametrize("against", [None, 3])
def test_compares_the_likeliest_other_classes(against: int | None) -> None:
    model, target = worn().eval(), torch.tensor([0, 1, 2, 4])
    case = Case(images(), target, "saliency", against=against)
    finding = judge("targets", model, case)
    assert finding.curves is not None
    own = explain("saliency", model, case.images, target, against=against)
    with torch.no_grad():
        logits = model(case.images)
    for image, rows in finding.curves.groupby("image"):
        row = int(str(image))
        order = [c for c in logits[row].argsort(descending=True).tolist() if c not in (int(target[row]), against)]
        assert rows.other.tolist() == order[:4]
        for other, alike in zip(rows.other, rows.spearman, strict=True):
            maps = explain("saliency", model, case.images[[row]], int(other), against=against)
            assert alike == pytest.approx(float(spearman(own[[row]], maps)), abs=1e-3)
        assert finding.each[row] == pytest.approx(rows.spearman.mean(), abs=1e-6)
    assert finding.value == pytest.approx(sum(finding.each) / 4)


def test_a_map_that_is_the_same_for_all_classes_is_bad() -> None:
    model = worn().eval()
    model.get_parameter("fc.weight").data[:] = model.get_parameter("fc.weight").data[:1]
    case = Case(images(), torch.tensor([0, 1, 2, 4]), "saliency")
    finding = judge("targets", model, case)
    assert finding.value == pytest.approx(1)
    assert finding.verdict == "bad"
    flat = dataclasses.replace(case, maps=torch.ones(4, 16, 16))
    assert judge("targets", model, flat).sentence.startswith("The map is the same everywhere")
