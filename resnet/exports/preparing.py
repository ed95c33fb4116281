"""How images are prepared for a trained net, as source: constants and a function `prepare`."""

from pprint import pformat

from resnet.nets.inputs import Inputs, Moment
from resnet.nets.spec import NetSpec

_NOTE = "# The images in training were scaled to 0..1, less this mean, over this deviation; the classes are in order."


def torch_prepare(spec: NetSpec, inputs: Inputs) -> list[str]:
    """For tensors on any device, channels first."""

    def spread(name: str, values: Moment) -> str:
        new = spec.dims - (2 if isinstance(values[0], tuple) else 0)  # dimensions along which the values are the same
        return f"{name}[:{', None' * new}]" if new else name

    function = f'''def prepare(pixels: Tensor) -> Tensor:
    """uint8 (N, C, ..., H, W) of IMAGE_SIZE pixels -> float32, as in training."""
    mean, std = (torch.tensor(values, device=pixels.device) for values in (MEAN, STD))
    return (pixels / 255 - {spread("mean", inputs.mean)}) / {spread("std", inputs.std)}
'''
    return [constants(spec, inputs), function]


def keras_prepare(spec: NetSpec, inputs: Inputs) -> list[str]:
    """For arrays, channels last."""
    function = '''def prepare(pixels):
    """uint8 (N, ..., H, W, C) of IMAGE_SIZE pixels -> float32, as in training."""
    mean, std = (np.moveaxis(np.array(values, "float32"), 0, -1) for values in (MEAN, STD))
    return (np.asarray(pixels, "float32") / 255 - mean) / std
'''
    return [constants(spec, inputs), function]


def constants(spec: NetSpec, inputs: Inputs) -> str:
    """IMAGE_SIZE, MEAN, STD and CLASS_NAMES."""
    names = "".join(f"    {_literal(name)},\n" for name in inputs.class_names)
    moments = [_numbers("MEAN", inputs.mean), _numbers("STD", inputs.std)]
    notes = [_NOTE] + [f"# Its training began with {_literal(inputs.began[:80])}"] * bool(inputs.began)
    return "\n".join([*notes, f"IMAGE_SIZE = {spec.image_size}", *moments, f"CLASS_NAMES = (\n{names})"]) + "\n"


def _literal(text: str) -> str:
    """A stranger's text as a literal, in double quotes where it has none of its own."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _numbers(name: str, values: Moment) -> str:
    line = f"{name} = {values!r}"
    return line if len(line) <= 120 else f"{name} = {pformat(values, width=100, compact=True)}  # fmt: skip"
