"""Trained weights for our nets: torchvision's, a user's safetensors file, a user's state_dict; nothing in them runs."""

import hashlib
import http.client
import io
import os
import re
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from resnet.errors import Refused

MAX_BYTES = 2**30  # of a file and of what it unpacks to; the largest of torchvision's has half of that
CHUNK, STALL = 2**18, 30.0  # bytes read at once; seconds without any until we give up
OTHER_FILE = "Choose a safetensors file, or a state_dict written by torch.save"

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
WRAPPERS = ("state_dict", "model_state_dict", "model")  # entries under which training scripts keep a state_dict
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, of torch.compile, of our checkpoints
RENAMES = (
    (r"^linear\.", "fc."),  # akamaster/pytorch_resnet_cifar10
    (r"\.shortcut\.", ".downsample."),  # the same
    (r"^stem\.0\.", "conv1."),  # torchvision's r3d_18
    (r"^stem\.1\.", "bn1."),
    (r"\.conv(\d)\.0\.", r".conv\1."),
    (r"\.conv(\d)\.1\.", r".bn\1."),
)


def offered(preset: str) -> dict[str, WeightsEnum]:
    """torchvision's weights for a preset by name, as IMAGENET1K_V2; none for most presets. Nothing is downloaded."""
    builder = TORCHVISION.get(preset)
    return {weights.name: weights for weights in get_model_weights(builder)} if builder else {}


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
            yield from _fetch(weights.url, target)
        size = target.stat().st_size
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"{_what_failed(error, target)} {_advice(target)}") from None
    yield size, size


def _fetch(url: str, target: Path) -> Iterator[tuple[int, int]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "torch.hub"})
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
            raise Refused(f"The download broke off at {done:,} of {total:,} bytes. {_advice(target)}")
        if not digest.hexdigest().startswith(_name_and_checksum(url)[1]):
            raise Refused(f"The checksum of these {done:,} bytes is not that of {target.name}. {_advice(target)}")
        os.replace(part, target)


def _what_failed(error: Exception, target: Path) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"The server answered {error.code} {error.reason} for {target.name}."
    if isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError | http.client.HTTPException):
        return f"The server of {target.name} cannot be reached ({getattr(error, 'reason', error)}): is there a network?"
    return f"{target.name} cannot be saved in {target.parent} ({getattr(error, 'strerror', error)})."


def _advice(target: Path) -> str:
    return f"Try again, or put {target.name} into {target.parent}, or choose random weights."


def load_torchvision(weights: WeightsEnum) -> dict[str, Tensor]:
    """The tensors of a downloaded file; Refused where it is not there."""
    if not downloaded(weights):
        path = checkpoint(weights)
        raise Refused("Weights are downloaded before they load.", f"no whole {path}", "download first")
    return read(checkpoint(weights))


def read(source: bytes | Path) -> dict[str, Tensor]:
    """The tensors by name of a safetensors file or of a state_dict that torch.save wrote, on the CPU.

    torch.load opens the latter with weights_only=True: code in it is refused, not run. Refused for anything else.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            _check_size(file)
            head = file.read(9)
            file.seek(0)
            loaded = safetensors.torch.load(file.read()) if head[8:] == b"{" else _unpacked(file)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile file can make the readers raise anything
        raise Refused(f"{_what_is_wrong(error)} {OTHER_FILE}.") from None
    return _state_dict(loaded)


def _unpacked(file: IO[bytes]) -> object:
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_size(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = max(size, sum(member.file_size for member in archive.infolist()))
    file.seek(0)
    if size > MAX_BYTES:
        limit = f"at most {MAX_BYTES / 2**30:g} GiB, unpacked too"
        raise Refused(f"A file of weights has {limit}. Received {size / 2**30:.3g} GiB. {OTHER_FILE}.")


def _what_is_wrong(error: Exception) -> str:
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"Weights are tensors and nothing else. Received a file with code in it ({code[1]}), which was not run."
    if isinstance(error, FileNotFoundError):
        return f"There must be a file. Received {error.filename}."
    return f"This is no whole file of weights. Received bytes that cannot be read ({type(error).__name__})."


def _state_dict(loaded: object) -> dict[str, Tensor]:
    """The tensors of a dict, or of the one that a training script put into it; Refused for any other content."""
    for name in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not loaded:
        raise Refused(f"Weights are a dict of tensors. Received {type(loaded).__name__}. {OTHER_FILE}.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise Refused(f"Weights are a dict of tensors. Received {kind} under {name!r:.80}. {OTHER_FILE}.")
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
            raise Refused(f"Weights are dense real numbers. Received others under {name!r:.80}. {OTHER_FILE}.")
    return dict(loaded)


def rename(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Our nets' name for each of a file's: wrappers' prefixes go, CIFAR and r3d_18 names become torchvision's.

    Refused where two names become one.
    """
    own = [key for key in tensors if key.startswith("model.")]
    keys = own if own and len(own) < len(tensors) else list(tensors)  # our checkpoints hold momentum too
    names = {key: key for key in keys}
    while prefix := next((p for p in PREFIXES if names and all(n.startswith(p) for n in names.values())), ""):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    for pattern, ours in RENAMES:
        names = {key: re.sub(pattern, ours, name) for key, name in names.items()}
    doubled = [name for name, count in Counter(names.values()).items() if count > 1]
    if doubled:
        raise Refused(f"A weight stands in a file once. Received {doubled[0]} under two names. {OTHER_FILE}.")
    return names


class Misfit(NamedTuple):
    """One weight that does not fit: "missing" in the file, "unexpected" in it, or of the wrong "shape"."""

    key: str
    problem: str
    net: str  # shape, "" where it has none
    file: str


@dataclass(frozen=True)
class Report:
    """What `fit` loaded, and what does not fit; only unexpected entries do no harm."""

    loaded: tuple[str, ...]
    misfits: tuple[Misfit, ...]

    @property
    def fits(self) -> bool:
        """True where the file has all that the net needs."""
        return all(misfit.problem == "unexpected" for misfit in self.misfits)

    def table(self) -> pd.DataFrame:
        """One row per misfit: key, problem, the net's shape, the file's shape."""
        return pd.DataFrame(list(self.misfits), columns=list(Misfit._fields))


def fit(model: nn.Module, tensors: dict[str, Tensor], partial: bool = False) -> Report:
    """Load a file's tensors into a net where all that it needs fits, else load nothing; `partial` loads what fits.

    Refused where the names are ambiguous, or the net is on the meta device.
    """
    needed = model.state_dict()
    if any(value.is_meta for value in needed.values()):
        raise Refused("Weights need a net in memory.", "one on the meta device", "device cpu")
    found = {name: tensors[key] for key, name in rename(tensors).items()}
    fitting = {name: value for name, value in found.items() if name in needed and value.shape == needed[name].shape}
    misfits = tuple(_misfits(needed, found))
    report = Report(tuple(name for name in needed if name in fitting), misfits)
    if not (report.fits or partial):
        return Report((), misfits)
    model.load_state_dict(fitting, strict=False)
    return report


def _misfits(needed: dict[str, Tensor], found: dict[str, Tensor]) -> Iterator[Misfit]:
    for name, value in needed.items():
        if name not in found and not name.endswith(".num_batches_tracked"):  # a counter that old files lack
            yield Misfit(name, "missing", _shape(value), "")
        elif name in found and found[name].shape != value.shape:
            yield Misfit(name, "shape", _shape(value), _shape(found[name]))
    for name in [name for name in found if name not in needed]:
        yield Misfit(name, "unexpected", "", _shape(found[name]))


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "one number"
