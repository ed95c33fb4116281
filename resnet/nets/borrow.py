"""Somebody's net, lent for a measurement and given back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def borrowed(model: nn.Module, train: bool = False, grad: bool = False) -> Iterator[None]:
    """Inside, the net is in eval (or `train`) mode, and its parameters need gradients only if `grad` is set.

    Afterwards, also after an error, everything but the parameters' values is as it was: modes, hooks, requires_grad,
    .grad and buffers, such as running statistics. Whoever changes weights inside must put them back.
    Whoever borrows must own the model until the end: neither another thread nor an unfinished training step may use
    it meanwhile. `build` and `open_run` make a net for each call; one that is cached needs a lock of its own.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    found = [(vars(module), vars(module).copy()) for module in modules]
    # Hooks, buffers and submodules: a hook's handle points at the dictionary itself, so that one has to come back.
    tables = [table for _, held in found for table in held.values() if isinstance(table, dict)]
    empty = [table for table in tables if not table]  # most of them, and a copy takes its time
    found += [(table, table.copy()) for table in tables if table]
    gradients = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    try:
        if any(module.training != train for module in modules):
            model.train(train)
        for parameter, (flag, gradient) in zip(parameters, gradients, strict=True):  # a call takes longer than a look
            if flag != grad:
                parameter.requires_grad_(grad)
            if gradient is not None:
                parameter.grad = None
        _copy_buffers(modules)
        yield
    finally:
        for table in filter(None, empty):
            table.clear()
        for table, content in found:
            table.clear()
            table.update(content)
        for parameter, (flag, gradient) in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(flag).grad = gradient


def _copy_buffers(modules: list[nn.Module]) -> None:
    """Let every module work on copies, so that the buffers themselves stay untouched."""
    copies: dict = {}  # a buffer may be shared
    for module in modules:
        for name, buffer in module._buffers.items():
            if buffer is not None:
                if buffer not in copies:
                    copies[buffer] = buffer.clone()
                module._buffers[name] = copies[buffer]  # a new value for an old key, which may be set while iterating
