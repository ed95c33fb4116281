"""ResNet Explorer's library: build, count, train and explain residual nets and their plain twins.

    import resnet

    net = resnet.from_code("ResNet-20")
    resnet.profile(net).stages()

A public name is imported when it is first used, so that `import resnet` does not import PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "resnet.analysis.analyses": ["ANALYSES"],
    "resnet.analysis.gradients": ["gradient_norms"],
    "resnet.attribution.methods": ["METHODS", "explain", "top_k"],
    "resnet.costs.conventions": ["CONVENTIONS", "count", "ledger"],
    "resnet.costs.memory": ["memory"],
    "resnet.costs.profiler": ["profile", "profile_module"],
    "resnet.data.dataset": ["load"],
    "resnet.errors": ["Refused"],
    "resnet.exports.forms": ["EXPORTERS", "export"],
    "resnet.nets.codes": ["from_code", "to_code"],
    "resnet.nets.model": ["build"],
    "resnet.nets.spec": ["PRESETS", "NetSpec", "StageSpec", "cifar", "plain_twin"],
    "resnet.runs.jobs": ["Job"],
    "resnet.runs.opened": ["open_run"],
    "resnet.runs.process": ["race", "wait"],
    "resnet.runs.store": ["all_runs", "find"],
    "resnet.train.loop": ["evaluate", "fit"],
    "resnet.train.recipes": ["RECIPES", "Recipe"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*_MODULE_OF]

# ruff: noqa: F401
if TYPE_CHECKING:  # the same names, for type checkers and editors
    from resnet.analysis.analyses import ANALYSES
    from resnet.analysis.gradients import gradient_norms
    from resnet.attribution.methods import METHODS, explain, top_k
    from resnet.costs.conventions import CONVENTIONS, count, ledger
    from resnet.costs.memory import memory
    from resnet.costs.profiler import profile, profile_module
    from resnet.data.dataset import load
    from resnet.errors import Refused
    from resnet.exports.forms import EXPORTERS, export
    from resnet.nets.codes import from_code, to_code
    from resnet.nets.model import build
    from resnet.nets.spec import PRESETS, NetSpec, StageSpec, cifar, plain_twin
    from resnet.runs.jobs import Job
    from resnet.runs.opened import open_run
    from resnet.runs.process import race, wait
    from resnet.runs.store import all_runs, find
    from resnet.train.loop import evaluate, fit
    from resnet.train.recipes import RECIPES, Recipe
else:

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'resnet' has no attribute {name!r}")
        globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted([*globals(), *__all__])
