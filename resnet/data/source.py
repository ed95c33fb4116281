"""What a training reads its images from, whether they are in memory or on the disk."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from resnet.data.dataset import Dataset


class Source(Protocol):
    """Training and test images of one size; pixels count in 0..1."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str:
        """Where the pixels come from, as a sentence or a citation."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed in reading the pictures, or left out, as sentences."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> int:
        """Pixels, square."""

    @property
    def train_labels(self) -> Tensor:
        """int64 (N,)."""

    @property
    def test_labels(self) -> Tensor:
        """int64 (N,)."""

    @property
    def mean(self) -> Tensor:
        """By channel, float32 (C,)."""

    @property
    def std(self) -> Tensor:
        """By channel, float32 (C,)."""

    @property
    def mean_image(self) -> Tensor:
        """float32 (C, S, S). Refused where it is not known."""

    @property
    def fingerprint(self) -> int:
        """Equal for equal training data."""

    def sample(self, rows: Sequence[int]) -> Dataset:
        """The test images of these rows, in memory. Refused where one cannot be read."""
