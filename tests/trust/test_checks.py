"""Every check: complete findings, costs that hold, nets left as they were, and planted faults found in their order.

The planted methods explain a linear net exactly, but for a fault of a known size (as in arXiv 2410.02970).
"""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from resnet.attribution.contract import Method, Passes, Request
from resnet.attribution.methods import METHODS, explain
from resnet.errors import Refused
from resnet.trust.checks import CHECKS, judge, judging, label
from resnet.trust.contract import Case, Facts, Finding, Spread
from tests.support import unchanged
from tests.support.unchanged import leaves_model_as_found, worn

SIZE, CLASSES = 12, 6
FAULTS = (0.0, 0.4, 0.6, 0.8, 1.0)


def photos(n: int = 2, size: int = 16) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def applicable() -> list[tuple[str, str]]:
    return [(check, method) for check in CHECKS for method in ("saliency", "grad-cam")
            if not CHECKS[check].reason(worn(), method)]  # fmt: skip


def objects(images: Tensor) -> Tensor:
    return images[:, 0] > 0.5


def needs_others(check: str) -> None:
    if check in ("difull", "grid"):
        pytest.skip("tests/trust/test_grid.py has nets that are certain of the pictures of a grid")


@pytest.mark.parametrize(("check", "method"), applicable())
class TestEveryCheck:
    def case(self, method: str, seed: int = 0) -> Case:
        return Case(photos(), torch.tensor([1, 2]), method, "layer2.1", seed=seed, objects=objects(photos()))

    def test_finding(self, check: str, method: str) -> None:
        needs_others(check)
        finding = judge(check, worn(), self.case(method))
        assert math.isfinite(finding.value)
        assert len(finding.each) == 2
        assert finding.verdict in ("good", "bad", "unclear")
        assert finding.sentence.endswith(".")
        assert finding.random is not None

    def test_equal_seeds_give_equal_findings(self, check: str, method: str) -> None:
        needs_others(check)
        one, same, other = (judge(check, worn(), self.case(method, seed)) for seed in (0, 0, 1))
        assert (one.value, one.each, one.random, one.sentence) == (same.value, same.each, same.random, same.sentence)
        if check not in ("content", "completeness"):  # content has 0 for every random map
            assert one.random != other.random

    def test_the_net_is_given_back_as_it_was(self, check: str, method: str) -> None:
        leaves_model_as_found(lambda model: judge(check, model, self.case(method)), backward=False)

    def test_it_is_given_back_when_the_generator_is_closed(self, check: str, method: str) -> None:
        model = worn()
        before = unchanged.found(model)
        steps = judging(check, model, self.case(method))
        next(steps)
        steps.close()
        unchanged.assert_unchanged(model, before)

    def test_shares_rise_to_the_end(self, check: str, method: str) -> None:
        *steps, last = judging(check, worn(), self.case(method))
        shares = [step.share for step in steps]
        assert shares == sorted(shares)
        assert all(0 <= share <= 1 and finding is None for share, finding in steps)
        assert last.share == 1
        assert last.finding is not None

    def test_runs_no_more_passes_than_it_says(self, check: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        forward = type(worn()).forward

        def counted(model: nn.Module, x: Tensor) -> Tensor:
            seen.append(len(x))
            return forward(model, x)

        monkeypatch.setattr(type(worn()), "forward", counted)
        case = self.case(method)
        explain(method, worn(), case.images, case.target, case.layer)
        said = CHECKS[check].passes(Facts((16, 16), 10), Passes(sum(seen) / 2, 1)).forward
        seen.clear()
        judge(check, worn(), case)
        assert said - 65 <= sum(seen) / 2 <= said  # completeness at a layer needs no noise pictures

    def test_maps_that_are_not_finite_are_reported(self, check: str, method: str) -> None:
        maps = torch.rand(2, 16, 16)
        maps[1, 3, 3] = torch.nan
        finding = judge(check, worn(), Case(photos(), torch.tensor([1, 2]), method, "layer2.1", maps=maps))
        assert finding.verdict == "bad"
        assert math.isnan(finding.value)
        assert finding.sentence.startswith("1 of 2 maps hold NaN or infinity")

    def test_constant_maps(self, check: str, method: str) -> None:
        for value in (0.0, 3.0):
            maps = torch.full((2, 16, 16), value)
            finding = judge(check, worn(), Case(photos(), torch.tensor([1, 2]), method, "layer2.1", maps=maps))
            assert finding.verdict != "good" or (check, method) == ("completeness", "grad-cam")

    def test_a_difference_of_logits(self, check: str, method: str) -> None:
        needs_others(check)
        case = dataclasses.replace(self.case(method), against=3)
        assert math.isfinite(judge(check, worn(), case).value)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "completeness"])
