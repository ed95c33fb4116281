"""The weights in a run's folder: the checkpoint's names, saved and loaded."""

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from resnet.errors import Refused
from resnet.files import replace_file, sync_file
from resnet.nets.model import ResNet, build
from resnet.runs.store import START, Run
from resnet.train.state import DivergedError, State

CHECKPOINT_EVERY_S = 20


def load_model(run: Run, epoch: int | None = None) -> ResNet:
    """The run's net on the CPU with the weights that were tested: the last ones, or those kept after an epoch.

    Refused where it has none yet.
    """
    model, _ = load_at_step(run, epoch)
    return model


def load_at_step(run: Run, epoch: int | None = None) -> tuple[ResNet, int | None]:
    """As `load_model`, with the step that the weights belong to, None where the records do not say it."""
    path = run.path / "checkpoint.safetensors" if epoch is None else run.checkpoints().get(epoch)
    if path is None or (epoch is None and run.checkpoint_step() is None):
        raise Refused(f"{run.id} has no checkpoint yet. The first one comes within {CHECKPOINT_EVERY_S} seconds.")
    with safe_open(path, "pt") as file:  # one file to the end, though another takes its place meanwhile
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        step = int(file.metadata()["step"]) if epoch is None else run.step_of(epoch)
    model = build(run.job.net)
    try:
        model.load_state_dict(weights_of(tensors) if epoch is None else tensors)
    except RuntimeError:
        raise Refused(f"The checkpoint of {run.id} holds the weights of another net.") from None
    return model, step


def with_start(run: Run, model: ResNet) -> ResNet:
    """The model with the weights that the run begins with, if it was given any; the others stay. Refused."""
    if not run.job.start:
        return model
    try:
        wrong = model.load_state_dict(load_file(run.path / START), strict=False).unexpected_keys
    except (OSError, SafetensorError, RuntimeError):
        wrong = [START]
    if wrong:
        raise Refused(f"The weights that {run.id} begins with are missing, damaged or another net's.")
    return model


def weights_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of `State.tensors` the weights that are tested, by the names of the model: the averages where there are any."""
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    averages = {name.removeprefix("average."): v for name, v in tensors.items() if name.startswith("average.")}
    return weights | averages  # counters are not averaged


def save_checkpoint(run: Run, state: State) -> None:
    """Replace the checkpoint by the state at its step; DivergedError, and the old one stays, where it is not finite."""
    tensors = state.tensors()
    if not all(value.isfinite().all() for value in tensors.values()):
        raise DivergedError(f"The weights are no longer finite at step {state.step}.", choices="a lower learning rate")
    for name in ("steps.bin", "predictions.bin", "epochs.jsonl"):
        if (run.path / name).exists():
            sync_file(run.path / name)  # a checkpoint is never ahead of the records
    replace_file(run.path / "checkpoint.safetensors", save(tensors, {"step": str(state.step)}))


def load_checkpoint(run: Run, state: State, recorded: tuple[int, int], per_epoch: int) -> None:
    """Continue from the checkpoint, or from the beginning where the records before it were lost with a disk."""
    step = run.checkpoint_step()
    if step is None or step > recorded[0] or (step - 1) // per_epoch > recorded[1]:
        return
    device = str(next(state.model.parameters()).device)
    state.load(load_file(run.path / "checkpoint.safetensors", device), step)
