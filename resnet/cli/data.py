"""The command that fetches data: data."""

import argparse
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    command("data", fetch, "download CIFAR-10 into the data folder").add_argument("name", choices=["cifar10"])


def fetch(args: argparse.Namespace) -> int:
    from resnet.data.dataset import download_cifar10

    for done, total in download_cifar10():
        print(f"\rCIFAR-10: {done / 1e6:.0f} of {total / 1e6:.0f} MB", end="", flush=True)
    print()
    return 0
