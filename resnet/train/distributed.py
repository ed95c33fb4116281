"""One training on several processes, each with its share of every batch (torchrun, torch.distributed)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from resnet.devices import cores
from resnet.errors import Refused
from resnet.train.recipes import Recipe

T = TypeVar("T")


def under_torchrun() -> bool:
    """True in a process that torchrun started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def processes_here() -> int:
    """How many of torchrun's processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join torchrun's processes; on "cuda" each gets a GPU of its own, on "cpu" its part of the machine's cores.

    torchrun leaves each process one thread where nobody says otherwise. Refused for another device.
    """
    local, here = int(os.environ.get("LOCAL_RANK", "0")), processes_here()
    if device == "cuda":
        if here > torch.cuda.device_count():
            received = f"{here} processes and {torch.cuda.device_count()} GPUs"
            raise Refused("Each process needs a GPU of its own.", received, "fewer processes or the CPU")
        torch.cuda.set_device(local)
    elif device == "cpu":
        torch.set_num_threads(cores(here))
    else:
        raise Refused("Several processes cannot train on this device.", repr(device), "cpu or cuda")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: nccl would wait for the others


def check(recipe: Recipe) -> None:
    """Refused where the processes cannot share the recipe's steps."""
    shard(recipe.batch)
    if recipe.compile and size() > 1:
        raise Refused("Several processes train without torch.compile.", choices="a recipe without compile")


def shard(count: int) -> slice:
    """This process's part of `count` images; Refused where the processes' parts would not be equal."""
    if count % size():
        received = f"{count} images for {size()} processes"
        raise Refused("A batch is divided equally among the processes.", received, f"a multiple of {size()}")
    part = count // size()
    return slice(rank() * part, (rank() + 1) * part)


def broadcast_object(find: Callable[[], T]) -> T:
    """What `find` gives in the first process, the only one that calls it, in all; so too for a ValueError it raises."""
    if size() == 1:
        return find()
    box: list[T | ValueError] = []
    if rank() == 0:
        try:
            box = [find()]
        except ValueError as error:
            box = [error]
    box = box or [ValueError()]
    dist.broadcast_object_list(box)
    if isinstance(box[0], ValueError):
        raise box[0]
    return box[0]


def broadcast_(tensors: list[Tensor]) -> None:
    """The first process's values, in place in all of them."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def all_reduce_mean_(tensor: Tensor) -> Tensor:
    """The mean over the processes, in place."""
    return all_reduce_sum_(tensor).div_(size())


def all_reduce_sum_(tensor: Tensor) -> Tensor:
    """The sum over the processes, in place, of a tensor on the CPU or on the processes' GPUs."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def parallel(model: nn.Module) -> nn.Module:
    """The model itself, or one whose gradients and batch norms are those of the whole batch."""
    if size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # the same parameters and buffers by the same names
    else:
        _sync_batch_norms(model)
    return DistributedDataParallel(model, forward_sync_buffers=False)


def _sync_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _GlobalBatchNorm  # the same parameters and buffers


class _Sum(torch.autograd.Function):
    """The sum over the processes, and of the processes' gradients on the way back."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        return all_reduce_sum_(tensor.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return all_reduce_sum_(gradient.clone())


class _GlobalBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, which have equally many; nn.SyncBatchNorm does it on CUDA only."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        values = x.float()
        own = torch.stack(torch.var_mean(values, dims, correction=0))  # (2, C)
        everyone = own.new_zeros(size(), *own.shape).index_copy(0, torch.tensor([rank()]), own[None])
        variances, means = _Sum.apply(everyone).unbind(1)  # (processes, C)
        mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        self._track(mean.detach(), variance.detach(), size() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return ((values - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        self.get_buffer("num_batches_tracked").add_(1)
        self.get_buffer("running_mean").lerp_(mean, self.momentum or 0.0)
        self.get_buffer("running_var").lerp_(variance * count / max(1, count - 1), self.momentum or 0.0)
