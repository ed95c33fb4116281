"""A trained run opened: its net sees pictures as it was trained to see them."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from resnet.data.dataset import load
from resnet.nets.model import build, weight_layers
from resnet.nets.spec import cifar
from resnet.runs import store as runs
from resnet.runs.opened import open_run
from resnet.runs.store import Run
from resnet.runs.worker import work
from resnet.work.analysing import OWN, Analysed
from resnet.work.weights import Model
from tests.support import tiny
from tests.support.work import done

NET = dataclasses.replace(cifar(8), image_size=16)
RECIPE = dataclasses.replace(tiny.RECIPE, epochs=1, batch=32, scaling="pixel")  # "paper" scales so
COUNT = 16


@pytest.fixture(params=["batch", "none"])
def by_pixel(request: pytest.FixtureRequest) -> Run:
    """A net that was trained on pixels minus the mean image."""
    job = tiny.job(net=dataclasses.replace(NET, norm=request.param), data="shapes", recipe=RECIPE)
    run = runs.create(dataclasses.replace(job, train_images=64))
    assert work(run.path).state == "finished"
    return run


def batch_by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    """COUNT test images of shapes less the mean of the 64 training images, without the code under test."""
    data = load("shapes", size=16, train=64)
    mean_image = data.train_images.double().mean(0) / 255
    chosen = torch.randperm(len(data.test_labels), generator=torch.Generator().manual_seed(0))[:COUNT]
    return (data.test_images[chosen] / 255 - mean_image).float(), data.test_labels[chosen]


def test_a_mean_image_is_subtracted_where_the_net_learnt_without_it(by_pixel: Run) -> None:
    images, labels = batch_by_hand()
    seen, told = open_run(by_pixel).test_batch(COUNT)
    torch.testing.assert_close(seen, images, rtol=1e-4, atol=1e-5)
    assert torch.equal(told, labels)


def test_gradients_after_training_are_those_of_the_pictures_that_the_net_was_trained_on(by_pixel: Run) -> None:
    frame = done(Analysed("gradients", (Model.of(by_pixel),), OWN, COUNT))
    model, (images, labels) = build(by_pixel.job.net), batch_by_hand()
    model.load_state_dict(open_run(by_pixel).model.state_dict())
    model, images = model.double(), images.double()  # as exact as the gradients asked for: in fp32 a ReLU may flip
    weights = {name: layer.get_parameter("weight") for name, layer in weight_layers(model).items()}
    gradients = torch.autograd.grad(F.cross_entropy(model.train()(images), labels), list(weights.values()))
    for name, gradient in zip(weights, gradients, strict=True):
        [norm] = frame.norm[(frame.kind == "weight") & (frame.name == name)]
        assert norm == pytest.approx(gradient.norm().item(), rel=1e-5), name
