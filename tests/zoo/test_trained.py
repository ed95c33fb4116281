"""Detectors and segmenters with weights: what torchvision offers, and its own way of loading them."""

import re
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from resnet.errors import Refused
from resnet.zoo import hub as hub_module
from resnet.zoo.hub import checkpoint
from resnet.zoo.systems import SYSTEMS, build_system
from resnet.zoo.trained import TRAINED, class_names, load_trained


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch.hub's."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", TRAINED)
def test_weights_are_for_the_system(name: str, hub: Path) -> None:
    weights = TRAINED[name]
    assert checkpoint(weights) == hub / weights.url.rsplit("/", 1)[1]
    assert len(class_names(name)) == SYSTEMS[name].classes
    assert class_names(name)[0] == "__background__"
    assert "dog" in class_names(name)


def test_refused(hub: Path) -> None:
    with pytest.raises(Refused, match="R3D-18"):
        class_names("R3D-18")
    with pytest.raises(Refused, match=r"downloaded before they load.*no whole .*fcn_resnet50_coco-1167a1af\.pth"):
        load_trained("FCN ResNet-50")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Faster R-CNN ResNet-50 FPN", "FCN ResNet-50"])
def test_a_net_is_loaded_as_torchvision_does(name: str, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its builder reads the same file; in the first detectors it sets the epsilon of the norms to 0."""
    hub.mkdir(parents=True)
    torch.manual_seed(0)
    state = build_system(name, device="cpu").state_dict()
    [variance] = [value for key, value in state.items() if re.fullmatch(r"backbone\.(body\.)?bn1\.running_var", key)]
    variance.uniform_(1e-5, 2e-5)  # beside which an epsilon of 1e-5 shows
    torch.save(state, checkpoint(TRAINED[name]))
    monkeypatch.setattr(hub_module, "downloaded", lambda weights: True)  # these are not the bytes of the checksum
    theirs = get_model(SYSTEMS[name].builder, weights=TRAINED[name], progress=False).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, ours = (net.get_submodule("backbone")(image) for net in (theirs, load_trained(name)))
    assert ours.keys() == expected.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], expected[key], rtol=1e-6, atol=0)
