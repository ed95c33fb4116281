"""Which nets a page looks at: the choice of one to four, by ids that an address can hold."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import streamlit as st

from pages.ui import pretrained, state, widgets
from resnet.errors import Refused
from resnet.nets.codes import from_code, to_code
from resnet.nets.spec import PRESETS, NetSpec, SpecError
from resnet.runs import store as runs
from resnet.runs.store import Run
from resnet.work.weights import MOMENTS, Model, Weights, kept_epochs, usual
from resnet.zoo.hub import TORCHVISION, WeightsEnum, inputs, megabytes, offered
from resnet.zoo.relatives import RELATIVES

KEY, MOST = "lab.nets", 4
FILE, NEW = "file", "new"
IMAGE_PRESETS = [spec for spec in PRESETS.values() if not spec.frames]


class Shown(NamedTuple):
    """A net with weights, and what the page says of them; `run` and `epoch` where they are a run's.

    `id` is run:ID, run:ID@EPOCH, torchvision:NAME:VERSION, new:CODE (untrained) or "file", which no link holds.
    """

    id: str
    model: Model
    class_names: tuple[str, ...]
    trained: str
    run: Run | None = None
    epoch: int | None = None
    mark: str = ""  # where another net has the same title

    @property
    def title(self) -> str:
        named = self.run.job.title if self.run else self.model.title
        return named + (f" after epoch {self.epoch}" if self.epoch else "") + self.mark


def nets_field(
    wanted: Sequence[str] = (), key: str = KEY, untrained: Sequence[NetSpec] = (), seed: int = 0, deepest: bool = False
) -> list[Shown]:
    """The chosen nets, without those whose weights are not there yet; `wanted` are the ids of the address.

    Until the visitor chooses, it is these, else the first two `untrained` nets, whose weights `seed` draws, else a
    recorded net and its plain twin, the `deepest` if asked for. `state.widget(key)` has the ids.
    """
    choices = {f"{NEW}:{to_code(spec)}": f"{spec.name}, untrained" for spec in untrained} | _choices()
    _start(key, list(wanted), choices, list(choices)[:2] if untrained else default(deepest))
    chosen = st.multiselect(
        f"Nets, up to {MOST} side by side", list(choices), key=key, max_selections=MOST, persist_state="session",
        format_func=choices.__getitem__, placeholder="Choose a net", wrap=True,
    )  # fmt: skip
    found = []
    for each in chosen:
        with widgets.show_errors(Refused):
            found += [shown] if (shown := _shown(each, seed)) else []
    again = _repeated(net.title for net in found)
    return [net._replace(mark=f" ({_end(net.id)})") if net.title in again else net for net in found]


def classes_list(shown: Sequence[Shown]) -> None:
    """The classes that the nets know, once for those that know the same."""
    for names in dict.fromkeys(net.class_names for net in shown):
        titles = " and ".join(dict.fromkeys(net.title for net in shown if net.class_names == names))
        with st.expander(f"The {len(names):,} classes of {titles}"):
            st.caption(", ".join(names))


def default(deepest: bool = False) -> list[str]:
    """A recorded net and its plain twin; where none came with the program, the newest run and its twin."""
    found = runs.recorded_twins()
    if deepest:
        found.sort(key=lambda run: -run.job.net.depth)
    first = next(iter([*found, *runs.trained()]), None)
    return [f"run:{run.id}" for run in runs.race_of(first)[:2]] if first else []


def where(run: Run) -> str:
    """What tells a run from others of the same net in a menu: its data, and when it began."""
    return f"on {run.job.data} ({'recorded' if run.shipped else run.id[:15]})"


def _choices() -> dict[str, str]:
    """Every net that can be shown by its id: its title."""
    found: dict[str, str] = {}
    for run in sorted(runs.trained(), key=lambda run: not run.shipped):
        net, rest = run.job.title, where(run)
        found[f"run:{run.id}"] = f"{net} {rest}"
        found |= {f"run:{run.id}@{epoch}": f"{net} after epoch {epoch} {rest}" for epoch in kept_epochs(run)}
    found[FILE] = "My own net, or weights from a file"
    for name in [*(name for name in TORCHVISION if not PRESETS[name].frames), *RELATIVES]:
        for version, weights in offered(name).items():
            found[f"torchvision:{name}:{version}"] = f"{name} {version} ({megabytes(weights):,.0f} MB)"
    return distinct(found)


def distinct(titles: dict[str, str]) -> dict[str, str]:
    """Titles by ids with a run's in them; where they repeat, with its end: Streamlit tells options apart by title."""
    again = _repeated(titles.values())
    return {each: f"{title}, {_end(each)}" if title in again else title for each, title in titles.items()}


