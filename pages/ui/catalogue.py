"""Every net that can be looked at by name: the visitor's own, the presets, the relatives and the systems."""

from pages.ui.cached import net_profile, other_profile
from resnet.costs.profiler import Profile
from resnet.nets.spec import PRESETS, NetSpec
from resnet.zoo.relatives import RELATIVES
from resnet.zoo.systems import SYSTEMS


def own_label(spec: NetSpec) -> str:
    """How the visitor's own net is listed; a preset under its own name."""
    return spec.name if spec.name in PRESETS and PRESETS[spec.name] == spec else f"My net: {spec.name}"


def names(own: NetSpec) -> list[str]:
    """All of them, the visitor's first."""
    return list(dict.fromkeys([own_label(own), *PRESETS, *RELATIVES, *SYSTEMS]))


def spec_of(name: str, own: NetSpec) -> NetSpec | None:
    """The description of a net that this program builds itself, None of another."""
    return own if name == own_label(own) else PRESETS.get(name)


def profile_of(name: str, own: NetSpec) -> Profile:
    spec = spec_of(name, own)
    return net_profile(spec) if spec else other_profile(name)


def plain_name(name: str) -> str:
    """The name under which figures are published."""
    return name.removeprefix("My net: ")
