"""Every net by name: one's own, the presets, the relatives and the systems."""

from torch import nn

from resnet.costs.profiler import Profile, profile
from resnet.nets.spec import PRESETS, NetSpec
from resnet.zoo.relatives import RELATIVES, build_relative, profile_relative
from resnet.zoo.systems import SYSTEMS, profile_system


def own_name(spec: NetSpec) -> str:
    """How one's own net is listed; a preset under its own name."""
    return spec.name if PRESETS.get(spec.name) == spec else f"My net: {spec.name}"


def nets(own: NetSpec) -> dict[str, NetSpec | None]:
    """Every net by name, one's own first: its description, None of a net that is not described by one."""
    return {own_name(own): own, **PRESETS, **dict.fromkeys([*RELATIVES, *SYSTEMS])}


def profile_other(name: str, image_size: int | None = None) -> Profile:
    """Of a relative or a system, at its own image size if none is given. Refused, SpecError, ProfileError."""
    return profile_relative(name, image_size) if name in RELATIVES else profile_system(name, image_size)


def profile_of(name: str, spec: NetSpec | None) -> Profile:
    """Of an entry of `nets`."""
    return profile(spec) if spec else profile_other(name)


def timeable(name: str, spec: NetSpec | None) -> NetSpec | nn.Module | None:
    """What `speed.latency` takes of an entry of `nets`; None of a system, which needs more than images."""
    return spec or (build_relative(name, device="cpu") if name in RELATIVES else None)
