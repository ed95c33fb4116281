"""What Quantus says of the arrays in an npz file, as JSON; it runs in .venv-quantus (`make quantus`).

Each part of ORACLES runs where the file has its arrays.
"""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import quantus
import torch
from quantus.functions.complexity_func import discrete_entropy
from quantus.functions.perturb_func import noisy_linear_imputation
from quantus.functions.similarity_func import correlation_spearman
from skimage.metrics import structural_similarity


def imputation(image: np.ndarray, missing: np.ndarray) -> list:
    """Of an image (C, H, W) where `missing` (H, W), without noise."""
    return noisy_linear_imputation(image, np.flatnonzero(missing), noise=0.0).tolist()


def road(images: np.ndarray, labels: np.ndarray, maps: np.ndarray, percentages: np.ndarray, weight: np.ndarray) -> list:
    """Accuracies of a linear net of `weight` (classes, C H W), by percentage."""
    linear = torch.nn.Linear(weight.shape[1], len(weight), bias=False)
    linear.weight.data = torch.from_numpy(weight).float()
    net = torch.nn.Sequential(torch.nn.Flatten(), linear).eval()
    metric = quantus.ROAD(percentages=percentages.tolist(), noise=0.0, normalise=False, disable_warnings=True)
    found = metric(net, images, labels, maps[:, None], softmax=True, device="cpu")
    return [float(found[each]) for each in percentages.tolist()]


def efficient_mprt(before: np.ndarray, after: np.ndarray) -> list:
    """The metric on maps (N, H, W) that a net and its randomised copy are said to have."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(before[0].size, 2)).eval()
    trained = net.get_parameter("1.weight").detach().clone()

    def explained(model: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        return (before if torch.equal(model.get_parameter("1.weight"), trained) else after)[:, None]

    metric = quantus.EfficientMPRT(complexity_func_kwargs={"n_bins": 100}, disable_warnings=True)
    inputs, targets = before[:, None].astype(np.float32), np.zeros(len(before), int)
    return metric(net, inputs, targets, explain_func=explained, device="cpu", a_batch=before[:, None])


def spearman(one: np.ndarray, other: np.ndarray) -> list:
    return [float(correlation_spearman(a.ravel(), b.ravel())) for a, b in zip(one, other, strict=True)]


def ssim(left: np.ndarray, right: np.ndarray) -> list:
    """As Wang et al. 2004, of maps (N, H, W) between 0 and 1."""
    how = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return [float(structural_similarity(a, b, **how)) for a, b in zip(left, right, strict=True)]


def entropy(pictures: np.ndarray) -> list:
    return [float(discrete_entropy(a, a, n_bins=100)) for a in pictures]


def pointing_game(pointing: np.ndarray, masks: np.ndarray) -> list:
    """Whether the largest value of each map (N, H, W) lies in its mask (N, H, W)."""
    metric = quantus.PointingGame(abs=False, normalise=False, disable_warnings=True)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pointing[0].size, 2)).eval()
    inputs, targets = pointing[:, None].astype(np.float32), np.zeros(len(pointing), int)
    return [bool(hit) for hit in metric(net, inputs, targets, pointing[:, None], masks[:, None], device="cpu")]


ORACLES = imputation, road, efficient_mprt, spearman, ssim, entropy, pointing_game


def values(arrays: dict[str, np.ndarray]) -> dict[str, list]:
    """By the name of each oracle whose arrays are there."""
    found = {}
    for oracle in ORACLES:
        names = list(inspect.signature(oracle).parameters)
        if set(names) <= arrays.keys():
            found[oracle.__name__] = oracle(*(arrays[name] for name in names))
    return found


if __name__ == "__main__":
    with np.load(Path(sys.argv[1])) as file:
        print(json.dumps(values(dict(file))))
