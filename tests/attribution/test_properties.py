"""What every method promises, on every kind of net."""

import random
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resnet.attribution import batches
from resnet.attribution.contract import FAMILIES
from resnet.attribution.methods import METHODS, explaining
from resnet.errors import Refused
from resnet.nets.model import build
from tests.attribution.nets import CASES, NETS, QUICK, REFUSED, SMALL, last, maps, net, photos
from tests.support import unchanged
from tests.support.unchanged import assert_unchanged, found, leaves_model_as_found

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # captum mends inputs, and says so

SEES_NO_CLASS = {"eigen-cam", "random"}
SEES_DEAD_NETS = SEES_NO_CLASS | {"score-cam"}  # a softmax of equal logits weighs all channels alike
GOES_NOT_BACK = {"score-cam", "ablation-cam", "eigen-cam", "occlusion", "rise"}
RUNS_NOTHING = {"random"}
STEPPING = {
    "score-cam",
    "ablation-cam",
    "smooth-grad",
    "integrated-gradients",
    "expected-gradients",
    "occlusion",
    "rise",
}
SIZE = (16, 24)


@pytest.mark.parametrize(("method", "kind"), CASES)
class TestEveryMethodOnEveryNet:
    def test_maps_are_finite_float32_of_the_images_size_and_a_batch_is_its_images(self, method: str, kind: str) -> None:
        model, images, targets = net(kind), photos(3, SIZE), [0, 5, 9]
        together = maps(method, model, images, targets, last(kind))
        assert together.shape == (3, *SIZE)
        assert together.dtype == torch.float32
        assert together.isfinite().all()
        assert not together.requires_grad
        assert together.abs().amax((1, 2)).max() > 0
        assert METHODS[method].signed or together.min() >= 0
        alone = [maps(method, model, images[[i]], targets[i], last(kind)) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_twice_is_the_same_and_the_target_and_the_layer_matter(self, method: str, kind: str) -> None:
        model, images = net(kind), photos(1, SIZE)
        first = maps(method, model, images, 4, last(kind))
        assert torch.equal(first, maps(method, model, images, 4, last(kind)))
        assert torch.allclose(first, maps(method, model, images, 5, last(kind))) == (method in SEES_NO_CLASS)
        assert torch.equal(first, maps(method, model, images, 4, "layer1.0")) != METHODS[method].needs_layer

    def test_against_another_class_is_a_net_of_differences(self, method: str, kind: str) -> None:
        model, differing = net(kind), net(kind)
        with torch.no_grad():
            for parameter in (differing.get_parameter("fc.weight"), differing.get_parameter("fc.bias")):
                parameter.sub_(parameter[[7]].clone())
        wanted = maps(method, differing, photos(2, SIZE), [1, 2], last(kind))
        torch.testing.assert_close(maps(method, model, photos(2, SIZE), [1, 2], last(kind), against=7), wanted)


def test_refusals_are_those_that_the_nets_call_for() -> None:
    for kind in NETS:
        model = net(kind)
        refusing = {method for method, each in METHODS.items() if each.reason(model)}
        assert refusing == REFUSED.get(kind, set())
        for method in refusing:
            with pytest.raises(Refused) as refused:
                maps(method, model, photos(), 0)
            assert str(refused.value) == METHODS[method].reason(model)


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_says_what_it_is(self, method: str) -> None:
        chosen = METHODS[method]
        assert "arXiv" in chosen.source or "doi" in chosen.source
        assert chosen.family in FAMILIES
        assert all(text and text[0].isupper() for text in (chosen.title, chosen.reading, chosen.blank))
        assert chosen.reading.endswith(".")
        assert chosen.blank.endswith(".")
        assert min(chosen.passes(chosen.options, 64)) >= 0
        assert chosen.passes(chosen.options, 64, 3) >= chosen.passes(chosen.options, 64, 2)

    def test_passes_are_what_it_runs(self, method: str) -> None:
        """Counted at the head, which every pass of an image goes through."""
        model, runs = net(), list[int]()
        model.get_submodule("fc").register_forward_hook(lambda module, args, out: runs.append(len(args[0])))
        maps(method, model, photos(1), 1, "layer3.0")
        predicted = METHODS[method].passes({**METHODS[method].options, **QUICK.get(method, {})}, 16)
        rest = predicted.forward + predicted.after  # of Ablation-CAM, which runs what follows the layer alone
        assert sum(runs) == {"ablation-cam": rest, "lrp": 1}.get(method, predicted.forward)

    def test_leaves_the_net_as_it_was_also_when_a_pass_fails(self, method: str) -> None:
        def call(model: nn.Module) -> Tensor:
            return maps(method, model, unchanged.images(), [1, 2, 3, 4], "layer2.1")

        if method in RUNS_NOTHING:
            model = unchanged.worn()
            before = found(model)
            call(model)
            assert_unchanged(model, before)
        else:
            leaves_model_as_found(call, backward=method not in GOES_NOT_BACK)

    def test_gives_the_net_back_when_it_is_closed_half_way(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batches, "PIXELS", 1)
        model = unchanged.worn()
        before = found(model)
        steps = explaining(method, model, unchanged.images(), 1, "layer2.1", QUICK.get(method))
        next(steps)
        steps.close()
        assert_unchanged(model, before)

    def test_what_it_yields_becomes_the_whole(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = maps(method, net(), photos(2, SIZE), 1, "layer3.0")
        monkeypatch.setattr(batches, "PIXELS", 1)  # one copy at once
        steps = list(explaining(method, net(), photos(2, SIZE), 1, "layer3.0", QUICK.get(method)))
        assert len(steps) > 1 or method not in STEPPING
        assert [step.share for step in steps] == sorted({step.share for step in steps})
        assert steps[-1].share == 1
        assert all(step.maps.shape == (2, *SIZE) for step in steps)
        torch.testing.assert_close(steps[-1].maps, whole)

    def test_the_images_stay_as_they_were(self, method: str) -> None:
        images = photos().requires_grad_()
        pixels = images.detach().clone()
        maps(method, net(), images, torch.tensor([1, 2, 3]))
        assert torch.equal(images, pixels)
        assert images.grad is None

    def test_a_training_net_is_explained_in_eval_mode(self, method: str) -> None:
        wanted = maps(method, net(), photos(), 1)
        assert torch.equal(maps(method, net().train(), photos(), 1), wanted)

    def test_works_without_gradients_around_and_with_a_frozen_net(self, method: str) -> None:
        model = net().requires_grad_(False)
        with torch.no_grad():
            steps = explaining(method, model, photos(), 1, "layer2.0", QUICK.get(method))
            assert next(steps).maps.count_nonzero()
            assert not torch.is_grad_enabled()  # for whoever looks at the maps between two steps

    def test_leaves_the_global_random_numbers_alone(self, method: str) -> None:
        model = net()
        before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
        maps(method, model, photos(), 1)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (repr(np.random.get_state()), random.getstate()) == before[1:]

    def test_constant_images(self, method: str) -> None:
        assert maps(method, net(), torch.zeros(2, 3, 32, 32), 1).isfinite().all()
        assert maps(method, net(), torch.ones(2, 3, 32, 32), 1).isfinite().all()

    def test_a_dead_net_has_maps_of_zeros(self, method: str) -> None:
        model = net()
        nn.init.zeros_(model.get_parameter("fc.weight"))
        assert (maps(method, model, photos(), 1).count_nonzero() == 0) == (method not in SEES_DEAD_NETS)

    def test_infinite_weights_are_reported(self, method: str) -> None:
        model = net()
        nn.init.constant_(model.get_parameter("fc.weight"), float("inf"))
        if method in SEES_NO_CLASS:
            assert maps(method, model, photos(), 1).isfinite().all()
        else:
            with pytest.raises(Refused, match=r"NaN or infinity.* Received 3 such maps of 3"):
                maps(method, model, photos(), 1)

    def test_refuses_classes_that_the_net_has_not(self, method: str) -> None:
        for target, against in (([1, 10, 2], None), ([1, -1, 2], None), (1, 10)):
            if method not in RUNS_NOTHING:
                with pytest.raises(Refused, match=r"class of the net\. Received (10|-1)\. Choose 0 to 9"):
                    maps(method, net(), photos(), target, against=against)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_grey_images_and_clips(self, method: str, dims: int) -> None:
        size = (4, 12, 16) if dims == 3 else (12, 16)
        spec = replace(SMALL, frames=4 if dims == 3 else 0, in_channels=1, stem="3x3")
        model = build(spec, seed=1)
        with torch.no_grad():
            model.train()(photos(8, size, 1))
        found = maps(method, model.double(), photos(2, size, 1), [1, 2])
        assert found.shape == (2, *size)
        assert found.isfinite().all()
        assert found.count_nonzero()

    def test_a_net_that_begins_in_place(self, method: str) -> None:
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
        model.extend([nn.Flatten(), nn.Linear(4, 10)])
        apart = deepcopy(model)
        for place in (0, 2):
            apart[place] = nn.ReLU()
        images = photos(2, SIZE)
        wanted = maps(method, apart, images, 1, "1")
        assert torch.equal(maps(method, model, images, 1, "1"), wanted)
        assert torch.equal(images, photos(2, SIZE))
        assert "inplace=True" in repr(model[0])
