"""The training loop against hand-written references, and its exactness: seeds, twins, resumes, divergence."""

import dataclasses
import math
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.data.dataset import Dataset, crop, draw_crops, load, normalise
from resnet.errors import Refused
from resnet.nets.model import ResNet, build, memory_format, weight_layers
from resnet.nets.spec import NetSpec, StageSpec, plain_twin
from resnet.seeds import generator
from resnet.train.feeds import Resident, steps_per_epoch
from resnet.train.loop import EpochTested, StepsTaken, evaluate, fit
from resnet.train.recipes import AUGMENTATIONS, OPTIMIZERS, RANGES, RECIPES, SCHEDULES, Recipe
from resnet.train.state import DivergedError, State
from resnet.train.step import Step
from tests.support.tiny import TINY, figures, same, state_of

RECIPE = Recipe(epochs=2, batch=8, seed=3, precision="fp32")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def noise() -> Dataset:
    """26 training images: 3 batches of 8 and a rest; 503 test images: one batch of 500 and a last one of 3."""
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=draw, dtype=torch.uint8)
        return pixels, torch.randint(0, 3, (count,), generator=draw)

    return Dataset("noise", *images(26), *images(503), ("a", "b", "c"))


def run(data: Dataset, recipe: Recipe = RECIPE, net: NetSpec = TINY) -> tuple[list, dict[str, Tensor]]:
    state = state_of(build(net, recipe.seed), recipe)
    return [figures(record) for record in trained(state, data, recipe)], state.tensors()


def feed_of(state: State, data: Dataset, recipe: Recipe) -> Resident:
    return Resident(data, recipe, torch.device("cpu"), memory_format(state.model))


def trained(state: State, data: Dataset, recipe: Recipe) -> Iterator[np.record | EpochTested]:
    """The steps one by one, and the tests."""
    for event in fit(state, feed_of(state, data, recipe), recipe):
        if isinstance(event, StepsTaken):
            yield from event.rows.view(np.recarray)
        elif isinstance(event, EpochTested):
            yield event


def test_records_are_a_step_each_and_a_test_after_each_epoch(noise: Dataset) -> None:
    records = list(trained(state_of(build(TINY), RECIPE), noise, RECIPE))
    assert [(type(r), r.step) for r in records] == [
        *[(np.record, 1), (np.record, 2), (np.record, 3), (EpochTested, 3)],
        *[(np.record, 4), (np.record, 5), (np.record, 6), (EpochTested, 6)],
    ]
    assert [r.epoch for r in records if isinstance(r, EpochTested)] == [1, 2]
    layers = weight_layers(build(TINY))
    assert all(
        r.seconds > 0 and r.norms.shape == r.updates.shape == (len(layers),)
        for r in records
        if isinstance(r, np.record)
    )


def batch_of(data: Dataset, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The 8 images of a step of 26 and their labels, by their definition."""
    chosen = torch.randperm(26, generator=generator(recipe.seed, 0, step // 3))[step % 3 * 8 :][:8]
    x = normalise(data.train_images[chosen], data.mean, data.std)
    return crop(x, draw_crops(8, generator(recipe.seed, 1, step))), data.train_labels[chosen]


@pytest.mark.parametrize(("momentum", "decay", "schedule"), [(0.9, 0.01, "one-cycle"), (0.0, 0.0, "constant")])
def test_steps_equal_sgd_written_by_hand(noise: Dataset, momentum: float, decay: float, schedule: str) -> None:
    recipe = dataclasses.replace(RECIPE, momentum=momentum, weight_decay=decay, schedule=schedule, lr=0.05)
    _, trained = run(noise, recipe)
    model = build(TINY, recipe.seed)
    velocity: dict[str, Tensor] = {}
    model.train()
    for step in range(6):
        x, labels = batch_of(noise, recipe, step)
        loss = F.cross_entropy(model(x), labels)
        names, weights = zip(*model.named_parameters(), strict=True)
        progress = (step + 0.5) / 6
        lr = 0.05 if schedule == "constant" else 0.05 * min(progress / 0.25, (1 - progress) / 0.75)
        for name, weight, slope in zip(names, weights, torch.autograd.grad(loss, weights), strict=True):
            g = slope + decay * weight.detach()
            velocity[name] = momentum * velocity[name] + g if name in velocity else g.clone()
            weight.data -= lr * (g + momentum * velocity[name])  # Sutskever 2013's Nesterov as PyTorch writes it
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[f"model.{name}"], value, rtol=2e-4, atol=2e-5, msg=name)


def test_one_cycle_rises_to_lr_at_a_quarter_and_falls_to_0() -> None:
    rates = [Recipe(lr=0.4).lr_at(step, 1000) for step in range(1000)]
    assert 0 < rates[0] < 0.001
    assert 0 < rates[-1] < 0.001
    assert max(rates) == pytest.approx(0.4, rel=0.003)
    assert rates.index(max(rates)) in (249, 250)
    assert rates[124] == pytest.approx(0.4 * 0.1245 / 0.25)
    assert rates[624] == pytest.approx(0.4 * (1 - 0.6245) / 0.75)
    assert 0 < Recipe().lr_at(0, 1) <= 0.1


def test_steps_drops_tenfold_at_32k_and_48k_of_64k() -> None:
    recipe = Recipe(schedule="steps", lr=0.1)
    rates = [recipe.lr_at(step, 64_000) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_constant_is_constant() -> None:
    assert {Recipe(schedule="constant", lr=0.3).lr_at(step, 7) for step in range(7)} == {0.3}


class Spy(nn.Module):
    """Keeps what the model receives in train mode."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model, self.seen = model, []  # type: ignore[var-annotated]

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.clone())
        return self.model(x)


