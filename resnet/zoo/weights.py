"""Weights in files: safetensors, and whatever a training script gave to torch.save; nothing in them runs."""

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from torch import Tensor

from resnet.errors import Refused
from resnet.nets.codes import from_json
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec
from resnet.zoo import pickled
from resnet.zoo.recognise import AGAIN, OTHER_FILE, STATE_DICT, is_safetensors, what_else

MAX_BYTES = 2**30  # of a file and of what it unpacks to; the largest of torchvision's has half of that
MAX_HEADER = 2**24  # of a safetensors file's header, for what we read of it
MAX_DEPTH, MAX_NAME, MAX_TENSORS = 12, 1000, 100_000  # dicts in dicts; characters; far above any net's
_CONTAINERS = (dict, list, tuple)


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds: every tensor in its dicts, as "state_dict/layer1.0.conv1.weight", a "/" after each dict.

    `others` names what lies beside them at the top, as an epoch; `inputs` and `spec` are there in files of our Export.
    """

    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    inputs: Inputs | None = None
    spec: NetSpec | None = None


def read(source: bytes | Path) -> WeightsFile:
    """All dense real tensors of a safetensors file or of one that torch.save wrote, on the CPU.

    Code in it is refused by its name, and never run (see `pickled`). Refused for anything else, saying what it is.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            _check_size(file)
            if what := what_else(file):
                raise Refused(what)
            return _safetensors(file) if is_safetensors(file.read(9)) else _pickled(file)
    except Refused:
        raise
    except FileNotFoundError as error:
        raise Refused(f"There must be a file. Received {error.filename}.") from None
    except Exception as error:  # noqa: BLE001 - a hostile file can make the readers raise anything
        raise Refused(_what_is_wrong(error)) from None


def _check_size(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            size = max(size, sum(member.file_size for member in archive.infolist()))
    file.seek(0)
    if size > MAX_BYTES:
        limit = f"at most {MAX_BYTES / 2**30:g} GiB, unpacked too"
        raise Refused(f"A file of weights has {limit}. Received {size / 2**30:.3g} GiB. {OTHER_FILE}")


def _what_is_wrong(error: Exception) -> str:
    text = str(error)
    if "Unsupported operand" in text:
        return "This file was saved with another pickle protocol. Save it again by torch.save(state_dict, PATH)."
    if isinstance(error, OSError):
        return f"This file cannot be read ({error.strerror}). {OTHER_FILE}"
    return f"This is no whole file of weights: it is cut off or damaged ({type(error).__name__}). {AGAIN} {OTHER_FILE}"


def _safetensors(file: IO[bytes]) -> WeightsFile:
    file.seek(0)
    content = file.read()
    tensors = safetensors.torch.load(content)
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {}) if size <= MAX_HEADER else {}
    inputs, spec = _entry(metadata, "inputs", Inputs.from_json), _entry(metadata, "spec", from_json)
    return _collected(tensors, inputs, spec)


def _entry(metadata: dict[str, str], name: str, read_entry: Any) -> Any:
    """None where it is missing or damaged, which does the weights no harm."""
    try:
        return read_entry(metadata[name])
    except (KeyError, Refused):
        return None


def _pickled(file: IO[bytes]) -> WeightsFile:
    file.seek(0)
    try:
        return _collected(pickled.load(file))
    except Exception as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            raise
        file.seek(0)
        if b"ctorch.nn.modules." in file.read(MAX_HEADER):
            raise Refused(f"This is a whole pickled net ({code[1]}), which is code. {STATE_DICT}") from None
        what = f"a file with code in it ({code[1]}), which was not run"
        raise Refused(f"Weights are tensors and nothing else. Received {what}. {OTHER_FILE}") from None


def _collected(content: object, inputs: Inputs | None = None, spec: NetSpec | None = None) -> WeightsFile:
    tensors: dict[str, Tensor] = {}
    unusable = ""
    for name, value in _leaves(content, "", {id(content)}):
        tensor = _usable(value)
        unusable = unusable or (name if tensor is None and isinstance(value, Tensor) else "")
        if tensor is not None:
            tensors.setdefault(name, tensor)
        if len(tensors) > MAX_TENSORS:
            raise Refused(f"A file of weights holds at most {MAX_TENSORS:,} tensors. {OTHER_FILE}")
    if not tensors and unusable:
        raise Refused(f"Weights are dense real numbers. Received others under {unusable!r:.80}. {OTHER_FILE}")
    if not tensors:
        what = type(content).__name__ if not isinstance(content, dict) else "a dict without tensors"
        raise Refused(f"Weights are a dict of tensors by name. Received {what}. {OTHER_FILE}")
    with_tensors = {name.partition("/")[0] for name in tensors}
    entries = [_word(key) for key in content] if isinstance(content, dict) else []
    return WeightsFile(tensors, tuple(name for name in entries if name not in with_tensors), inputs, spec)


def _leaves(container: Any, path: str, seen: set[int], depth: int = 1) -> Iterator[tuple[str, object]]:
    """What stands under a name in any dict, with its path; a container that stands in several places comes once."""
    for key, value in container.items() if isinstance(container, dict) else _numbered(container):
        name = f"{path}{_word(key)}"
        if isinstance(value, _CONTAINERS):
            if depth == MAX_DEPTH or len(name) > MAX_NAME:
                raise Refused(f"Weights lie at most {MAX_DEPTH} dicts deep. Received more. {OTHER_FILE}")
            if id(value) not in seen:
                seen.add(id(value))
                yield from _leaves(value, f"{name}/", seen, depth + 1)
        elif isinstance(key, str) and isinstance(value, Tensor | pickled.NDArray):
            yield name[:MAX_NAME], value


def _numbered(container: Any) -> Iterator[tuple[int, object]]:
    return iter(enumerate(container)) if isinstance(container, list | tuple) else iter(())


def _word(key: object) -> str:
    return str(key)[:MAX_NAME] if isinstance(key, str | int) else type(key).__name__


def _usable(value: object) -> Tensor | None:
    """A dense tensor of real numbers on the CPU, None for all else."""
    if isinstance(value, pickled.NDArray):
        return value.tensor() if value.values.dtype.kind in "biuf" else None
    if type(value) not in (Tensor, torch.nn.Parameter) or not isinstance(value, Tensor):
        return None
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_complex()
    return value.detach() if dense and value.device.type == "cpu" else None
