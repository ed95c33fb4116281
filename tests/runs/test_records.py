"""Which test images a run keeps pictures of, and reading them back."""

from pathlib import Path

import numpy as np
import pytest

from resnet.data.dataset import load
from resnet.runs.records import SAMPLES, Records, sample_rows
from tests.support.tiny import RECIPE, uninterrupted

pytestmark = pytest.mark.usefixtures("tiny_data", "threads_back")


@pytest.mark.parametrize("images", [0, 1, 2, 39, 40, 41, 10_000])
def test_the_pictures_kept_are_spread_over_all_test_images(images: int) -> None:
    rows = sample_rows(images).tolist()
    assert len(set(rows)) == len(rows) == min(images, SAMPLES)
    assert not rows or (rows[0], rows[-1]) == (0, images - 1)


def test_data_sorted_by_class_show_all_their_classes() -> None:
    labels = np.repeat(np.arange(10), 1000)
    assert set(labels[sample_rows(10_000)]) == set(range(10))


def test_the_pictures_kept_are_those_of_their_rows() -> None:
    labels, rows, pictures = uninterrupted(RECIPE).test_set()
    data = load("tiny.npz")
    assert np.array_equal(labels, data.test_labels.numpy())
    assert np.array_equal(pictures, data.test_images[rows].permute(0, 2, 3, 1).numpy())


def test_too_few_pictures_read_as_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", labels=np.zeros(50, np.int32), images=np.zeros((39, 8, 8, 3), np.uint8))
    assert [len(part) for part in Records(tmp_path).test_set()] == [0, 0, 0]