def _repeated(titles: Iterable[str]) -> set[str]:
    return {title for title, count in Counter(titles).items() if count > 1}


def _end(chosen: str) -> str:
    return chosen.rpartition(":")[2].partition("@")[0][-4:]


def _start(key: str, wanted: list[str], choices: dict[str, str], first: list[str]) -> None:
    """What the menu shows at first, or once something that it showed is gone; a link's untrained nets are choices."""
    for each in wanted:
        if each.startswith(f"{NEW}:") and each not in choices:
            with suppress(SpecError):
                choices[each] = f"{from_code(each.partition(':')[2]).name}, untrained"
    held = state.widget(key)
    asked = wanted if held is None else held
    known = [each for each in asked if each in choices][:MOST]
    if unknown := [each for each in asked if each not in choices]:
        st.warning(f"There is no net {', '.join(map(repr, unknown))} here: it may have been deleted, or never was.")
    if held is None or known != held:
        state.set_widgets({key: known or [each for each in first if each in choices]})


def _shown(chosen: str, seed: int) -> Shown | None:
    """None where weights have to be fetched or chosen first. Refused."""
    kind, _, name = chosen.partition(":")
    if kind == NEW:
        spec = from_code(name)
        names = tuple(map(str, range(spec.classes)))
        return Shown(chosen, Model(spec, Weights("seed", str(seed))), names, f"untrained, seed {seed}")
    if kind == "run":
        return _of_run(*name.partition("@")[::2])
    return _of_torchvision(*name.rsplit(":", 1)) if kind == "torchvision" else _of_visitor()


def _of_run(run_id: str, after: str) -> Shown:
    run, epoch = runs.find(run_id), int(after) if after else None
    model = Model.of(run, epoch)
    when = f"after epoch {epoch} of its training" if epoch else f"after {model.weights.step:,} training steps"
    return Shown(f"run:{run_id}" + (f"@{epoch}" if epoch else ""), model, run.class_names(),
                 f"{when} on {run.job.data}", run, epoch)  # fmt: skip


def _of_torchvision(name: str, version: str) -> Shown | None:
    weights = offered(name)[version]
    if not pretrained.downloaded(weights, name):
        return None
    own = Weights("torchvision", version)
    model = Model(PRESETS[name], own) if name in PRESETS else Model(None, own, name=name)
    return Shown(f"torchvision:{name}:{version}", model, inputs(weights).class_names, _trained(weights))


def _trained(weights: WeightsEnum) -> str:
    [[data, measured], *_] = weights.meta["_metrics"].items()
    return f"with torchvision's {weights.name} ({measured['acc@1']:.1f} % right on {data})"


def _of_visitor() -> Shown | None:
    """The visitor's net with weights from anywhere. Refused for a net that reads no pictures."""
    spec = state.net()
    widgets.net_field(spec, "lab.net", IMAGE_PRESETS)
    if spec.frames:
        raise Refused("Pictures are explained, and this net reads clips or volumes.", choices="a net with 0 frames")
    if state.widget("lab.weights") is None:
        state.set_widgets({"lab.weights": pretrained.FILE})
    chosen = pretrained.field(spec, "lab.weights")
    if chosen is None:
        return None
    said = chosen.inputs
    if said is None:
        text = "The weights do not say how images are prepared, so choose what the net was trained with."
        said = usual(spec, st.selectbox("Mean and deviation", MOMENTS, key="lab.moments", help=text))
    return Shown(FILE, Model(spec, chosen.weights, said), said.class_names, f"with {chosen.title}")
