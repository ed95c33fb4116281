"""Steps replayed as a CUDA graph, because the thin nets' kernels are shorter than their launches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

WARM_STEPS = 3  # before a step is recorded
Inputs = tuple[Tensor, ...]
Replay = Callable[[], None]
Capture = Callable[[Callable[[], Tensor]], tuple[Replay, Tensor]]


@contextmanager
def _aside() -> Iterator[None]:
    """On another CUDA stream, as what is recorded later wants its first runs to be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def cuda_graph(step: Callable[[], Tensor]) -> tuple[Replay, Tensor]:
    """Records what `step` does on the device, without doing it; what does it, and where its answer then lies."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        figures = step()
    return graph.replay, figures


class Graph:
    """Runs a step (inputs) -> figures three times, records it at the fourth call and replays it from then on.

    The step has to do the same work in the same memory at each call; only the values of tensors change.
    """

    def __init__(self, capture: Capture = cuda_graph) -> None:
        self.capture, self.warm = capture, 0
        self.recorded: tuple[Inputs, Replay, Tensor] | None = None

    def __call__(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
        if self.warm < WARM_STEPS:
            self.warm += 1
            with _aside() if inputs[0].is_cuda else nullcontext():
                return run(inputs)
        if self.recorded is None:
            held = tuple(value.clone() for value in inputs)
            self.recorded = held, *self.capture(lambda: run(held))
        held, replay, figures = self.recorded
        for mine, value in zip(held, inputs, strict=True):
            mine.copy_(value)
        replay()
        return figures.clone()
