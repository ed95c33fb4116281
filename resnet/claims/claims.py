"""What is said of residual nets, and what the figures say of it."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "holds only with", "does not hold"]


@dataclass(frozen=True)
class Claim:
    """A sentence as it is often heard, the figures (their ids) that test it, and what follows from them.

    `page` is the page of pages/ on which the figures can be seen live.
    """

    said: str
    page: str
    figures: tuple[str, ...]
    literature: str
    verdict: Verdict
    why: str


CLAIMS: dict[str, Claim] = {
    "vanishing": Claim(
        "Shortcuts keep the gradient from vanishing.",
        "why/gradients.py",
        ("factor-batch-plain-56", "factor-batch-resnet-56", "ratio-batch-plain-56", "ratio-batch-resnet-56"),
        "He et al. 2015 (arXiv 1512.03385, 4.1) checked that their plain nets' gradients have healthy norms with batch "
        "norm. Yang et al. 2019 (arXiv 1902.08129) derive a growth of 1.211 per layer.",
        "does not hold",
        "With batch norm and He initialisation a deep plain net's gradients do not vanish: they grow towards the "
        "input. Shortcuts slow that growth down.",
    ),
    "norm": Claim(
        "Batch norm is what makes deep residual nets trainable.",
        "why/gradients.py",
        ("ratio-none-resnet-56", "ratio-none-plain-56", "ratio-batch-resnet-56"),
        "De and Smith 2020 (arXiv 2002.10444): batch norm makes branches small beside the shortcut; a factor that "
        "starts at 0 (SkipInit) does as well. Fixup (arXiv 1901.09321) needs no norm either.",
        "holds only with",
        "It holds only with branches that start at full size: then a residual net without a norm has gradients that "
        "explode. Branches that start at zero need no norm for that.",
    ),
    "faster": Claim(
        "Residual nets train faster.",
        "training/train.py",
        ("loss-plain-20", "loss-resnet-20", "loss-plain-56", "loss-resnet-56"),
        "He et al. 2015 (4.1): at 18 layers both end alike, and the residual net converges faster; at 34 layers the "
        "plain net is worse from beginning to end.",
        "holds",
        "After the same steps the residual net's training loss is the lower one: somewhat at 20 layers, by far at 56.",
    ),
    "overfit": Claim(
        "Deeper plain nets are worse because they overfit.",
        "training/train.py",
        ("loss-plain-20", "loss-plain-56", "accuracy-plain-20", "accuracy-plain-56"),
        "He et al. 2015 (Fig. 1): the 56-layer plain net has the higher training error, too.",
        "does not hold",
        "The deeper plain net has the higher training loss as well: it does not learn its training images. That is no "
        "overfitting.",
    ),
    "identity": Claim(
        "A block that is not needed can easily learn to be the identity.",
        "why/signal.py",
        ("share-1", "share-27", "response-resnet-56", "response-plain-56"),
        "He et al. 2015 (3.1) argue that a branch can be driven to zero; they find small responses (Fig. 7), not zero.",
        "holds only with",
        "It holds only with shortcuts, and as a tendency: late branches add little to the sum, from the start, but "
        "they do not become zero.",
    ),
    "ensemble": Claim(
        "Residual nets are ensembles of shallow nets.",
        "why/lesions.py",
        ("length-56", "spared-resnet-56", "cut-resnet-56", "cut-plain-56"),
        "Veit et al. 2016 (arXiv 1605.06431): single layers can be deleted, and most of the gradient comes through "
        "paths of 5 to 17 of 54 layers.",
        "holds only with",
        "It holds only with a grain of salt: the gradient comes through paths shorter than half of the blocks, and "
        "most single blocks of a trained residual net can be cut at a small cost. But the paths share their weights "
        "and are trained together.",
    ),
    "landscape": Claim(
        "Shortcuts make the loss landscape smoother.",
        "why/landscape.py",
        ("rise-plain-20", "rise-resnet-20", "rise-plain-56", "rise-resnet-56"),
        "Li et al. 2018 (arXiv 1712.09913): without shortcuts the surface turns from convex to chaotic between 20 and "
        "56 layers.",
        "holds only with",
        "It holds only with a word on what is meant. At the same distance the loss rises less around residual nets, "
        "much less at 56 layers: their valleys are wider. How rough the surface is, one distance does not tell: see "
        "the plane.",
    ),
    "noise": Claim(
        "Without shortcuts a deep net's gradients are noise.",
        "why/batches.py",
        ("lag-plain-50", "lag-residual-50-1", "cosine-plain-56", "cosine-resnet-56"),
        "Balduzzi et al. 2017 (arXiv 1702.08591): gradients of deep plain nets look like white noise along the input. "
        "Sankararaman et al. 2020 (arXiv 1904.06963): depth confuses mini-batches, shortcuts undo it.",
        "holds",
        "It holds at the start of training: from input to input, and from mini-batch to mini-batch, a deep plain net's "
        "gradients hardly correlate. A residual net's do.",
    ),
}
