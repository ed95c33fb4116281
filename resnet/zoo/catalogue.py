"""Every net by name: one's own, the presets, the relatives and the systems."""

from functools import cache

from torch import nn

from resnet.costs.profiler import Profile, profile
from resnet.nets.codes import from_code
from resnet.nets.names import NAMES, key, resolve
from resnet.nets.spec import PRESETS, NetSpec
from resnet.zoo.relatives import RELATIVES, build_relative, profile_relative
from resnet.zoo.systems import SYSTEMS, profile_system


def own_name(spec: NetSpec) -> str:
    """How one's own net is listed; a preset under its own name."""
    return spec.name if PRESETS.get(spec.name) == spec else f"My net: {spec.name}"


def nets(own: NetSpec) -> dict[str, NetSpec | None]:
    """Every net by name, one's own first: its description, None of a net that is not described by one."""
    return {own_name(own): own, **PRESETS, **dict.fromkeys([*RELATIVES, *SYSTEMS])}


@cache
def _names() -> dict[str, str]:
    """`NAMES`, and the relatives' and systems' own names and torchvision's for them."""
    others = {key(each): name for name, entry in (RELATIVES | SYSTEMS).items() for each in (name, entry.builder)}
    return NAMES | {each: name for each, name in others.items() if each}


def find(text: str) -> tuple[str, NetSpec | None]:
    """A net by any name or by a code: its name, and its description, None of a relative or a system.

    SpecError for an unknown name, with the nearest three.
    """
    name = text if "~" in text else resolve(text, _names(), "net")
    if name in RELATIVES or name in SYSTEMS:
        return name, None
    spec = from_code(text)
    return spec.name, spec


def profile_other(name: str, image_size: int | None = None) -> Profile:
    """Of a relative or a system, at its own image size if none is given. Refused, SpecError, ProfileError."""
    return profile_relative(name, image_size) if name in RELATIVES else profile_system(name, image_size)


def profile_of(name: str, spec: NetSpec | None) -> Profile:
    """Of an entry of `nets`."""
    return profile(spec) if spec else profile_other(name)


def timeable(name: str, spec: NetSpec | None) -> NetSpec | nn.Module | None:
    """What `speed.latency` takes of an entry of `nets`; None of a system, which needs more than images."""
    return spec or (build_relative(name, device="cpu") if name in RELATIVES else None)
