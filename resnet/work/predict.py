"""What running a net will take on the CPU, from its profile: bytes at the peak, seconds.

`python benchmarks/work.py` holds both against what is measured. The bytes are an upper bound; the seconds are those of
two cores of an AMD EPYC, and the scheduler scales them by what work has really taken.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from resnet.costs.memory import memory
from resnet.costs.profiler import Profile, profile
from resnet.errors import Refused
from resnet.limits import WORK_BYTES
from resnet.nets.spec import NetSpec
from resnet.work.contract import Cost

if TYPE_CHECKING:  # captum is slow to import
    from resnet.attribution.contract import Passes

FLOAT = 4  # bytes
MACS_PER_S = 110e9  # of convolutions as a net mixes them
ELEMENTS_PER_S = 250e6  # of outputs, forward and backward: batch norm, ReLU and addition read and write memory
PARAMS_PER_S = 100e6  # to draw the weights
LAYERS_PER_S = 2500  # forward and backward; small maps take no less
CORES = 2  # that these speeds are of
WORKSPACE = 1.2  # what kernels borrow, as a factor
MOST = 256  # images of a batch
DATA_BYTES = 600e6  # to read a data set as large as CIFAR-10


class Profiled(Protocol):
    """What knows its costs, as a `weights.Model`."""

    @property
    def profile(self) -> Profile: ...


@lru_cache(200)
def named_profile(name: str, spec: NetSpec | None) -> Profile:
    """Of an entry of `catalogue.nets`; the name of a net that has a description does not matter."""
    if spec:
        return profile(spec)
    from resnet.zoo.catalogue import profile_other  # torchvision is slow to import

    return profile_other(name)


@lru_cache(100)
def training_peak(spec: NetSpec, batch: int, optimizer: str, precision: str) -> int:
    """The peak of `costs.memory`, which takes a moment to predict. Refused."""
    return memory(spec, batch, optimizer, precision).peak


def _profile(net: NetSpec | Profiled) -> Profile:
    return named_profile("", net) if isinstance(net, NetSpec) else net.profile


def backward(net: NetSpec | Profiled, batch: int) -> Cost:
    """Of building the net and of one batch forward and backward, every output kept and every gradient returned."""
    found = _profile(net)
    held = 3 * found.params + batch * (found.activations + 3 * _inputs(found))
    work = 3 * found.macs * batch / MACS_PER_S + found.activations * batch / ELEMENTS_PER_S
    return Cost(WORKSPACE * FLOAT * held, work + _overhead(found))


def training(net: NetSpec, batch: int, steps: int, tested: int, threads: int) -> float:
    """Seconds of a training on the CPU: so many steps, and tests of so many images in all."""
    step = backward(net, batch).seconds - _overhead(named_profile("", net))
    tests = in_batches(net, tested, 1).seconds
    return (steps * step + tests) * CORES / threads


def batch_limit(spec: NetSpec | Profiled) -> int:
    """How many images fit into WORK_BYTES, MOST at most; Refused where not even two do, which batch norm needs."""
    one, two = backward(spec, 1).bytes, backward(spec, 2).bytes
    if two > WORK_BYTES:
        needed = f"{two / 1e9:,.1f} GB for two images"
        raise Refused("This net is too large to be run inside the app.", needed, f"up to {WORK_BYTES / 1e9:.0f} GB")
    return min(MOST, 2 + int((WORK_BYTES - two) / (two - one)))


def forward(net: NetSpec | Profiled, batch: int) -> Cost:
    """The same of one batch forward, without gradients."""
    return forward_of(_profile(net), batch)


def in_batches(net: NetSpec | Profiled, count: int, together: int, passes: float = 1.0) -> Cost:
    """The same of so many passes forward for each of `count` images, `together` at a time."""
    once, two = forward(net, 1).seconds, forward(net, 2).seconds
    return Cost(forward(net, together).bytes, once + passes * count * max(0.0, two - once))


def forward_of(found: Profile, batch: int) -> Cost:
    """The same of any profiled net. At its peak a block holds the outputs of a few of its layers."""
    largest = max((row.activations for row in found.rows), default=0)
    held = 3 * found.params + batch * (4 * largest + 2 * _inputs(found))
    work = found.macs * batch / MACS_PER_S + found.activations * batch / (4 * ELEMENTS_PER_S)
    return Cost(WORKSPACE * FLOAT * held, work + _overhead(found))


def explained(net: Profiled, method: str, layer: str) -> Cost:
    """The same of one attribution map of one image."""
    from resnet.attribution.batches import at_once  # captum is slow to import

    found = net.profile
    passes, ahead, both = method_passes(found, method, layer), forward_of(found, 1), backward(net, 1)
    inside = [number for number, row in enumerate(found.rows) if row.name == layer or row.name.startswith(f"{layer}.")]
    follows = sum(row.macs for row in found.rows[inside[-1] + 1 :]) / found.macs if inside else 0.0
    once = ahead.seconds - _overhead(found)
    work = (passes.forward + passes.after * follows) * once + passes.backward * (both.seconds - ahead.seconds)
    batch = min(at_once(math.prod(found.input_shape[1:])), max(1, round(passes.forward + passes.after)))
    return Cost(backward(net, batch).bytes, work + _overhead(found))


def method_passes(found: Profile, method: str, layer: str) -> "Passes":
    """What an attribution method runs for one map at that layer."""
    from resnet.attribution.methods import METHODS  # captum is slow to import

    shapes = [row.out_shape for row in found.rows if row.name == layer or row.name.startswith(f"{layer}.")]
    return METHODS[method].passes(METHODS[method].options, shapes[-1][0] if shapes else 0)


def in_turn(costs: Sequence[Cost]) -> Cost:
    """Of work done one after the other."""
    return Cost(max(cost.bytes for cost in costs), sum(cost.seconds for cost in costs))


def _inputs(found: Profile) -> int:
    return math.prod(found.input_shape)


def _overhead(found: Profile) -> float:
    return found.params / PARAMS_PER_S + len(found.rows) / LAYERS_PER_S
