"""How images are prepared for a trained net, as source: constants and a function `prepare`."""

from resnet.nets.inputs import Inputs, Moment
from resnet.nets.spec import NetSpec

_NOTE = "# The images in training were scaled to 0..1, less this mean, over this deviation; the classes are in order."


def torch_prepare(spec: NetSpec, inputs: Inputs) -> list[str]:
    """For tensors, channels first."""

    def tensor(name: str, values: Moment) -> str:
        return f"torch.tensor({name})" + ("" if _by_pixel(values) else f"[:{', None' * spec.dims}]")

    function = f'''def prepare(pixels: Tensor) -> Tensor:
    """uint8 (N, C, ..., H, W) of IMAGE_SIZE pixels -> float32, as in training."""
    return (pixels / 255 - {tensor("MEAN", inputs.mean)}) / {tensor("STD", inputs.std)}
'''
    return [_constants(spec, inputs), function]


def keras_prepare(spec: NetSpec, inputs: Inputs) -> list[str]:
    """For arrays, channels last."""

    def array(name: str, values: Moment) -> str:
        made = f'np.array({name}, "float32")'
        return f"np.moveaxis({made}, 0, -1)" if _by_pixel(values) else made

    function = f'''def prepare(pixels):
    """uint8 (N, ..., H, W, C) of IMAGE_SIZE pixels -> float32, as in training."""
    return (pixels / np.float32(255) - {array("MEAN", inputs.mean)}) / {array("STD", inputs.std)}
'''
    return [_constants(spec, inputs), function]


def _by_pixel(values: Moment) -> bool:
    return isinstance(values[0], tuple)


def _constants(spec: NetSpec, inputs: Inputs) -> str:
    """Names are a stranger's text, so they stand there as literals."""
    names = "".join(f"    {name!r},\n" for name in inputs.class_names)
    lines = [_NOTE, f"IMAGE_SIZE = {spec.image_size}", f"MEAN = {inputs.mean!r}", f"STD = {inputs.std!r}"]
    return "\n".join([*lines, f"CLASS_NAMES = (\n{names})"]) + "\n"
