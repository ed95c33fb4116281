"""A batch through a net, forward and backward."""

from torch import Tensor, nn
from torch.nn import functional as F

from resnet.devices import autocast


def forward_backward(
    net: nn.Module, x: Tensor, labels: Tensor, precision: str, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy () and logits (N, classes) of a batch; its gradients replace those in the parameters' .grad.

    x: (N, C, H, W); labels: int64 (N,), or the share of each class, float (N, classes). The gradients from before are
    freed between the two passes.
    """
    with autocast(x.device, precision):
        logits = net(x)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    net.zero_grad(set_to_none=True)
    loss.backward()
    return loss.detach(), logits.detach()
