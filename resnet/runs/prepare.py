"""What a run's form asks for, made: its device, its data, its net at the first step."""

import dataclasses

import torch

from resnet.data.dataset import Dataset, load, load_offered
from resnet.data.folder import open_folder
from resnet.data.source import Source
from resnet.devices import cores, devices
from resnet.errors import Refused
from resnet.nets.model import build
from resnet.runs.jobs import Job
from resnet.runs.store import Run
from resnet.runs.weights import with_start
from resnet.train import distributed
from resnet.train.feeds import Feed, feed_of
from resnet.train.narrow import accelerate
from resnet.train.precision import precision_for
from resnet.train.recipes import Recipe
from resnet.train.state import State


def take_device(job: Job) -> str:
    """The job's device; PyTorch has the job's number of threads from here on. Refused where this machine has none."""
    device = devices()[0] if job.device == "auto" else job.device
    if device not in devices():
        raise Refused("A run's device must be one of this machine.", repr(device), " or ".join(devices()))
    if job.threads > 0:
        torch.set_num_threads(min(job.threads, cores()))
    return device


def prepare(run: Run, device: str, before: str) -> tuple[Source, Recipe, Feed, State]:
    """What the run trains, at its first step; `before` is the precision that it began with, if it did.

    Refused where the data, the net or the weights that it begins with cannot be had.
    """
    job = run.job
    data, recipe = _source(job), job.recipe
    check_net(job, data)
    precision = distributed.broadcast_object(lambda: before or precision_for(job.net, recipe, device))
    recipe = dataclasses.replace(recipe, precision=precision)
    model = accelerate(with_start(run, build(job.net, recipe.seed, device)), device, precision)
    state = State(model, recipe)  # which freezes stages
    return data, recipe, feed_of(data, recipe, torch.device(device), model), state


def _source(job: Job) -> Source:
    if not job.stream:
        return load_data(job)
    return open_folder(job.data, job.net.image_size, job.train_images, job.only_offered, *job.pixels)


def load_data(job: Job) -> Dataset:
    """The job's data set at its net's image size. Refused with a sentence, also where it does not fit into memory."""
    if job.stream:
        raise Refused(f"The pictures of {job.data} were streamed; they stay on the disk.")
    read = load_offered if job.only_offered else load
    data = read(job.data, size=job.net.image_size, train=job.train_images)
    return dataclasses.replace(data, pixels=job.pixels)


def check_net(job: Job, data: Source) -> None:
    """Refused where the job's net cannot read the data."""
    net = job.net
    if (data.channels, data.classes) != (net.in_channels, net.classes):
        raise Refused(
            f"The net reads {net.in_channels} channels and has {net.classes} classes; "
            f"{data.name} has {data.channels} channels and {data.classes} classes."
        )
