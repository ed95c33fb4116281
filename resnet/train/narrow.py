"""Convolutions of narrow maps at the speed of wide ones, on CPUs in bf16.

oneDNN multiplies tiles of 16 neighbouring pixels of one image's row; a map 4 pixels wide leaves three quarters of each
tile empty, and the gradient of the weights, which is summed along such rows, comes out 7 to 14 times as slow as it
need be. Here the images of a batch are laid side by side instead: (N, C, H, W) becomes (1, C, H, W, N), whose rows are
N long, and a 3x3 convolution one of 3x3x1. The products are the same and their sums in another order.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.devices import has_bf16
from resnet.nets.model import memory_format

NARROW, NARROWEST = 8, 4  # pixels of a row up to which the weights' gradient, and up to which all of it, gains
ENOUGH = 8  # images that make a longer row
Sizes = Sequence[int]
M = TypeVar("M", bound=nn.Module)


def accelerate(model: M, device: torch.device | str, precision: str) -> M:
    """The model itself, with its weights and convolutions as they train fastest on the device that it is on.

    Weights get their `memory_format`. On CUDA, cuDNN tries its kernels for each new shape (in the whole process). On
    a CPU in bf16, convolutions choose the layout by the map: the same modules and parameters by the same
    names, but of another class.
    """
    layout, kind = memory_format(model), torch.device(device).type
    model.to(memory_format=layout)
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True  # the shapes are the same at each step
    if kind == "cpu" and precision == "bf16" and has_bf16("cpu") and layout == torch.channels_last:
        for module in model.modules():
            wide = isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size != (1, 1)
            if wide and module.bias is None:
                module.__class__ = _NarrowConv2d
    return model


class _NarrowConv2d(nn.Conv2d):
    """In fp32, in which a run may still test or a page look at the model, nn.Conv2d itself."""

    def forward(self, x: Tensor) -> Tensor:
        narrow = len(x) >= ENOUGH and _out_width(x, self.stride) <= NARROW
        if narrow and torch.is_autocast_enabled("cpu"):
            return convolution(x, self.weight, self.stride, self.padding, self.dilation)
        return super().forward(x)


def _out_width(x: Tensor, stride: Sizes) -> int:
    return -(-x.shape[-1] // stride[1])  # every convolution here is same-padded


def _side_by_side(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, C, H, W, N), the channels of a pixel together in memory."""
    return x.permute(1, 2, 3, 0)[None].contiguous(memory_format=torch.channels_last_3d)


def _apart(x: Tensor) -> Tensor:
    """(1, C, H, W, N) -> (N, C, H, W), the channels of a pixel together in memory."""
    return x[0].permute(3, 0, 1, 2).contiguous(memory_format=torch.channels_last)


# Operators of their own, for torch.compile would make the copies between the layouts slow ones.
@torch.library.custom_op("resnet::narrow_convolution", mutates_args=())
def convolution(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """F.conv2d of a narrow map (N, C, H, W), without a bias."""
    if _out_width(x, stride) > NARROWEST:
        wide = F.conv2d(x, weight, None, stride, padding, dilation)
        return wide.contiguous(memory_format=torch.channels_last)
    sizes = ([*stride, 1], [*padding, 0], [*dilation, 1])
    return _apart(F.conv3d(_side_by_side(x), weight[..., None], None, *sizes))


@torch.library.custom_op("resnet::narrow_convolution_backward", mutates_args=())
def backward(
    to_y: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, through: bool
) -> tuple[Tensor, Tensor]:
    """dL/dx, which is empty unless it goes `through`, and dL/dW from dL/dy."""
    run, narrowest = torch.ops.aten.convolution_backward, to_y.shape[-1] <= NARROWEST
    long = ([*stride, 1], [*padding, 0], [*dilation, 1], False, [0, 0, 0], 1)
    rows = (_side_by_side(to_y), _side_by_side(x), weight[..., None])
    to_x, to_weight, _ = run(*rows, None, *long, [through and narrowest, True, False])
    if not through:
        to_x = x.new_empty(0)
    elif narrowest:
        to_x = _apart(to_x)
    else:
        to_x, _, _ = run(to_y, x, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False])
        to_x = to_x.contiguous(memory_format=torch.channels_last)
    return to_x, to_weight[..., 0].contiguous(memory_format=torch.channels_last)


@convolution.register_fake
def _(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    made = F.conv2d(x, weight, None, stride, padding, dilation)
    return made.contiguous(memory_format=torch.channels_last)


@backward.register_fake
def _(
    to_y: Tensor, x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, through: bool
) -> tuple[Tensor, Tensor]:
    to_x = torch.empty_like(x, memory_format=torch.channels_last) if through else x.new_empty(0)
    return to_x, torch.empty_like(weight, memory_format=torch.channels_last)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *ctx.sizes = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx: Any, to_y: Tensor) -> tuple[Tensor | None, ...]:
    through = ctx.needs_input_grad[0]
    to_x, to_weight = backward(to_y, *ctx.saved_tensors, *ctx.sizes, through)
    return to_x if through else None, to_weight, None, None, None


convolution.register_autograd(_gradients, setup_context=_keep)
convolution.register_autocast("cpu", torch.bfloat16)
