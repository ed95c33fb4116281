"""torchvision's trained weights for our nets and the relatives: which there are, their download, their inputs."""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import torch
from torchvision.models import ResNet18_Weights, WeightsEnum, get_model_weights

from resnet.errors import Refused
from resnet.nets.inputs import Inputs
from resnet.zoo.relatives import RELATIVES
from resnet.zoo.weights import MAX_BYTES, WeightsFile, read

CHUNK, STALL = 2**18, 30.0  # bytes read at once; seconds without any until we give up

# torchvision's bottlenecks stride on the 3x3 (v1.5): its weights are those of ResNet-50, not of ResNet-50 v1.
TORCHVISION: dict[str, str] = {
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "ResNet-50": "resnet50",
    "ResNet-101": "resnet101",
    "ResNet-152": "resnet152",
    "ResNeXt-50 32x4d": "resnext50_32x4d",
    "ResNeXt-101 32x8d": "resnext101_32x8d",
    "ResNeXt-101 64x4d": "resnext101_64x4d",
    "Wide ResNet-50-2": "wide_resnet50_2",
    "Wide ResNet-101-2": "wide_resnet101_2",
    "ResNet3D-18": "r3d_18",
}


def offered(name: str) -> dict[str, WeightsEnum]:
    """torchvision's weights for a preset or a relative by name, as IMAGENET1K_V2; none for most presets.

    Those without classes, or too large to be read here, are left out. Nothing is downloaded.
    """
    builder = TORCHVISION.get(name) or (RELATIVES[name].builder if name in RELATIVES else "")
    found = get_model_weights(builder) if builder else ()
    return {each.name: each for each in found if each.meta["categories"] and megabytes(each) * 2**20 <= MAX_BYTES}


def megabytes(weights: WeightsEnum) -> float:
    """The file's size in MiB."""
    return weights.meta["_file_size"]


def checkpoint(weights: WeightsEnum) -> Path:
    """Where torch.hub keeps, or will keep, that file; Refused for a URL whose name carries no checksum."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _name_and_checksum(weights.url)[0]


def downloaded(weights: WeightsEnum) -> bool:
    """True where the whole file is there: its SHA-256 starts with the digits in its name."""
    path = checkpoint(weights)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_name_and_checksum(weights.url)[1])


def _name_and_checksum(url: str) -> tuple[str, str]:
    match = re.search(r"/([\w.]+-([0-9a-f]{8,64})\.pth)$", url)
    if match is None:
        raise Refused("A download's name ends in its checksum.", url, "torchvision's own weights")
    return match[1], match[2]


def download(weights: WeightsEnum) -> Iterator[tuple[int, int]]:
    """Fetch the file unless it is there; yields (bytes so far, bytes in all); Refused where that fails.

    The file appears complete and checked, or not at all, also where the generator is closed.
    """
    target = checkpoint(weights)
    try:
        if not downloaded(weights):
            yield from _fetch(weights, target)
        size = target.stat().st_size
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"{_what_failed(error, target)} {_advice(weights)}") from None
    yield size, size


def _fetch(weights: WeightsEnum, target: Path) -> Iterator[tuple[int, int]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(weights.url, headers={"User-Agent": "torch.hub"})
    digest, done = hashlib.sha256(), 0
    with (
        tempfile.TemporaryDirectory(prefix=".weights-", dir=target.parent, ignore_cleanup_errors=True) as folder,
        urllib.request.urlopen(request, timeout=STALL) as response,
    ):
        part, total = Path(folder) / target.name, int(response.headers.get("Content-Length") or 0)
        with part.open("wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                yield done, max(done, total)
        if done < total:
            raise Refused(f"The download broke off at {done:,} of {total:,} bytes. {_advice(weights)}")
        if not digest.hexdigest().startswith(_name_and_checksum(weights.url)[1]):
            raise Refused(f"The checksum of these {done:,} bytes is not that of {target.name}. {_advice(weights)}")
        os.replace(part, target)


def _what_failed(error: Exception, target: Path) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"The server answered {error.code} {error.reason} for {target.name}."
    if isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError | http.client.HTTPException):
        return f"The server of {target.name} cannot be reached ({getattr(error, 'reason', error)}): is there a network?"
    return f"{target.name} cannot be saved in {target.parent} ({getattr(error, 'strerror', error)})."


def _advice(weights: WeightsEnum) -> str:
    target = checkpoint(weights)
    by_hand = f"put {target.name}, from {weights.url}, into {target.parent}"
    return f"Try again, or {by_hand}, or choose other weights: the recorded runs need no network."


def load_torchvision(weights: WeightsEnum) -> WeightsFile:
    """A downloaded file, read; Refused where it is not there."""
    if not downloaded(weights):
        path = checkpoint(weights)
        raise Refused("Weights are downloaded before they load.", f"no whole {path}", "download first")
    return read(checkpoint(weights))


def inputs(weights: WeightsEnum) -> Inputs:
    """How torchvision prepares the images for these weights, and its names of the classes."""
    transforms = weights.transforms()
    resize, interpolation = transforms.resize_size[0] / transforms.crop_size[0], transforms.interpolation.value
    names = tuple(weights.meta["categories"])
    return Inputs(tuple(transforms.mean), tuple(transforms.std), names, resize, interpolation)


def imagenet_names() -> tuple[str, ...]:
    """ImageNet's 1,000 classes, in the order of all weights that were trained on them."""
    return inputs(ResNet18_Weights.IMAGENET1K_V1).class_names
