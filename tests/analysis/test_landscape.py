"""Losses around a net against nets whose weights are set by hand, and principal directions against their definition."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis import landscape
from resnet.analysis.contract import last
from resnet.analysis.landscape import (
    LINE,
    SURFACE,
    around,
    coarse_to_fine,
    keep,
    line,
    plane,
    random_direction,
    read,
    surface,
    trajectory,
)
from resnet.errors import Refused
from resnet.nets.model import ResNet, build
from resnet.nets.spec import NetSpec, plain_twin
from tests.support.unchanged import SMALL, assert_unchanged, found, images, worn

LABELS = torch.tensor([3, 1, 4, 1])


def trained(spec: NetSpec = SMALL) -> ResNet:
    """Weights as drawn, and running statistics of noise."""
    model = build(spec, seed=2)
    with torch.no_grad():
        model.train()(images(64))
    return model.eval()


def own(model: nn.Module) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(images()), LABELS))


def test_each_filter_is_as_long_as_the_nets() -> None:
    model = trained(replace(SMALL, se=4))
    direction = random_direction(model)
    weights = {name: weight for name, weight in model.named_parameters() if name in direction}
    assert {*direction} == {name for name, w in model.named_parameters() if "bn" not in name and "bias" not in name}
    for name, weight in weights.items():
        for filter_, moved in zip(weight, direction[name], strict=True):
            assert moved.norm() == pytest.approx(float(filter_.detach().norm()), rel=1e-5)
    along = (
        torch.cat([direction[name].flatten() for name in weights]),
        torch.cat([*map(torch.flatten, weights.values())]),
    )
    assert abs(F.cosine_similarity(*along, dim=0)) < 0.05, "random, not the weights' own direction"


def test_twins_move_alike() -> None:
    residual, plain = build(replace(SMALL, shortcut="B"), seed=1), build(plain_twin(SMALL), seed=1)
    one, other = random_direction(residual, 5), random_direction(plain, 5)
    assert {*one} - {*other} == {"layer2.0.downsample.0.weight"}
    assert all(torch.equal(one[name], moved) for name, moved in other.items())
    for seed, number in ((6, 0), (5, 1)):
        assert not any(torch.equal(moved, random_direction(plain, seed, number)[name]) for name, moved in other.items())
    first, second = (other[f"layer1.0.conv{number}.weight"].flatten() for number in (1, 2))
    assert abs(F.cosine_similarity(first, second, dim=0)) < 0.2, "each layer has numbers of its own"


def test_the_middle_is_the_net_itself() -> None:
    model = trained()
    first = next(surface(model, images(), LABELS)).table
    assert first[["a", "b"]].to_numpy().tolist() == [[0, 0]]
    assert first.loss[0] == pytest.approx(own(model), abs=1e-6)
    ends = last(line(model, images(), LABELS))
    assert ends[ends.a == 0].loss.item() == first.loss[0]
    assert (ends.b == 0).all()
    assert sorted(ends.a) == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]


def test_losses_are_those_of_a_net_that_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape, "BATCH", 3)
    model = trained()
    directions = [random_direction(model, 4, number) for number in (0, 1)]
    table = last(surface(model, images(), LABELS, points=3, span=0.5, seed=4))
    assert len(table) == 9
    for a, b, loss, accuracy in table.itertuples(index=False):
        moved = trained()
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                for step, direction in zip((a, b), directions, strict=True):
                    if name in direction:
                        weight.add_(direction[name], alpha=step)
            logits = moved(images())
        assert loss == pytest.approx(own(moved), rel=1e-5)
        assert accuracy == float((logits.argmax(1) == LABELS).float().mean())
    assert table.loss.nunique() == 9


@pytest.mark.parametrize("analysis", [LINE, SURFACE])
def test_a_net_is_as_it_was_at_every_step_and_after_the_end(analysis: landscape.Analysis) -> None:
    model = worn()
    before = found(model)
    steps = analysis.function(model, images(), LABELS, **analysis.options)
    next(steps)
    assert torch.is_grad_enabled()
    assert_unchanged(model, before)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert_unchanged(model, before)


@pytest.mark.parametrize("shape", [(1, 1), (9, 1), (5, 5), (6, 4), (31, 31)])
def test_grids_grow_finer(shape: tuple[int, int]) -> None:
    cells = [*coarse_to_fine(*shape)]
    assert sorted(cells) == [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    assert cells[0] == (shape[0] // 2, shape[1] // 2)
    if shape == (31, 31):
        assert {*cells[:9]} >= {(7, 7), (15, 7), (23, 23)}
        assert {*cells[: 15 * 15]} == {(i, j) for i in range(1, 31, 2) for j in range(1, 31, 2)}


def test_grids_have_the_net_in_their_middle() -> None:
    for points in (3, 5, 31, 51):
        axis = around(points, 0.7)
        assert axis[points // 2] == 0
        assert (axis[0], axis[-1], len(axis)) == (-0.7, 0.7, points)
        np.testing.assert_allclose(np.diff(axis), 1.4 / (points - 1))
    for points in (1, 4):
        with pytest.raises(Refused, match=rf"middle point\. Received {points}\. Choose an odd number"):
            next(surface(trained(), images(), LABELS, points=points))


def states(count: int, dims: int) -> list[dict[str, Tensor]]:
    """Nets on a random walk through `dims` dimensions."""
    draws = torch.Generator().manual_seed(0)
    start = trained().state_dict()
    ways = [
        {name: torch.randn(w.shape, generator=draws) for name, w in start.items() if w.dim() > 1} for _ in range(dims)
    ]
    walk = torch.randn(count, dims, generator=draws).cumsum(0)
    return [
        start
        | {name: start[name] + sum(float(s) * way[name] for s, way in zip(at, ways, strict=True)) for name in ways[0]}
        for at in walk
    ]


def flat(state: dict[str, Tensor]) -> np.ndarray:
    return np.concatenate([w.double().numpy().ravel() for w in state.values() if w.dim() > 1])


def test_principal_directions_by_their_definition() -> None:
    epochs = states(6, 4)
    path = trajectory(epochs)
    rows = np.stack([flat(state) for state in epochs])
    centred = rows - rows.mean(0)
    spread = np.linalg.eigvalsh(centred @ centred.T)[::-1]
    np.testing.assert_allclose(path.explained, spread[:2] / spread.sum())
    ways = np.stack([flat(dict(way)) for way in path.directions])
    np.testing.assert_allclose(ways @ ways.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(np.square(centred @ ways.T).sum(0), spread[:2])
    np.testing.assert_allclose(path.coordinates, (rows - rows[-1]) @ ways.T, atol=1e-9)
    assert path.coordinates.iloc[-1].tolist() == [0, 0]
    with pytest.raises(Refused, match="three epochs"):
        trajectory(epochs[:2])


def test_a_walk_in_a_plane_passes_over_its_own_losses() -> None:
    epochs = states(5, 2)
    path, model = trajectory(epochs), trained()
    assert sum(path.explained) == pytest.approx(1)
    model.load_state_dict(epochs[-1])
    for state, (a, b) in zip(epochs, path.coordinates.to_numpy(), strict=True):
        there = trained()
        there.load_state_dict(state)
        assert last(plane(model, images(), LABELS, path.directions, [a], [b])).loss[0] == pytest.approx(
            own(there), rel=1e-4
        )
    a, b = path.axes(7)
    for axis, own_axis in ((a, path.coordinates.a), (b, path.coordinates.b)):
        assert len(axis) == 7
        assert axis[0] < own_axis.min() < own_axis.max() < axis[-1]


def test_a_surface_is_kept(tmp_path: Path) -> None:
    path, table = tmp_path / "new" / "surface.npz", last(surface(trained(), images(), LABELS, points=3))
    assert read(path) is None
    keep(path, table)
    found = read(path)
    assert found is not None
    pd.testing.assert_frame_equal(found, table.astype("float32"))
    path.write_bytes(path.read_bytes()[:-200])
    assert read(path) is None, "damaged"
