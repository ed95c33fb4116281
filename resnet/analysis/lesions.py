"""Lesions of a trained net: blocks cut out, halved or moved, and what is left of its accuracy (Veit 2016)."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from types import MappingProxyType

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet.analysis.contract import Analysis, Partial, Steps
from resnet.errors import Refused
from resnet.nets.blocks import Block
from resnet.nets.borrow import borrowed
from resnet.nets.model import ResNet, blocks, memory_format, parts
from resnet.seeds import generator

IMAGES = 1000  # usually; Veit et al. took all test images
BATCH = 100  # of these at a time
TOGETHER = 300  # images whose backward pass takes as much memory: it keeps five tensors of a block or more
KEEP_BYTES = 400_000_000  # of activations
PAPER = "Veit et al. 2016, arXiv 1605.06431"
NOTHING: Mapping[str, str] = MappingProxyType({})


def lesions_of(block: Block) -> list[str]:
    """The modes that break a block: "cut", "shortcut" (without its branch) and "branch" (without its shortcut).

    A block that changes the shape of its input cannot be cut out, and a plain one has nothing but its branch.
    """
    residual = block.downsample is not None
    return [mode for mode, can in (("cut", block.keeps_shape), ("shortcut", residual), ("branch", residual)) if can]


def kendall_tau(order: Sequence[int]) -> float:
    """Rank correlation of an order of different numbers with the ascending one: 1 where equal, -1 where reversed."""
    pairs = list(combinations(order, 2))
    return 1 - 2 * sum(first > second for first, second in pairs) / len(pairs)


class Lesions:
    """A net and images (N, C, *S): its logits with blocks broken, without running again what stands before.

    What enters every k-th block is kept, with the smallest k for which it fits into `keep_bytes`, and a broken net runs
    from the last of these before the first broken block. Images run in batches of BATCH, in the net's `memory_format`.
    The net is borrowed for each call, runs in eval mode, and must not change between calls.
    """

    def __init__(self, model: ResNet, images: Tensor, keep_bytes: int = KEEP_BYTES) -> None:
        self.model, self.blocks = model, blocks(model)
        with torch.device("meta"):
            self._links = [part.name for part in parts(model.spec)]  # the net as a chain
        images = images.to(next(model.parameters())).contiguous(memory_format=memory_format(model))
        with borrowed(model), torch.no_grad():
            kept = self._affordable(images, keep_bytes)
            self._before: dict[str, list[Tensor]] = {name: [] for name in (self._links[0], *kept)}  # batch by batch
            logits = []
            for x in images.split(BATCH):
                for name in self._links:
                    if name in self._before:
                        self._before[name].append(x)
                    x = model.get_submodule(name)(x)
                logits.append(x)
        self.unbroken = torch.cat(logits)  # (N, classes)

    def _affordable(self, images: Tensor, keep_bytes: int) -> list[str]:
        """Every k-th block's name."""
        x, sizes = images[:1], {}
        for name in self._links:
            sizes[name] = x.nbytes * len(images)
            x = self.model.get_submodule(name)(x)
        choices = (list(self.blocks)[k - 1 :: k] for k in range(1, len(self.blocks) + 2))
        return next(names for names in choices if sum(sizes[name] for name in names) <= keep_bytes)

    def logits(self, cuts: Mapping[str, str] = NOTHING, order: Sequence[str] | None = None) -> Tensor:
        """(N, classes) with blocks in other modes, by name, and in another order; without either, `unbroken`.

        Refused for a block that the net lacks, for a mode in which it cannot run, and for an order in which a block
        leaves its stage, or that moves one that changes the shape of its input.
        """
        if unknown := cuts.keys() - self.blocks.keys():
            raise Refused("Only a block of the net can be broken.", ", ".join(sorted(unknown)), ", ".join(self.blocks))
        places = dict(zip(self.blocks, self._checked(order), strict=True)) if order is not None else {}
        links = [places.get(name, name) for name in self._links]
        broken = [
            i for i, (name, own) in enumerate(zip(links, self._links, strict=True)) if name != own or name in cuts
        ]
        with borrowed(self.model), torch.no_grad():
            for name, mode in cuts.items():
                self.blocks[name].mode = mode
            if not broken:
                return self.unbroken.clone()
            start = max(i for i, name in enumerate(self._links[: broken[0] + 1]) if name in self._before)
            modules = [self.model.get_submodule(name) for name in links[start:]]
            return torch.cat([reduce(_through, modules, x) for x in self._before[self._links[start]]])

    def _checked(self, order: Sequence[str]) -> Sequence[str]:
        """The order; Refused."""
        stages = {name: stage for stage, names in self.movable().items() for name in names}
        moved = [pair for pair in zip(self.blocks, order, strict=False) if pair[0] != pair[1]]
        within = all(own in stages and stages[own] == stages.get(name) for own, name in moved)
        if sorted(order) != sorted(self.blocks) or not within:
            raise Refused("Blocks can change places only within a stage, and only those that keep their input's shape.")
        return order

    def movable(self) -> dict[str, list[str]]:
        """The names of each stage's blocks that keep the shape of their input."""
        stages: dict[str, list[str]] = {}
        for name, block in self.blocks.items():
            if block.keeps_shape:
                stages.setdefault(name.partition(".")[0], []).append(name)
        return stages

    def score(self, labels: Tensor, cuts: Mapping[str, str] = NOTHING, order: Sequence[str] | None = None) -> dict:
        """The accuracy (0 to 1) and the mean cross-entropy in nats of `logits` on labels (N,)."""
        logits = self.logits(cuts, order)
        labels = labels.to(logits.device)
        return {
            "accuracy": float((logits.argmax(1) == labels).double().mean()),
            "loss": float(F.cross_entropy(logits.double(), labels)),
        }


