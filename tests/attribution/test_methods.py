"""What is asked of any method: its options, layers and targets, and what is refused; and the likeliest classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Method, Request
from resnet.attribution.methods import METHODS, common_layers, common_scale, explain, top_k
from resnet.attribution.names import NAMES
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.nets.spec import StageSpec
from tests.attribution.nets import SMALL, maps, net, photos
from tests.support import unchanged
from tests.support.unchanged import leaves_model_as_found


def grey(model: nn.Module, request: Request) -> Tensor:
    return request.images.mean(1) * request.target[:, None, None] * torch.tensor(request.options["times"])


GREY = Method("Grey", "control", grey, True, False, "arXiv 0", "A test.", "All 0.", {"times": 1})


def test_a_new_method_is_one_line_and_says_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "grey", GREY)
    wanted = photos().mean(1) * torch.arange(3)[:, None, None]
    torch.testing.assert_close(explain("grey", net(), photos(), [0, 1, 2]), wanted)
    doubled = explain("grey", net(), photos(), [0, 1, 2], options={"times": 2})
    torch.testing.assert_close(doubled, 2 * wanted)
    with pytest.raises(Refused, match=r"option .* Received 'often'\. Choose times"):
        explain("grey", net(), photos(), 0, options={"often": 2})


def test_a_method_that_does_not_apply_says_why() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    reason = METHODS["grad-cam"].reason(flat)
    assert reason.startswith("Class activation maps need the maps of a convolution")
    with pytest.raises(Refused) as refused:
        explain("grad-cam", flat, photos(), 0, "1")
    assert str(refused.value) == reason
    assert explain("saliency", flat, photos(), 0).shape == (3, 32, 32)


def test_the_names_that_the_command_line_lists_are_those_of_the_methods() -> None:
    assert list(NAMES) == list(METHODS)


def test_one_scale_for_all_maps() -> None:
    assert common_scale([torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)]) == 3
    assert common_scale([torch.zeros(1, 2).numpy()]) == 1


def test_common_layers_are_blocks_or_else_stages() -> None:
    deeper = replace(SMALL, stages=(StageSpec(2, 8), StageSpec(2, 12, 2)))
    assert common_layers([net("basic"), net("plain")]) == ["layer1.0", "layer2.0", "layer3.0"]
    assert common_layers([net(), build(deeper, device="meta")]) == ["layer1", "layer2"]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "method": (lambda: explain("lime", net(), photos(), 0), r"Received 'lime'\. Choose .*saliency"),
    "no layer": (
        lambda: explain("grad-cam", net(), photos(), 0),
        r"Received ''\. Choose layer1, layer2, layer3, layer1\.0",
    ),
    "layer": (lambda: explain("grad-cam", net(), photos(), 0, "layer9"), r"Received 'layer9'\. Choose layer1"),
    "flat layer": (lambda: explain("grad-cam", net(), photos(), 0, "fc"), r"\(N, C, H, W\)\. Received 'fc'"),
    "too high": (lambda: explain("saliency", net(), photos(), 10), r"Received 10\. Choose 0 to 9"),
    "negative": (lambda: explain("saliency", net(), photos(), [0, -1, 2]), r"Received -1\. Choose 0 to 9"),
    "too few": (lambda: explain("saliency", net(), photos(), [0, 1]), r"one for all or 3"),
    "fraction": (lambda: explain("saliency", net(), photos(), torch.tensor(0.5)), r"one for all or 3"),
    "bytes": (lambda: explain("saliency", net(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 0), "torch.uint8"),
    "one image": (lambda: explain("saliency", net(), photos()[0], 0), r"Received torch.float32 \(3, 32, 32\)"),
    "layer of two runs": (
        lambda: explain("grad-cam", net("torchvision"), photos(), 0, "layer1.0.relu"),
        r"runs 2 times\. Received 'layer1.0.relu'",
    ),
    "count": (lambda: explain("rise", net(), photos(), 0, options={"masks": 0}), r"masks .* Received 0\. Choose 1"),
    "seed": (lambda: explain("random", net(), photos(), 0, options={"seed": 0.5}), r"seed .* Received 0\.5\. Choose 0"),
    "share": (
        lambda: explain("occlusion", net(), photos(), 0, options={"window": 2}),
        r"window .* Received 2\. Choose a number from 0\.001 to 1",
    ),
    "gamma": (lambda: explain("lrp", net(), photos(), 0, options={"gamma": -1}), r"gamma .* Received -1\. Choose 0 or"),
    "k": (lambda: top_k(net(), photos(), 0), r"Received 0\. Choose 1"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_errors_say_the_rule_what_came_and_the_choices(call: str) -> None:
    run, message = REFUSED[call]
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize("kind", ["basic", "plain"])
def test_top_k_are_the_largest_probabilities_in_eval_mode(kind: str) -> None:
    model = net(kind)
    with torch.no_grad():
        probabilities = model(photos().double()).softmax(1)
    values, classes = top_k(model.train(), photos(), 3)
    order = probabilities.sort(1, descending=True)
    torch.testing.assert_close(values, order.values[:, :3])
    assert torch.equal(classes, order.indices[:, :3])


def test_top_k_of_a_net_with_few_classes_are_all_of_them() -> None:
    values, classes = top_k(build(replace(SMALL, classes=2)), photos(), 5)
    assert classes.shape == (3, 2)
    torch.testing.assert_close(values.sum(1), torch.ones(3))


def test_top_k_leaves_the_net_and_the_images_as_they_were() -> None:
    leaves_model_as_found(lambda model: top_k(model, unchanged.images()), backward=False)
    seen = photos()
    top_k(nn.Sequential(nn.ReLU(inplace=True), net().float()), seen)
    assert torch.equal(seen, photos())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("method", METHODS)
def test_images_follow_the_net_to_its_device(method: str) -> None:
    found = maps(method, net().cuda(), photos(), [1, 2, 3]).cpu()
    torch.testing.assert_close(found, maps(method, net(), photos(), [1, 2, 3]), rtol=1e-3, atol=1e-5)
