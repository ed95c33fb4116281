"""Our measurements against Quantus 0.6, which runs in an environment of its own (`make quantus`)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resnet.trust import imputation
from resnet.trust.imputation import imputed
from resnet.trust.randomisation import entropies, rise
from resnet.trust.removal import cell_ranks, removed
from resnet.trust.similarity import spearman, ssim

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-quantus" / "bin" / "python"


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arrays() -> dict[str, Tensor]:
    """Maps with ties and of unlike shapes of histogram; a picture with a wide hole, and single pixels missing."""
    missing = torch.zeros(16, 16, dtype=torch.bool)
    missing[:9, 5:] = True
    missing |= noise(1, 16, 16) > 1
    images, weight = noise(2, 12, 1, 16, 16), noise(3, 4, 16 * 16)  # Quantus's ROAD takes grey pictures alone
    labels = (images.flatten(1) @ weight.T).argmax(1)
    maps = (images * weight[labels].view_as(images)).sum(1)
    before, after = noise(4, 5, 16, 16) ** 3, noise(5, 5, 16, 16)
    return {
        "image": noise(6, 3, 16, 16), "missing": missing,
        "images": images, "labels": labels, "maps": maps, "weight": weight,
        "percentages": 100 / 256 * torch.tensor([1, 2, 4, 8, 16]),
        "before": before, "after": after, "pictures": before.abs(),
        "one": before.round(), "other": (before + after).round(),
        "left": before.abs() / before.abs().amax((1, 2), keepdim=True),
        "right": after.abs() / after.abs().amax((1, 2), keepdim=True),
    }  # fmt: skip


@pytest.fixture(scope="module")
def quantus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Quantus says; a skip without it, a failure where RESNET_REQUIRE_QUANTUS is set."""
    if not PYTHON.exists():
        if os.environ.get("RESNET_REQUIRE_QUANTUS"):
            pytest.fail("RESNET_REQUIRE_QUANTUS is set, and there is no .venv-quantus")
        pytest.skip("no Quantus: `make quantus` installs it")
    path = tmp_path_factory.mktemp("quantus") / "arrays.npz"
    given: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays().items()}
    np.savez(path, **given)
    script = ROOT / "tests" / "oracles" / "quantus_values.py"
    done = subprocess.run([PYTHON, script, path], capture_output=True, text=True, check=False, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_imputation(quantus: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imputation, "TOLERANCE", 1e-10)
    given = arrays()
    filled = imputed(given["image"][None], given["missing"][None], torch.zeros(3, 1, 1))[0]
    torch.testing.assert_close(filled, torch.tensor(quantus["imputation"], dtype=torch.float64))


def test_road(quantus: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy, which the metric counts, from the same pictures as our curve of probabilities."""
    monkeypatch.setattr(imputation, "TOLERANCE", 1e-10)
    given = arrays()
    accuracies = []
    for percentage in given["percentages"].tolist():
        gone = removed(cell_ranks(given["maps"], 0), percentage / 100, given["images"].shape[2:])
        answers = imputed(given["images"], gone, torch.zeros(1, 1, 1)).flatten(1) @ given["weight"].T
        accuracies.append(float((answers.argmax(1) == given["labels"]).double().mean()))
    assert len(set(accuracies)) > 1
    assert accuracies == pytest.approx(quantus["road"])


def test_efficient_mprt(quantus: dict[str, Any]) -> None:
    given = arrays()
    assert entropies(given["pictures"]).tolist() == pytest.approx(quantus["entropy"])
    assert rise(given["before"], given["after"]).tolist() == pytest.approx(quantus["efficient_mprt"])


def test_similarity(quantus: dict[str, Any]) -> None:
    given = arrays()
    assert spearman(given["one"], given["other"]).tolist() == pytest.approx(quantus["spearman"], abs=1e-6)
    assert ssim(given["left"], given["right"]).tolist() == pytest.approx(quantus["ssim"], abs=1e-6)
