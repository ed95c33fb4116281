"""Every cache of the app: results by their frozen arguments, each with a limit."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image
from streamlit import runtime

from resnet.analysis.analyses import ANALYSES
from resnet.analysis.lesions import lesions_of
from resnet.attribution.methods import METHODS
from resnet.costs.memory import Memory, memory
from resnet.costs.profiler import Profile, profile
from resnet.data import dataset as datasets
from resnet.data.photos import open_photo
from resnet.data.views import Frame, View, see
from resnet.errors import Refused
from resnet.exports.forms import export
from resnet.nets.model import blocks
from resnet.nets.spec import NetSpec
from resnet.runs import store as runs
from resnet.runs.curves import Digest, follow
from resnet.train.figures import record_type
from resnet.trust.checks import CHECKS
from resnet.trust.league import Row, kept
from resnet.work.judging import League
from resnet.work.scheduler import Scheduler
from resnet.work.weights import Model
from resnet.zoo.hub import WeightsEnum, checkpoint, downloaded


@st.cache_resource(max_entries=200, show_spinner=False)  # profiles are never changed, so they need no copies
def net_profile(spec: NetSpec) -> Profile:
    return profile(spec)


@st.cache_resource(max_entries=200, show_spinner=False)
def other_profile(name: str, image_size: int | None = None) -> Profile:
    """Of a relative or a system, at its own image size if none is given. Refused, SpecError, ProfileError."""
    from resnet.zoo.catalogue import profile_other  # torchvision is slow to import

    return profile_other(name, image_size)


def named_profile(name: str, spec: NetSpec | None) -> Profile:
    """Of an entry of `catalogue.nets`."""
    return net_profile(spec) if spec else other_profile(name)


@st.cache_resource(max_entries=100, show_spinner=False)
def net_memory(spec: NetSpec, batch: int, optimizer: str, precision: str) -> Memory:
    return memory(spec, batch, optimizer, precision)


@st.cache_data(max_entries=50, show_spinner=False)
def method_reasons(model: Model) -> dict[str, str]:
    """Why each attribution method does not apply to the net, "" where it does."""
    net = model.outline()
    return {name: method.reason(net) for name, method in METHODS.items()}


@st.cache_data(max_entries=200, show_spinner=False)
def check_reasons(model: Model, method: str) -> dict[str, str]:
    """Why each check of a photo's map does not apply to the net and the method, "" where it does."""
    net, unknown = model.outline(), "Nobody has drawn where the object is. League tables on `shapes` know it."
    return {name: unknown if check.by_masks else check.reason(net, method) for name, check in CHECKS.items()}


@st.cache_data(max_entries=50, show_spinner=False)
def analysis_reasons(model: Model) -> dict[str, str]:
    """Why each analysis does not apply to the net, "" where it does."""
    net = model.outline()
    return {name: entry.reason(net) for name, entry in ANALYSES.items()}


@st.cache_data(max_entries=50, show_spinner=False)
def breakable(model: Model) -> dict[str, list[str]]:
    """The modes that break each of the net's blocks, as `lesions_of` has them."""
    return {name: lesions_of(block) for name, block in blocks(model.outline()).items()}


def league_of(model: Model, data: str) -> League:
    return League(model, data, changed=data_changed(data))


@st.cache_data(ttl=30, max_entries=50, show_spinner=False)
def kept_league(model: Model, data: str) -> list[Row] | None:
    """The rows of a net's league, where it has been made."""
    return kept(league_of(model, data).depends_on())


@st.cache_data(max_entries=20, show_spinner=False)
def system_layers(name: str) -> list[str]:
    """Layers at which a detector or segmenter can be explained, input to output."""
    from resnet.attribution.boxes import layers
    from resnet.zoo.systems import build_system

    return layers(build_system(name))


@dataclass(frozen=True)
class DataInfo:
    """What the pages say of a data set; samples are test images (N, S, S, C) uint8, an equal number of each class."""

    name: str
    classes: int
    channels: int
    size: int
    train_images: int
    test_images: int
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...]
    samples: np.ndarray
    sample_labels: np.ndarray


def data_info(name: str) -> DataInfo:
    """Of a data set that the data folder offers. Refused with a sentence where it cannot be read."""
    return _data_info(name, data_changed(name))


def data_changed(name: str) -> float:
    """When the file or folder of a data set last changed, 0 where there is none."""
    path = datasets.data_folder() / "cifar10.npz" if name == "cifar10" else datasets.path_of(name)
    return path.stat().st_mtime if path.exists() else 0.0


@st.cache_data(max_entries=8, show_spinner="Reading the data set …")
def _data_info(name: str, changed: float) -> DataInfo:
    data = datasets.load_offered(name)
    images, labels = data.samples(128)
    return DataInfo(
        name=name,
        classes=data.classes,
        channels=data.channels,
        size=data.size,
        train_images=len(data.train_labels),
        test_images=len(data.test_labels),
        class_names=data.class_names,
        source=data.source,
        notes=data.notes,
        samples=images.permute(0, 2, 3, 1).numpy(),
        sample_labels=labels.numpy(),
    )