def _through(x: Tensor, module: nn.Module) -> Tensor:
    return module(x)


def lesions(model: ResNet, images: Tensor, labels: Tensor) -> Steps:
    """One block broken at a time, in each way that it can be: block, mode, accuracy, loss; first the unbroken net.

    The first row has the block "" and the mode "both".
    """
    lab = Lesions(model, images)
    rows = [{"block": "", "mode": "both", **lab.score(labels)}]
    for done, (name, block) in enumerate(lab.blocks.items(), 1):
        rows += [{"block": name, "mode": mode, **lab.score(labels, {name: mode})} for mode in lesions_of(block)]
        yield Partial(done / len(lab.blocks), pd.DataFrame(rows))


def drops(model: ResNet, images: Tensor, labels: Tensor, most: int = 10, draws: int = 3, seed: int = 0) -> Steps:
    """From 1 to `most` blocks cut out at random, `draws` times each: deleted, draw, accuracy, loss.

    Drawn from the blocks that keep the shape of their input; the first row is the unbroken net. The same seed cuts the
    same blocks out of both twins.
    """
    lab = Lesions(model, images)
    choices = [name for names in lab.movable().values() for name in names]
    rows = [{"deleted": 0, "draw": 0, **lab.score(labels)}]
    counts = range(1, min(most, len(choices)) + 1)
    for count in counts:
        for draw in range(draws):
            drawn = torch.randperm(len(choices), generator=generator(seed, count, draw))[:count].tolist()
            score = lab.score(labels, {choices[index]: "cut" for index in drawn})
            rows.append({"deleted": count, "draw": draw, **score})
        yield Partial(count / counts[-1], pd.DataFrame(rows))


def shuffles(model: ResNet, images: Tensor, labels: Tensor, most: int = 10, draws: int = 3, seed: int = 0) -> Steps:
    """From 1 to `most` swaps of two random blocks of a stage, `draws` times each: swaps, draw, tau, accuracy, loss.

    tau is Kendall's rank correlation of the order of all blocks with the net's own, of which the first row is. Blocks
    that change the shape of their input stay where they are. The same seed swaps the same blocks of both twins.
    """
    lab = Lesions(model, images)
    names = list(lab.blocks)
    pairs = [pair for stage in lab.movable().values() for pair in combinations(map(names.index, stage), 2)]
    rows = [{"swaps": 0, "draw": 0, "tau": 1.0, **lab.score(labels)}]
    for swaps in range(1, most + 1):
        for draw in range(draws):
            order = list(range(len(names)))
            for index in torch.randint(len(pairs), (swaps,), generator=generator(seed, swaps, draw)).tolist():
                first, second = pairs[index]
                order[first], order[second] = order[second], order[first]
            score = lab.score(labels, order=[names[index] for index in order])
            rows.append({"swaps": swaps, "draw": draw, "tau": kendall_tau(order), **score})
        yield Partial(swaps / most, pd.DataFrame(rows))


