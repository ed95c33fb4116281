"""Which pixels a unit really looks at: the effective receptive field."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.analysis.outputs import stage_modules, tap
from resnet.errors import Refused
from resnet.nets.borrow import borrowed

EDGE = 1 - 0.9545  # of the largest gradient: two standard deviations of a Gaussian
BATCH = 8


def receptive_fields(model: nn.Module, images: Tensor, labels: Tensor) -> Steps:
    """|d centre / d pixel| for every stage, in long form: stage, y, x (pixels), gradient, 1 at its largest.

    The centre is the unit at (h // 2, w // 2) of the stage's output, summed over channels; the gradient's magnitude
    is the mean over the images (N, C, H, W) and their channels. The net runs as it predicts, the labels are not used.
    A `Partial` after every few images. Refused for clips and volumes.
    """
    if images.dim() != 4:
        raise Refused("Receptive fields are of images.", tuple(images.shape), "(N, C, H, W)")
    stages = stage_modules(model)
    totals = dict.fromkeys(stages, torch.zeros(()))
    splits = images.split(BATCH)
    with borrowed(model), torch.enable_grad():
        held = tap(model, list(stages.values()))
        for done, batch in enumerate(splits, 1):
            x = batch.detach().to(next(model.parameters()), copy=True).requires_grad_()
            model(x)
            for stage, name in stages.items():
                gradient = _centre_gradient(held[name], x)
                totals[stage] = totals[stage] + gradient.abs().sum((0, 1)).double().cpu()  # (H, W)
            yield Partial(done / len(splits), _table(totals))


def _centre_gradient(maps: Tensor, x: Tensor) -> Tensor:
    if maps.dim() != 4:
        raise Refused("A receptive field needs a stage whose output is maps.", tuple(maps.shape), "(N, C, H, W)")
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum()
    return torch.autograd.grad(centre, x, retain_graph=True, materialize_grads=True)[0]


def _table(totals: dict[str, Tensor]) -> pd.DataFrame:
    frames = []
    for stage, total in totals.items():
        y, x = np.indices(total.shape)
        values = (total / total.max()).numpy()
        frames.append(pd.DataFrame({"stage": stage, "y": y.ravel(), "x": x.ravel(), "gradient": values.ravel()}))
    return pd.concat(frames, ignore_index=True)


def field_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Sides of the fields of each stage in pixels: stage, effective, theoretical.

    Effective is the square root of the number of pixels with more than 4.55 % of the largest gradient (Luo 2016).
    Theoretical is the square root of the area of the box around all pixels with a gradient: what is within the image
    of the field that kernels and strides give.
    """
    rows = []
    for stage, field in table.groupby("stage", sort=False):
        reached = field[field.gradient > 0]
        box = (np.ptp(reached.y) + 1) * (np.ptp(reached.x) + 1) if len(reached) else 0
        rows.append((stage, (field.gradient > EDGE).sum() ** 0.5, box**0.5))
    return pd.DataFrame(rows, columns=["stage", "effective", "theoretical"])


def _reason(model: nn.Module) -> str:
    volumes = any(isinstance(module, nn.Conv3d) for module in model.modules())
    return "Receptive fields are drawn for nets that read images, and this one reads clips or volumes." * volumes


RECEPTIVE = Analysis(
    title="Receptive fields",
    question="How much of the image does a unit really look at?",
    function=receptive_fields,
    formula=r"mean of $\lvert \partial \sum_c z_{c, h/2, w/2} \, / \, \partial x \rvert$ over images and channels; "
    r"its size is $\sqrt{\text{pixels above } 4.55\,\% \text{ of the maximum}}$",
    paper="Luo et al. 2016, arXiv 1701.04128",
    look="The field fades from its centre and covers only part of the box that kernels and strides allow. At "
    "initialisation it is narrower with shortcuts than without, though the box is the same.",
    expect="Kernels and strides give a box. Do the pixels at its border count as much as those in the middle? And "
    "does a shortcut make the field wider or narrower?",
    passes=lambda blocks, options: 6,  # a way back for every stage, most of them shorter than the net
    reason=_reason,
)
