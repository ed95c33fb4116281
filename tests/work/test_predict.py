"""Predictions of bytes against what PyTorch's allocator reports."""

import pytest
import torch

from resnet.analysis.batches import noise_batch
from resnet.analysis.gradients import gradient_norms
from resnet.costs.memory import allocated_peak
from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.codes import from_code
from resnet.nets.model import build
from resnet.nets.spec import NetSpec
from resnet.work.contract import Cost
from resnet.work.predict import backward, batch_limit, forward, in_turn

NETS = ["ResNet-20", "ResNet-56", "ResNet-18", "SE-ResNet-50", "WRN-28-10", "ResNet-20~norm.none"]


def count(spec: NetSpec) -> int:
    return 16 if spec.image_size == 32 else 2


@pytest.mark.parametrize("code", NETS)
def test_gradients_take_no_more_than_predicted(code: str) -> None:
    spec = from_code(code)
    measured = allocated_peak(lambda: gradient_norms(build(spec), *noise_batch(spec, count(spec))))
    assert 0.4 < measured / backward(spec, count(spec)).bytes < 1


@pytest.mark.parametrize("code", NETS)
def test_a_forward_pass_takes_no_more_than_predicted(code: str) -> None:
    spec = from_code(code)
    with torch.no_grad():
        measured = allocated_peak(lambda: build(spec).eval()(noise_batch(spec, count(spec))[0]))
    assert 0.25 < measured / forward(spec, count(spec)).bytes < 1


def test_the_largest_batch_just_fits() -> None:
    spec = from_code("ResNet-50")
    limit = batch_limit(spec)
    assert 2 < limit < 256
    assert backward(spec, limit).bytes <= WORK_BYTES < backward(spec, limit + 1).bytes
    assert batch_limit(from_code("ResNet-20")) == 256
    with pytest.raises(Refused, match=r"GB for two images\. Choose up to 4 GB"):
        batch_limit(from_code("ResNet-152~image_size.1024~stages.50x4096s1"))


def test_a_prediction_grows_with_the_net_and_the_batch() -> None:
    nets = [from_code(code) for code in ("ResNet-20", "ResNet-56", "ResNet-18", "ResNet-50", "ResNet-152")]
    seconds = [backward(net, 8).seconds for net in nets]
    assert seconds == sorted(seconds)
    assert backward(nets[0], 16).seconds < 2 * backward(nets[0], 8).seconds < 4 * backward(nets[0], 16).seconds


def test_work_in_turn_takes_the_time_of_all_and_the_memory_of_the_largest() -> None:
    assert in_turn([Cost(5, 1.0), Cost(7, 2.0), Cost(3, 0.5)]) == Cost(7, 3.5)


@pytest.mark.parametrize(
    ("cost", "text", "light"),
    [
        (Cost(3.5e9, 9.2), "about 9 s, 3.5 GB", False),
        (Cost(417e6, 0.2), "about 1 s, 417 MB", True),
        (Cost(417e6, 400.0), "about 7 min, 417 MB", False),
        (Cost(1.5e9, 0.5), "about 1 s, 1.5 GB", False),
    ],
)
def test_a_cost_is_said_in_words(cost: Cost, text: str, light: bool) -> None:
    assert (str(cost), cost.light) == (text, light)