def _ours(model: nn.Module) -> str:
    return "" if isinstance(model, ResNet) else "Only nets that this program builds have blocks that can be broken."


def _can_cut(model: nn.Module) -> str:
    possible = not _ours(model) and any(block.keeps_shape for block in blocks(model).values())
    return "" if possible else _ours(model) or "Every block changes the shape of its input, so none can be cut out."


def _can_swap(model: nn.Module) -> str:
    stages = [name.partition(".")[0] for name, block in blocks(model).items() if block.keeps_shape]
    return _ours(model) or ("" if len(stages) > len({*stages}) else "No stage has two blocks that can change places.")


LESIONS = Analysis(
    title="One block broken",
    question="Does a trained net need each of its blocks?",
    function=lesions,
    formula="In one block at a time, instead of $y = x + F(x)$: $y = x$ (cut, or the shortcut alone) or $y = F(x)$ "
    "(the branch alone)",
    paper=PAPER,
    look="A residual net hardly needs any one block: in the recorded ResNet-56, on 300 test images, 22 of the 25 "
    "blocks that can be cut out cost less than 3.5 points each, and none more than 5.3. It needs its shortcuts: 23 of "
    "the 27, cut alone, leave less than 20 % accuracy. In plain-56 every cut leaves 21 % or less of 67 %. A shortcut "
    "that passes x on after a ReLU gives x, so cutting the branch and cutting the whole block are then the same.",
    expect="If one layer of a deep net is taken out, what should be left of its accuracy?",
    images=IMAGES,
    together=TOGETHER,
    passes=lambda blocks, options: 1 + 1.5 * blocks,
    reason=_ours,
)
DROPS = Analysis(
    title="Blocks dropped",
    question="How does the error grow with the number of blocks that are cut out?",
    function=drops,
    formula=r"$y = x$ in $n$ blocks, drawn at random from those that keep the shape of their input",
    paper=PAPER,
    look="A residual net's error grows step by step with the number of blocks: the recorded ResNet-56, with 12 % error "
    "on 300 test images, has 14 % to 33 % without 2 or 3 of its 27 blocks and 35 % to 52 % without 8. In plain-56 one "
    "block is enough to lose nearly everything: 79 % to 93 %.",
    expect="How many of 27 blocks can be cut out before a residual net is no better than a guess?",
    options={"most": 10, "draws": 3, "seed": 0},
    images=IMAGES,
    together=TOGETHER,
    passes=lambda blocks, options: 1 + options["draws"] * options["most"],
    reason=_can_cut,
)
SHUFFLES = Analysis(
    title="Blocks shuffled",
    question="Does a trained net need its blocks in their order?",
    function=shuffles,
    formula=r"Kendall's $\tau = 1 - 4 d / (n (n - 1))$, where $d$ of the pairs of $n$ blocks stand in the wrong order",
    paper=PAPER,
    look="A residual net's error grows with the disorder, and a few swaps cost little: the recorded ResNet-56, with "
    "12 % error on 300 test images, has 20 % or less where tau is above 0.9, and 16 % to 76 % below. Tau does not come "
    "near 0, for blocks stay in their stage.",
    expect="Two blocks of a trained net change places. Does the net still recognise anything?",
    options={"most": 10, "draws": 3, "seed": 0},
    images=IMAGES,
    together=TOGETHER,
    passes=lambda blocks, options: 1 + options["draws"] * options["most"],
    reason=_can_swap,
)