@st.cache_data(max_entries=16, show_spinner=False)
def exported(name: str, spec: NetSpec) -> bytes:
    """The net in one form of file that needs no weights. Refused."""
    return export(name, spec)


SERVER = "the server"  # a client of the scheduler's beside the sessions


@st.cache_resource(show_spinner=False)
def scheduler() -> Scheduler:
    """The one door for heavy work, shared by all sessions."""
    return Scheduler(alive=_alive)


def _alive(client: str) -> bool:
    """Whether the session has a browser."""
    return client == SERVER or not runtime.exists() or runtime.get_instance().is_active_session(client)


@st.cache_resource(show_spinner=False)
def files() -> TemporaryDirectory:
    """Where exported files and uploaded weights lie while the server runs."""
    return TemporaryDirectory(prefix="resnet-explorer-")


LOOK_S = 0.9  # a little less than live.REFRESH_S, so that each refresh shows what is new


@st.cache_resource(max_entries=500, show_spinner=False)
def _look(path: str, _run: runs.Run) -> runs.Snapshot:
    return _run.look()


@st.cache_resource(ttl=LOOK_S, max_entries=1, show_spinner=False)
def _forget_looks() -> None:
    """At one moment for all runs, so that those of a race are as old as each other."""
    _look.clear()


def look(run: runs.Run) -> runs.Snapshot:
    """What a run's folder says; all sessions ask it once a second."""
    _forget_looks()
    return _look(str(run.path), run)


def look_anew() -> None:
    """After a button has changed what a run's folder says."""
    _look.clear()


def samples(run: runs.Run) -> tuple[np.ndarray, np.ndarray]:
    """Test pictures (K, S, S, C) uint8 of the run's data set, and labels (K,). Refused where there are none.

    Those in the run's folder, where its data are not here or stay on the disk.
    """
    labels, rows, pictures = run.test_set()
    if run.job.stream and len(pictures):
        return pictures, labels[rows]
    try:
        info = data_info(run.job.data)
        return info.samples, info.sample_labels
    except Refused:
        if not len(pictures):
            raise
        return pictures, labels[rows]


@st.cache_resource(max_entries=8, show_spinner=False)  # a photo and its views are never changed
def opened_photo(raw: bytes) -> Image.Image:
    """As `open_photo`. Refused for bytes that are no photo."""
    return open_photo(raw)


@st.cache_resource(max_entries=32, show_spinner=False)
def photo_view(raw: bytes, frame: Frame, mode: str) -> View:
    """What a net of that frame sees of a photo. Refused."""
    return see(opened_photo(raw), frame, mode)


def is_downloaded(weights: WeightsEnum) -> bool:
    """Whether torchvision's file is here and whole; it is hashed once, not at every run of a page."""
    path = checkpoint(weights)
    return path.is_file() and _is_whole(str(path), path.stat().st_mtime, weights)


@st.cache_resource(max_entries=20, show_spinner=False)
def _is_whole(path: str, changed: float, _weights: WeightsEnum) -> bool:
    return downloaded(_weights)


@dataclass
class _Followed:
    """A run's digest and the look that it belongs to."""

    seen: runs.Snapshot | None = None
    digest: Digest = field(default_factory=Digest)
    lock: threading.Lock = field(default_factory=threading.Lock)


@st.cache_resource(max_entries=64, show_spinner=False)
def _followed(path: str, created: float) -> _Followed:
    return _Followed()


def digest(seen: runs.Snapshot) -> Digest:
    """The steps of the run made small, up to this look: each is read once, whatever the number of sessions."""
    held = _followed(str(seen.run.path), seen.run.created())
    with held.lock:
        if held.seen is not seen:
            held.digest = follow(held.digest, seen.run.path / "steps.bin", record_type(len(seen.layers)))
            held.seen = seen
        return held.digest


def measured(run: runs.Run, analysis: str) -> dict[int, pd.Series]:
    """What all sessions know of a run by an analysis: values by step, to which more are added."""
    return _measured(str(run.path), run.created(), analysis)


@st.cache_resource(max_entries=64, show_spinner=False)
def _measured(path: str, created: float, analysis: str) -> dict[int, pd.Series]:
    return {}


def drawn(draw: Callable[..., None], looks: Sequence[runs.Snapshot], *options: str) -> None:
    """Calls `draw(looks, digests, *options)` once for all sessions that have the same looks, and no widget in it.

    For the others Streamlit sends again what was drawn, without making tables and charts anew.
    """
    _drawn(f"{draw.__module__}.{draw.__qualname__}", tuple(str(seen.run.path) for seen in looks), options, draw, looks)


def _current(looks: Sequence[runs.Snapshot]) -> bool:
    """Whether nobody has looked since."""
    return all(_look(str(seen.run.path), seen.run) is seen for seen in looks)


@st.cache_resource(max_entries=100, validate=_current, show_spinner=False)
def _drawn(
    name: str,
    paths: tuple[str, ...],
    options: tuple[str, ...],
    _draw: Callable[..., None],
    _looks: Sequence[runs.Snapshot],
) -> Sequence[runs.Snapshot]:
    _draw(_looks, [digest(seen) for seen in _looks], *options)
    return _looks
