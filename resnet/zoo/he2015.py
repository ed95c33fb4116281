"""What He et al. 2015 (arXiv 1512.03385) report for CIFAR-10."""

HE_2015 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}  # Table 6, test error in %


def published_error(net: str, data: str) -> float | None:
    """The paper's test error in % of a net by its preset's name; None where the paper's table has none."""
    found = {f"ResNet-{depth}": error for depth, error in HE_2015.items()}
    return found.get(net) if data == "cifar10" else None
