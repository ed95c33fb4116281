"""What a run is asked to train, and what it says of how far it is: the contents of run.json and status.json."""

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from resnet.errors import Refused
from resnet.nets.codes import from_dict, to_dict
from resnet.nets.inputs import Inputs
from resnet.nets.spec import NetSpec
from resnet.runs.records import VERSION
from resnet.train.recipes import Recipe

STATES = ("starting", "queued", "running", "paused", "stopped", "finished", "failed", "crashed")
ACTIVE = ("starting", "queued", "running")
_RECIPE_FIELDS = {field.name for field in dataclasses.fields(Recipe)}


@dataclass(frozen=True)
class Job:
    """What a run trains, and how."""

    net: NetSpec
    data: str
    recipe: Recipe
    train_images: int | None = None  # a balanced part of the training set, None for all
    device: str = "auto"
    threads: int = 0  # CPU threads, 0 for all
    group: str = ""  # runs of one race share it
    only_offered: bool = True  # the data must be one that the data folder offers
    stream: bool = False  # the data are a folder of pictures that stay on the disk
    start: str = ""  # in words, the weights in start.safetensors, which its net begins with; "" for drawn ones
    pixels: tuple[tuple[float, ...], ...] = ()  # mean and deviation by channel, where the data's own do not count

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind: Any = tuple if field.name == "pixels" else field.type
            if not isinstance(getattr(self, field.name), kind):
                rule = f"A run's {field.name} must be {getattr(kind, '__name__', kind)}."
                raise Refused(rule, repr(getattr(self, field.name)))
        if self.pixels:
            mean, std = self.pixels
            Inputs.of([*mean], [*std], ())

    @property
    def title(self) -> str:
        """The net's name, and whether it begins with other weights than drawn ones."""
        return f"{self.net.name} from weights" if self.start else self.net.name

    def alone(self) -> "Job":
        """The same with drawn weights, none of which is frozen or slowed down."""
        return dataclasses.replace(self, start="", recipe=dataclasses.replace(self.recipe, frozen=0, body_lr=1.0))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"net": to_dict(self.net), "version": VERSION}, indent=1)

    @staticmethod
    @lru_cache(maxsize=1000)  # a list of runs reads them all
    def from_json(text: str) -> "Job":
        """Refused, ValueError, TypeError or KeyError where the text is no job.

        Of the recipe, `unknown_fields` are left out, so that the run can still be looked at.
        """
        values = json.loads(text)
        if values.pop("version", 1) != VERSION:
            raise Refused("It was made by another version of this program.")
        recipe = values["recipe"]
        if isinstance(recipe, dict):
            recipe = Recipe(**{name: value for name, value in recipe.items() if name in _RECIPE_FIELDS})
        pixels = tuple(tuple(moment) for moment in values.get("pixels", ()))
        return Job(**values | {"net": from_dict(values["net"]), "recipe": recipe, "pixels": pixels})


def unknown_fields(text: str) -> list[str]:
    """The fields of a job's recipe that this program does not know: without them it would train another net."""
    return sorted(json.loads(text)["recipe"].keys() - _RECIPE_FIELDS)


class Images(Protocol):
    """What a net has to know of the images that it is to read."""

    @property
    def classes(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...


def fitted(net: NetSpec, data: Images, size: int = 0) -> NetSpec:
    """The net for the data's classes and channels, and for images of `size` pixels, those of the data where it is 0."""
    return dataclasses.replace(net, classes=data.classes, in_channels=data.channels, image_size=size or data.size)


@dataclass(frozen=True)
class Status:
    """state is one of STATES, message a sentence or empty, updated in seconds since 1970."""

    state: str
    message: str = ""
    phase: str = ""  # while running: loading data, training, testing
    steps: int = 0  # in all, once the data are known
    device: str = ""
    ticket: int = 0  # its place among all that were ever started; runs of one race share it; 0 outside the queue
    host: str = ""
    updated: float = 0.0

    @staticmethod
    def from_json(text: str) -> "Status":
        """ValueError or TypeError where the text is no status."""
        status = Status(**json.loads(text))
        words = (status.state, status.message, status.phase, status.device, status.host)
        if not all(isinstance(word, str) for word in words) or status.state not in STATES:
            raise ValueError("A status has a state that this program knows, and its words are text.")
        steps, ticket, updated = max(0, int(status.steps)), int(status.ticket), float(status.updated)
        return dataclasses.replace(status, steps=steps, ticket=ticket, updated=updated)