def received(data: Dataset, recipe: Recipe, net: NetSpec) -> list[Tensor]:
    spy = Spy(build(net, recipe.seed))
    list(trained(state_of(spy, recipe), data, recipe))
    return spy.seen


def test_twins_receive_the_same_images_and_another_seed_does_not(noise: Dataset) -> None:
    residual, plain = received(noise, RECIPE, TINY), received(noise, RECIPE, plain_twin(TINY))
    other = received(noise, dataclasses.replace(RECIPE, seed=4), TINY)
    assert len(residual) == len(plain) == 6
    assert all(torch.equal(a, b) for a, b in zip(residual, plain, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(residual, other, strict=True))


def test_an_epoch_shows_no_image_twice_and_epochs_differ(noise: Dataset) -> None:
    seen = received(noise, dataclasses.replace(RECIPE, augment=False), TINY)
    epochs = [{tuple(image.flatten().tolist()) for batch in part for image in batch} for part in (seen[:3], seen[3:])]
    assert [len(epoch) for epoch in epochs] == [24, 24]
    assert not torch.equal(seen[0], seen[3])


def test_blanked_patches_are_those_of_seed_and_step_in_half_of_the_images(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, mask=True, epochs=20)
    whole, blanked = received(noise, dataclasses.replace(recipe, mask=False), TINY), received(noise, recipe, TINY)
    count = 0
    for step, (images, masked) in enumerate(zip(whole, blanked, strict=True)):
        patches = torch.randint(0, 32, (8,), generator=generator(recipe.seed, 4, step))
        for image, patch in zip(images, patches.tolist(), strict=True):
            if patch < 16:
                top, left = 2 * (patch // 4), 2 * (patch % 4)  # of 8 x 8 pixels
                image[:, top : top + 2, left : left + 2] = 0
                count += 1
        assert torch.equal(images, masked), step
    assert 200 < count < 280, "of 480 images half, give or take four deviations"


@pytest.mark.parametrize("augment", [True, False])
def test_the_hash_of_a_batch_tells_blanked_patches(noise: Dataset, augment: bool) -> None:
    recipe = dataclasses.replace(RECIPE, augment=augment)
    hashes = []
    for mask in (False, True):
        feed = feed_of(state_of(build(TINY), recipe), noise, dataclasses.replace(recipe, mask=mask))
        hashes.append({batch for _, batch in feed.inputs(0, 3)})
    assert not set.intersection(*hashes)
    chosen = torch.randperm(26, generator=generator(3, 0, 0))[:8]
    rows = [chosen[None], draw_crops(8, generator(3, 1, 0))] if augment else [chosen[None]]
    assert zlib.crc32(torch.cat(rows).numpy().tobytes(), noise.fingerprint) in hashes[0], "as in recorded runs"


def test_one_seed_gives_one_run_and_another_seed_another(noise: Dataset) -> None:
    (records, weights), (again, weights_again) = run(noise), run(noise)
    assert records == again
    assert same(weights, weights_again)
    other, other_weights = run(noise, dataclasses.replace(RECIPE, seed=4))
    assert records != other
    assert not same(weights, other_weights)


DROPPING = dataclasses.replace(TINY, stochastic_depth=0.5)


WAYS: dict[str, dict] = {  # each optimiser, schedule and augmentation alone
    **{name: {"optimizer": name, "lr": lr} for name, lr in OPTIMIZERS.items()},
    "RMSprop without momentum": {"optimizer": "rmsprop", "lr": 1e-3, "momentum": 0.0},
    **{schedule: {"schedule": schedule} for schedule in SCHEDULES},
    **{name: {name: 1} for name in AUGMENTATIONS},
}
RESUMED = {
    "residual": (TINY, RECIPE),
    "plain": (plain_twin(TINY), RECIPE),
    "stochastic depth": (DROPPING, RECIPE),
    "dropout": (dataclasses.replace(TINY, shortcut="dropout"), RECIPE),
    "no Nesterov": (TINY, dataclasses.replace(RECIPE, nesterov=False)),
    "averaged": (TINY, dataclasses.replace(RECIPE, ema=0.5)),
    "blanked patches": (TINY, dataclasses.replace(RECIPE, mask=True)),
    "clipped gradients": (TINY, dataclasses.replace(RECIPE, clip=0.5)),
    "frozen stages": (TINY, dataclasses.replace(RECIPE, frozen=2)),
    "a slower body": (TINY, dataclasses.replace(RECIPE, body_lr=0.1)),
    "mixup or CutMix": (TINY, dataclasses.replace(RECIPE, mixup=0.2, cutmix=1.0)),
    "augmentations, averaged, dropout": (
        dataclasses.replace(TINY, shortcut="dropout"),
        dataclasses.replace(RECIPE, randaugment=2, cutmix=1.0, optimizer="adamw", lr=1e-3, ema=0.5),
    ),
} | {name: (TINY, dataclasses.replace(RECIPE, **recipe)) for name, recipe in WAYS.items()}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resume_at_any_step_is_exact(noise: Dataset, name: str) -> None:
    net, recipe = RESUMED[name]
    records, weights = run(noise, recipe, net)
    first, saved = state_of(build(net, recipe.seed), recipe), {}
    saved[0] = first.tensors()
    for record in trained(first, noise, recipe):
        if isinstance(record, np.record):
            saved[record.step] = first.tensors()
    assert len(saved) == 7
    for step, tensors in saved.items():
        state = state_of(build(net, seed=99), recipe)
        state.load(tensors, step)
        rest = [figures(record) for record in trained(state, noise, recipe)]
        assert rest == records[len(records) - len(rest) :], step
        assert len(rest) == {0: 8, 1: 7, 2: 6, 3: 5, 4: 3, 5: 2, 6: 1}[step]  # at 3 and 6 the epoch's test comes first
        assert same(state.tensors(), weights), step


def test_stochastic_depth_draws_by_seed_and_step_and_leaves_the_callers_generator(noise: Dataset) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    records, weights = run(noise, net=DROPPING)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, same_weights = run(noise, net=DROPPING)
    assert (again, same(same_weights, weights)) == (records, True)
    assert run(noise)[0] != records, "the branches must really be dropped"


def test_tensors_are_a_copy(noise: Dataset) -> None:
    state = state_of(build(TINY), RECIPE)
    before = state.tensors()
    kept = {name: value.clone() for name, value in before.items()}
    list(trained(state, noise, RECIPE))
    assert same(before, kept)
    assert all(value.is_contiguous() for value in state.tensors().values())


def test_load_refuses_the_weights_of_another_net(noise: Dataset) -> None:
    wider = dataclasses.replace(TINY, stem_width=8, stages=(StageSpec(1, 8, 1), StageSpec(1, 8, 2)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        state_of(build(TINY), RECIPE).load(state_of(build(wider), RECIPE).tensors(), 0)


def test_recorded_norms_are_those_of_autograd(noise: Dataset) -> None:
    record = next(trained(state_of(build(TINY, 3), RECIPE), noise, RECIPE))
    assert isinstance(record, np.record)
    model = build(TINY, 3).train()
    x, labels = batch_of(noise, RECIPE, 0)
    loss = F.cross_entropy(model(x), labels)
    weights = [layer.weight for layer in weight_layers(model).values()]
    norms = [g.norm().item() for g in torch.autograd.grad(loss, weights)]  # type: ignore[arg-type]
    np.testing.assert_allclose(record.norms, norms, rtol=1e-4)
    assert record.loss == pytest.approx(loss.item(), rel=1e-5)


def test_evaluate_equals_a_plain_loop_and_leaves_the_statistics_alone(noise: Dataset) -> None:
    model = build(TINY, 3)
    state = state_of(model, RECIPE)
    list(trained(state, noise, RECIPE))
    before = state.tensors()
    model.train()
    result = evaluate(model, feed_of(state, noise, RECIPE))
    assert same(before, state.tensors())
    losses, hits, shares = [], [], []
    model.eval()
    for image, label in zip(noise.test_images, noise.test_labels, strict=True):
        with torch.no_grad():
            logits = model(normalise(image[None], noise.mean, noise.std))[0].double()
        losses.append((logits.logsumexp(0) - logits[label]).item())
        hits.append(logits.argmax().item())
        shares.append(logits.softmax(0).max().item())
    assert result.loss == pytest.approx(sum(losses) / 503, rel=1e-5)
    assert result.accuracy == np.mean(np.array(hits) == noise.test_labels.numpy())
    assert result.predicted.tolist() == hits
    np.testing.assert_allclose(result.confidence, shares, rtol=1e-4)


def test_a_training_leaves_the_models_modules_and_the_process_as_they_are(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, precision="bf16")
    model = build(TINY)
    before = [type(module) for module in model.modules()], [weight.stride() for weight in model.parameters()]
    cudnn = torch.backends.cudnn.benchmark
    state = State(model, recipe)
    step = Step(state, feed_of(state, noise, recipe), recipe)
    attributes = set(vars(step))
    step(next(step.feed.inputs(0, 1))[0], 0.1, 0)
    assert ([type(module) for module in model.modules()], [weight.stride() for weight in model.parameters()]) == before
    assert torch.backends.cudnn.benchmark == cudnn
    assert set(vars(step)) == attributes


def test_a_flip_test_averages_the_logits_of_mirror_images(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, flip_test=True)
    state = state_of(build(TINY, 3), recipe)
    list(trained(state, noise, recipe))
    result = evaluate(state.model, feed_of(state, noise, recipe), flip=True)
    state.model.eval()
    with torch.no_grad():
        x = normalise(noise.test_images, noise.mean, noise.std)
        logits = (state.model(x) + state.model(x.flip(3))) / 2
    assert result.loss == pytest.approx(F.cross_entropy(logits, noise.test_labels).item(), rel=1e-5)


def test_averaged_weights_are_those_written_by_hand_and_are_what_is_tested(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, ema=0.6)
    state = state_of(build(TINY, recipe.seed), recipe)
    expected = {name: value.clone() for name, value in state.model.state_dict().items() if value.is_floating_point()}
    for record in trained(state, noise, recipe):
        if isinstance(record, np.record):
            keep = min(0.6, record.step / (9 + record.step))
            for name, value in state.model.state_dict().items():
                if name in expected:
                    expected[name] = keep * expected[name] + (1 - keep) * value
    tensors = state.tensors()
    for name, value in expected.items():
        torch.testing.assert_close(tensors[f"average.{name}"], value)
    model = build(TINY)
    model.load_state_dict(expected | {n: b for n, b in model.named_buffers() if n not in expected})
    with torch.no_grad():
        logits = model.eval()(normalise(noise.test_images, noise.mean, noise.std))
    assert isinstance(record, EpochTested)
    assert record.result.loss == pytest.approx(F.cross_entropy(logits, noise.test_labels).item(), rel=1e-4)


def test_label_smoothing_gives_all_classes_their_share(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, label_smoothing=0.3)
    record = next(trained(state_of(build(TINY, 3), recipe), noise, recipe))
    x, labels = batch_of(noise, recipe, 0)
    target = 0.7 * F.one_hot(labels, 3) + 0.1
    logs = build(TINY, 3).train()(x).log_softmax(1)
    assert isinstance(record, np.record)
    assert record.loss == pytest.approx(-(target * logs).sum(1).mean().item(), rel=1e-5)


def test_recorded_updates_are_the_change_of_each_weight_over_its_norm(noise: Dataset) -> None:
    state = state_of(build(TINY, 3), RECIPE)
    layers = {name: layer.get_parameter("weight") for name, layer in weight_layers(state.model).items()}
    before = {name: weight.detach().clone() for name, weight in layers.items()}
    record = next(trained(state, noise, RECIPE))
    ratios = [((weight - before[name]).norm() / before[name].norm()).item() for name, weight in layers.items()]
    assert isinstance(record, np.record)
    np.testing.assert_allclose(record.updates, ratios, rtol=1e-4)


def test_the_batch_hash_tells_data_seed_and_step_apart_and_not_the_net(noise: Dataset) -> None:
    def hashes(data: Dataset, recipe: Recipe = RECIPE, net: NetSpec = TINY) -> list[int]:
        found = trained(state_of(build(net), recipe), data, recipe)
        return [record.batch for record in found if isinstance(record, np.record)]

    ours = hashes(noise)
    assert len(set(ours)) == 6
    assert hashes(noise, net=plain_twin(TINY)) == ours
    assert not set(hashes(noise, dataclasses.replace(RECIPE, seed=4))) & set(ours)
    assert not set(hashes(noise, dataclasses.replace(RECIPE, augment=False))) & set(ours)
    other = dataclasses.replace(noise, train_images=noise.train_images.flip(0))
    assert not set(hashes(other)) & set(ours)


def test_the_papers_scaling_pads_with_the_mean_image(noise: Dataset) -> None:
    """He 2015, 4.2: the mean image is subtracted, then 4 pixels are padded, which 0 then stands for."""
    recipe = dataclasses.replace(RECIPE, scaling="pixel")
    images = received(noise, recipe, TINY)[0]
    chosen = torch.randperm(26, generator=generator(recipe.seed, 0, 0))[:8]
    mean = noise.train_images.double().mean(0) / 255
    centred = noise.train_images[chosen].double() / 255 - mean
    expected = crop(centred, draw_crops(8, generator(recipe.seed, 1, 0)))
    torch.testing.assert_close(images.double(), expected, rtol=0, atol=1e-6)


def test_steps_may_end_within_an_epoch(noise: Dataset) -> None:
    recipe = dataclasses.replace(RECIPE, steps=4)
    records = list(trained(state_of(build(TINY), recipe), noise, recipe))
    assert [(type(r), r.step) for r in records[4:]] == [(np.record, 4), (EpochTested, 4)]
    assert records[3].step == 3
    rates = [np.float32(recipe.lr_at(step, 4)) for step in range(4)]
    assert [r.lr for r in records if isinstance(r, np.record)] == rates


def test_the_papers_recipe_is_the_papers() -> None:
    paper = RECIPES["paper"]
    assert paper.total_steps(390) == 64_000
    rates = [paper.lr_at(step, 64_000) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (paper.batch, paper.weight_decay, paper.momentum, paper.nesterov) == (128, 1e-4, 0.9, False)
    assert (paper.scaling, paper.label_smoothing, paper.ema, paper.flip_test) == ("pixel", 0, 0, False)


def test_a_compiler_that_fails_costs_nothing(noise: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = run(noise)

    def compiled(net: nn.Module, **_: object) -> nn.Module:
        def broken(x: Tensor) -> Tensor:
            net(x)  # batch norms have counted the batch by then
            raise RuntimeError("no compiler")

        return broken  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", compiled)
    records, weights = run(noise, dataclasses.replace(RECIPE, compile=True))
    assert records == reference[0]
    assert same(weights, reference[1])


class Breaks(nn.Module):
    """A model whose loss (or gradient alone) is not finite from its third batch on."""

    def __init__(self, only_gradient: bool) -> None:
        super().__init__()
        self.fc, self.calls, self.only_gradient = nn.Linear(192, 3), 0, only_gradient

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits = self.fc(x.flatten(1))
        if self.calls < 3:
            return logits
        return logits + (logits * 0).abs().sqrt() if self.only_gradient else logits * torch.nan  # sqrt'(0) = inf


@pytest.mark.parametrize("only_gradient", [False, True])
def test_divergence_is_told_with_step_and_advice_before_the_weights_take_it(
    noise: Dataset, only_gradient: bool
) -> None:
    state = state_of(Breaks(only_gradient), RECIPE)
    what = "A gradient" if only_gradient else "The loss"
    with pytest.raises(DivergedError, match=rf"{what} became nan at step 3\. Choose a learning rate below 0\.1\."):
        list(trained(state, noise, RECIPE))
    assert state.step == 2
    assert all(value.isfinite().all() for value in state.tensors().values())


WRONG: dict[str, tuple] = {
    "epochs": (0, 1001, 1.5, "3", True, None),
    "batch": (1, 4097, 8.0),
    "lr": (0, -0.1, 11, math.nan, math.inf, "0.1", None, True),
    "momentum": (-0.1, 1.0, math.nan),
    "weight_decay": (-1e-9, 2),
    "seed": (-1, 2**31 + 1, 0.0),
    "schedule": ("linear", "", None, []),
    "optimizer": ("SGD", "lion", None),
    "clip": (-1, "1"),
    "mixup": (-0.1, None),
    "randaugment": (1.5, 11, True),
    "frozen": (-1, 10, 0.5),
    "body_lr": (-0.1, 2),
    "precision": ("fp16", None),
    "scaling": ("image", None),
    "augment": ("no", 1, None),
    "nesterov": (1,),
    "compile": ("yes",),
    "flip_test": (0,),
    "mask": (1, None),
    "label_smoothing": (-0.1, 1, None),
    "ema": (-0.1, 1.0, "0.9"),
    "steps": (-1, 1.5),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_recipe_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(Refused, match=rf"^{field} must be .*\. Received .*\.$"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_the_bounds_of_a_recipe_are_allowed() -> None:
    Recipe(epochs=1, batch=2, lr=1e-6, momentum=0, weight_decay=0, seed=0)
    Recipe(epochs=1000, batch=4096, lr=10, momentum=0.999, weight_decay=1, seed=2**31)


@pytest.mark.parametrize(("images", "batch", "steps"), [(26, 8, 3), (24, 8, 3), (7, 8, 1), (50_000, 128, 390)])
def test_steps_per_epoch(images: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(images, batch) == steps


@pytest.mark.parametrize("field", RANGES)
def test_the_ends_of_a_range_are_allowed_and_nothing_beyond(field: str) -> None:
    low, high = RANGES[field]
    assert [getattr(Recipe(**{field: value}), field) for value in (low, high)] == [low, high]  # type: ignore[arg-type]
    for beyond in (low - 1, high + 1):
        with pytest.raises(Refused):
            Recipe(**{field: beyond})  # type: ignore[arg-type]


def test_a_batch_larger_than_the_data_is_all_of_them(noise: Dataset) -> None:
    records, _ = run(noise, dataclasses.replace(RECIPE, batch=64))
    assert len(records) == 4


def test_a_tiny_net_learns_shapes() -> None:
    data = load("shapes", size=16, train=128)
    data = dataclasses.replace(data, test_images=data.test_images[:50], test_labels=data.test_labels[:50])
    stages = (StageSpec(1, 16, 1), StageSpec(1, 32, 2))
    net = dataclasses.replace(TINY, stages=stages, stem_width=16, image_size=16, classes=data.classes)
    recipe = Recipe(epochs=20, batch=16, lr=0.05, augment=False, precision="fp32")
    losses = [r.loss for r in trained(state_of(build(net), recipe), data, recipe) if isinstance(r, np.record)]
    assert np.mean(losses[:8]) == pytest.approx(np.log(data.classes), abs=0.3)  # chance
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


KINDS: dict[str, dict] = {
    "pre-activation, SkipInit, no norm": {"block": "preact-basic", "norm": "none", "skip_init": True},
    "group norm, GELU, squeeze": {"norm": "group", "activation": "gelu", "se": 4},
    "bottleneck in groups, average pool": {"block": "bottleneck", "shortcut": "D", "cardinality": 2, "stem": "deep"},
    "projections everywhere, SiLU": {"shortcut": "C", "activation": "silu", "zero_init": True},
    "exclusive gates": {"shortcut": "exclusive"},
    "gates on the shortcut alone, before activation": {"shortcut": "gated", "block": "preact-bottleneck"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_net_trains_and_resumes_exactly(noise: Dataset, kind: str) -> None:
    net = dataclasses.replace(TINY, **{"shortcut": "B"} | KINDS[kind])
    records, weights = run(noise, net=net)
    assert all(math.isfinite(record["loss"]) for record in records if "norms" in record)
    before = {f"model.{name}": value for name, value in build(net, RECIPE.seed).state_dict().items()}
    moved = [name for name, value in weights.items() if name in before and not torch.equal(value, before[name])]
    assert {name for name in before if name.endswith(("weight", "alpha"))} <= set(moved)
    state = state_of(build(net, RECIPE.seed), RECIPE)
    stopped = trained(state, noise, RECIPE)
    for _ in range(2):
        next(stopped)
    again = state_of(build(net, seed=99), RECIPE)
    again.load(state.tensors(), state.step)
    list(trained(again, noise, RECIPE))
    assert same(again.tensors(), weights)