def test_volumes(check: str) -> None:
    net = nn.Sequential(nn.Conv3d(1, 4, 3, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                        nn.Linear(4, 3))  # fmt: skip
    clips = torch.randn(2, 1, 6, 9, 8, generator=torch.Generator().manual_seed(1))
    case = Case(clips, torch.tensor([1, 2]), "saliency", objects=objects(clips))
    if check in ("road", "difull", "grid"):
        with pytest.raises(Refused, match="volumes"):
            judge(check, net, case)
    else:
        assert len(judge(check, net, case).each) == 2


def test_unknown_and_inapplicable_checks_are_refused() -> None:
    case = Case(photos(), torch.tensor([1, 2]), "saliency")
    with pytest.raises(Refused, match="check must be one"):
        judge("oracle", worn(), case)
    with pytest.raises(Refused, match="Saliency does not promise"):
        judge("completeness", worn(), case)


def linear() -> nn.Sequential:
    """Logits are sums of pixels times weights, through two layers; few pixels count."""
    first, second = nn.Linear(3 * SIZE * SIZE, CLASSES, bias=False), nn.Linear(CLASSES, CLASSES, bias=False)
    draws = torch.Generator().manual_seed(2)
    first.weight.data = torch.randn(first.weight.shape, generator=draws) ** 5 / SIZE
    second.weight.data = torch.eye(CLASSES)
    return nn.Sequential(nn.Flatten(), first, second)


def exact(model: nn.Module, request: Request) -> Tensor:
    """Input x gradient of a linear net: what each pixel adds to the logit."""
    x = request.images.detach().requires_grad_()
    [gradient] = torch.autograd.grad(model(x).gather(1, request.target[:, None]).sum(), x)
    return (x * gradient).sum(1).detach()


def shuffled(share: float) -> Callable[[nn.Module, Request], Tensor]:
    """The exact maps, that share of their pixels at places where they do not belong."""

    def explained(model: nn.Module, request: Request) -> Tensor:
        maps = exact(model, request).flatten(1)
        draws = torch.Generator().manual_seed(3)
        moved = torch.randperm(maps.shape[1], generator=draws)[: round(share * maps.shape[1])]
        maps[:, moved] = maps[:, moved[torch.randperm(len(moved), generator=draws)]]
        return maps.view(-1, SIZE, SIZE)

    return explained


def stubborn(share: float) -> Callable[[nn.Module, Request], Tensor]:
    """The exact maps, blended with that share of noise that no net and no class can change."""

    def explained(model: nn.Module, request: Request) -> Tensor:
        maps = exact(model, request)
        noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(4)) - 0.5
        scale = maps.std((1, 2), keepdim=True)
        return (1 - share) * maps / scale + share * noise / noise.std()

    return explained


def short(share: float) -> Callable[[nn.Module, Request], Tensor]:
    """The exact maps, that share of their sum missing."""
    return lambda model, request: (1 - share) * exact(model, request)


PLANTED = {
    "deletion": shuffled, "insertion": shuffled, "road": shuffled,
    "head": stubborn, "cascade": stubborn, "complexity": stubborn, "targets": stubborn,
    "completeness": short, "single": shuffled,
}  # fmt: skip


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Finding]:
    def judged(check: str, fault: float) -> Finding:
        name = "integrated-gradients"  # which promises completeness
        method = Method("Planted", "gradient", PLANTED[check](fault), True, False, "", "", "")
        monkeypatch.setitem(METHODS, name, method)
        images = torch.randn(24, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
        model = linear()
        return judge(check, model, Case(images, model(images).argmax(1), name))

    return judged


@pytest.mark.parametrize("check", PLANTED)
def test_planted_faults_come_out_in_their_order(check: str, planted: Callable[[str, float], Finding]) -> None:
    findings = [planted(check, fault) for fault in FAULTS]
    values = [finding.value for finding in findings]
    assert values == sorted(values, reverse=CHECKS[check].higher_is_better), values
    assert len(set(values)) == len(values)
    assert findings[0].verdict == "good"
    assert findings[-1].verdict != "good"


def test_the_share_that_is_missing_is_the_completeness_error(planted: Callable[[str, float], Finding]) -> None:
    for fault in FAULTS:
        assert planted("completeness", fault).each == pytest.approx([fault] * 24, abs=1e-4)


def test_content_says_what_is_there() -> None:
    def found(*maps: Tensor, method: str = "saliency") -> Finding:
        images = photos(len(maps))
        return judge(
            "content", worn(), Case(images, torch.zeros(len(maps)).long(), method, "layer1", maps=torch.stack(maps))
        )

    blank, even = torch.zeros(16, 16), torch.full((16, 16), 2.0)
    mixed = torch.tensor([-1.0, 3.0]).repeat(16, 8)
    assert found(mixed).each == pytest.approx([0.25])
    assert found(mixed, -mixed).each == pytest.approx([0.25, 0.75])
    assert found(blank).sentence == f"The map is blank. {METHODS['saliency'].blank}"
    assert found(blank, mixed, blank).sentence.startswith("2 of 3 maps are blank.")
    assert found(even).sentence.startswith("The map is the same everywhere.")
    assert [found(one).verdict for one in (blank, even, mixed)] == ["bad", "bad", "good"]


def finding(verdict: str) -> Finding:
    return Finding(0.5, verdict, f"It is {verdict}.", Spread(0, 0, 0))  # type: ignore[arg-type]


def test_labels() -> None:
    good, bad, unclear = map(finding, ("good", "bad", "unclear"))
    assert label({"deletion": good, "road": good})[0] == "verified here"
    assert label({"deletion": good, "road": good, "completeness": unclear})[0] == "unverified"
    assert label({"deletion": good})[0] == "unverified"
    assert label({"deletion": bad, "road": good}) == (
        "unverified", "No check found the map wrong, but these did not confirm it: Deletion.")  # fmt: skip
    assert label({"deletion": bad, "road": bad})[0] == "do not trust"
    assert label({}) == label({"road": unclear})
    assert label({"deletion": good, "road": good, "head": bad}) == (
        "do not trust", "Last layer re-initialised: It is bad.")  # fmt: skip
