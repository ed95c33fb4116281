"""What a run's form asks for, made: its device, its data, its net at the first step."""

import dataclasses
from collections.abc import Callable

import torch

from resnet import distributed
from resnet.batches import Feed, Resident
from resnet.codes import to_code
from resnet.data import DataError, Dataset, load, load_offered
from resnet.devices import autocast, devices, median_seconds, pick_precision
from resnet.model import build, memory_format
from resnet.narrow import quicken
from resnet.recipes import Recipe
from resnet.runs import Job, RunError, threads_for
from resnet.spec import NetSpec, plain_twin
from resnet.streaming import Folder, Streaming, open_folder
from resnet.trainer import State


def take_device(job: Job) -> str:
    """The job's device; PyTorch has the job's number of threads from here on. RunError where this machine has none."""
    device = devices()[0] if job.device == "auto" else job.device
    if device not in devices():
        raise RunError(f"This machine has no device {device!r}. It has {', '.join(devices())}.")
    if job.threads > 0:
        torch.set_num_threads(min(job.threads, threads_for(1)))
    return device


def prepare(job: Job, device: str, before: str) -> tuple[Dataset | Folder, Recipe, Feed, State]:
    """What the job trains, at its first step; `before` is the precision that it began with, if it did.

    DataError or RunError with a sentence.
    """
    data, recipe = _source(job), Recipe(**job.recipe)
    check_net(job, data)
    precision = distributed.agreed(lambda: before or precision_for(job.net, recipe, device))
    recipe = dataclasses.replace(recipe, precision=precision)
    model = build(job.net, recipe.seed, device)
    kind: Callable[..., Feed] = Streaming if isinstance(data, Folder) else Resident
    feed = kind(data, recipe, torch.device(device), memory_format(model))
    return data, recipe, feed, State(model, recipe)


def _source(job: Job) -> Dataset | Folder:
    if job.stream:
        return open_folder(job.data, job.net.image_size, job.train_images, job.only_offered)
    return load_data(job)


def load_data(job: Job) -> Dataset:
    """The job's data set at its net's image size. DataError with a sentence, also where it does not fit into memory."""
    if job.stream:
        raise DataError(f"The pictures of {job.data} were streamed; they stay on the disk.")
    read = load_offered if job.only_offered else load
    return read(job.data, size=job.net.image_size, train=job.train_images)


def check_net(job: Job, data: Dataset | Folder) -> None:
    """RunError where the job's net cannot read the data."""
    net = job.net
    if (data.channels, data.classes) != (net.in_channels, net.classes):
        raise RunError(
            f"The net reads {net.in_channels} channels and tells {net.classes} classes apart; "
            f"{data.name} has {data.channels} channels and {data.classes} classes."
        )


def precision_for(net: NetSpec, recipe: Recipe, device: str) -> str:
    """The recipe's precision, and for "auto" that in which the net's plain twin is faster: twins get the same."""
    twin = plain_twin(net)

    def seconds(precision: str) -> float:
        model = build(twin, device=device).train()
        images = torch.rand(recipe.batch, twin.in_channels, twin.image_size, twin.image_size, device=device)
        images = images.contiguous(memory_format=memory_format(model))
        model = model.to(memory_format=memory_format(model))
        quicken(model, device, precision)

        def step() -> None:
            with autocast(device, precision):
                logits = model(images)
            logits.float().square().mean().backward()

        return median_seconds(step, device)

    return pick_precision(recipe.precision, device, f"{to_code(twin)} {recipe.batch}", seconds)
