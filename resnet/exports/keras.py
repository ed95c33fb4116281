"""A net as Keras 3 source for any of its backends: channels last, PyTorch's padding, and a way in for our weights."""

from collections.abc import Iterator

from torch import nn

from resnet.exports.plan import (
    NORM_LAYERS,
    Conv,
    block_arguments,
    convs,
    costs,
    dilation_names,
    group_counts,
    has_drop,
    header,
    inner_width,
    loop_variables,
    net_name,
    norms,
    outer_width,
    shortcut_cases,
    squeezed,
    stage_columns,
    stage_kinds,
    stage_table,
    stem_layers,
)
from resnet.exports.preparing import keras_prepare
from resnet.nets.blocks import BLOCKS
from resnet.nets.inputs import Inputs
from resnet.nets.kinds import STEMS
from resnet.nets.model import block_plans
from resnet.nets.spec import NetSpec

_NORM_RULE = '''def norm(x, name, gamma="ones"):
    """32 groups, or as many fewer as it takes to have equal ones of two channels or more."""
    channels = x.shape[-1]
    groups = math.gcd(32, channels // 2) if channels % 2 == 0 else 1
    return layers.GroupNormalization(groups, epsilon=1e-5, name=name)(x)
'''
_SKIP_INIT = '''@keras.saving.register_keras_serializable()
class SkipInit(layers.Layer):
    """The branch times one learned number that starts at 0 (arXiv 2002.10444)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def call(self, x):
        return x * self.alpha
'''
_LOAD = '''def load_torch(model, weights):
    """Copy a PyTorch state_dict by name: tensors, or arrays as safetensors.numpy.load_file reads them from a file."""
    arrays = {{key.replace(".", "_"): value for key, value in weights.items()}}
    arrays = {{key: a.detach().float().cpu().numpy() if hasattr(a, "detach") else a for key, a in arrays.items()}}
    for layer in model.layers:
        if layer.weights:
            keys = [f"{{layer.name}}_{{name}}" for name in {names}]
            own = [arrays[key] for key in keys if key in arrays]  # kernels: (out, in, ...) to (..., in, out)
            layer.set_weights([np.moveaxis(a, (0, 1), (-1, -2)) if a.ndim > 1 else a for a in own])
'''


def keras_source(spec: NetSpec, inputs: Inputs | None = None) -> str:
    """A Python file with `build()`, the functional model, `load_torch(model, weights)`, and `prepare` for `inputs`."""
    imports = ["import math", ""] if len(group_counts(spec)) > 1 else []
    imports += ["import keras", "import numpy as np", f"from keras import layers{', ops' if _uses_ops(spec) else ''}"]
    normal = 'HE_NORMAL = keras.initializers.VarianceScaling(2, "fan_in", "untruncated_normal")  # arXiv 1502.01852'
    head = "\n".join([f'"""{header(spec)}\n{_counts(spec)}\n"""\n', *imports, "", normal, stage_table(spec), ""])
    load = _LOAD.format(names=_weight_names(spec))
    prepare = keras_prepare(spec, inputs) if inputs else []
    return "\n\n".join([head, *_helpers(spec), _block(spec), _build(spec), load, *prepare, _main(spec)])


def _uses_ops(spec: NetSpec) -> bool:
    return "A" in stage_kinds(spec) or STEMS[spec.stem].pool


def _moving_statistics(spec: NetSpec) -> int:
    return sum(2 * norm.num_features for norm in norms(spec) if isinstance(norm, nn.modules.batchnorm._BatchNorm))


def _counts(spec: NetSpec) -> str:
    params, moving = costs(spec).params, _moving_statistics(spec)
    if not moving:
        return f"Keras counts {params:,} parameters, as PyTorch does."
    return f"Keras counts {params + moving:,} parameters: those, and {moving:,} moving statistics of the batch norms."


def _weight_names(spec: NetSpec) -> str:
    names = ["weight", "bias", *(["running_mean", "running_var"] if spec.norm == "batch" else [])]
    names += ["alpha"] if spec.skip_init else []
    return "(" + ", ".join(f'"{name}"' for name in names) + ")"


def _nd(spec: NetSpec, name: str) -> str:
    return f"layers.{name}{spec.dims}D"


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"


# Helpers in the source


def _helpers(spec: NetSpec) -> Iterator[str]:
    yield _conv_helper(spec)
    if spec.norm != "none":
        yield _norm_helper(spec)
    if STEMS[spec.stem].pool:
        yield _max_pool(spec)
    if "A" in stage_kinds(spec):
        yield _zero_pad(spec)
    if _mean_rest(spec):
        yield _mean(spec)
    if spec.se:
        yield _squeeze_excitation(spec)
    if spec.skip_init:
        yield _SKIP_INIT


def _stride_meets_dilation(spec: NetSpec) -> bool:
    return any(plan.stride > 1 and plan.first_dilation > 1 for *_, plan in block_plans(spec)) and (
        not BLOCKS[spec.block].bottleneck or spec.stride_on == "3x3"
    )


def _conv_helper(spec: NetSpec) -> str:
    dilated, grouped = dilation_names(spec) != ("1", "1"), spec.cardinality > 1
    zero = _zeroed_conv(spec)
    arguments = ["x", "channels", "kernel", "name", "stride=1"]
    arguments += [*(["dilation=1"] if dilated else []), *(["groups=1"] if grouped else [])]
    arguments += ["init=HE_NORMAL"] if zero else []
    both = _stride_meets_dilation(spec)
    options = ["channels", "kernel", "strides=stride // step" if both else "strides=stride"]
    options += [*(["dilation_rate=dilation"] if dilated else []), *(["groups=groups"] if grouped else [])]
    options += ["use_bias=False"] if spec.norm != "none" else []
    options += [f"kernel_initializer={'init' if zero else 'HE_NORMAL'}", "name=name"]
    steps = ", ".join(["::step"] * spec.dims)
    return _lines(
        f"def conv({', '.join(arguments)}):",
        '    """A convolution that pads all sides alike, as PyTorch does."""',
        "    if kernel > 1:",
        f"        x = {_nd(spec, 'ZeroPadding')}({'dilation * (kernel // 2)' if dilated else 'kernel // 2'})(x)",
        *(["    step = stride if dilation > 1 else 1  # Keras has no convolution with both"] if both else []),
        f"    {'x =' if both else 'return'} {_nd(spec, 'Conv')}(",
        *(f"        {option}," for option in options),
        "    )(x)",
        *([f"    return x[:, {steps}] if step > 1 else x"] if both else []),
    )


def _zeroed_conv(spec: NetSpec) -> bool:
    """Whether zero_init falls on the branch's last convolution, as no norm follows it."""
    return spec.zero_init and (spec.norm == "none" or not BLOCKS[spec.block].last_norm)


def _norm_helper(spec: NetSpec) -> str:
    zero = spec.zero_init and not _zeroed_conv(spec)
    gamma = ", gamma_initializer=gamma" if zero else ""
    if spec.norm == "group" and len(group_counts(spec)) > 1:
        rule = _NORM_RULE if zero else _NORM_RULE.replace(', gamma="ones"', "")
        return rule.replace(", name=name)", f"{gamma}, name=name)")
    arguments = 'x, name, gamma="ones"' if zero else "x, name"
    if spec.norm == "group":
        layer = f"layers.GroupNormalization({group_counts(spec).pop()}, epsilon=1e-5{gamma}, name=name)"
    else:
        layer = f"layers.BatchNormalization(momentum=0.9, epsilon=1e-5{gamma}, name=name)"
    return _lines(f"def norm({arguments}):", f"    return {layer}(x)")


def _max_pool(spec: NetSpec) -> str:
    sides = ", ".join(["(0, 0)", *["(1, 1)"] * spec.dims, "(0, 0)"])
    return _lines(
        "def max_pool(x):",
        '    """3 wide, stride 2; what pads the map is never the largest."""',
        f'    x = ops.pad(x, [{sides}], constant_values=-float("inf"))',
        f"    return {_nd(spec, 'MaxPooling')}(3, strides=2)(x)",
    )


def _zero_pad(spec: NetSpec) -> str:
    steps, sides = ", ".join(["::stride"] * spec.dims), ", ".join(["(0, 0)"] * (spec.dims + 1))
    return _lines(
        "def zero_pad(x, channels, stride):",
        '    """Every stride-th pixel, and channels of zeros around those there are (option A, arXiv 1512.03385)."""',
        "    new = channels - x.shape[-1]",
        f"    return ops.pad(x[:, {steps}], [{sides}, (new // 2, new - new // 2)])",
    )


def _mean_rest(spec: NetSpec) -> bool:
    """Whether a shortcut of kind D takes means over a side that its stride does not divide."""
    sides = [row.out_shape[1:] for row in costs(spec).rows if row.stage == "stem"][-1]
    for *_, plan in block_plans(spec):
        if plan.shortcut == "D" and any(side % plan.stride for side in sides):
            return True
        sides = tuple(-(-side // plan.stride) for side in sides)
    return False


def _mean(spec: NetSpec) -> str:
    return _lines(
        "def mean(x, stride):",
        '    """The mean over stride pixels a side; the last one of a side covers what is left."""',
        "    sides = x.shape[1:-1]",
        "    covered = [np.minimum(stride, side - np.arange(0, side, stride)) / stride for side in sides]",
        '    share = np.prod(np.meshgrid(*covered, indexing="ij"), axis=0).astype("float32")[None, ..., None]',
        f"    x = {_nd(spec, 'ZeroPadding')}(tuple((0, -side % stride) for side in sides))(x)",
        f"    return {_nd(spec, 'AveragePooling')}(stride)(x) / share",
    )


def _squeeze_excitation(spec: NetSpec) -> str:
    conv = _nd(spec, "Conv")
    return _lines(
        "def squeeze_excitation(x, name):",
        '    """Each channel times a gate from all channels\' means (arXiv 1709.01507)."""',
        "    channels = x.shape[-1]",
        f"    y = {_nd(spec, 'GlobalAveragePooling')}(keepdims=True)(x)",
        f'    y = {conv}({squeezed(spec)}, 1, kernel_initializer=HE_NORMAL, name=f"{{name}}_fc1")(y)',
        f"    y = {_act(spec)}(y)",
        f'    y = {conv}(channels, 1, kernel_initializer=HE_NORMAL, name=f"{{name}}_fc2")(y)',
        '    return layers.Multiply()([x, layers.Activation("sigmoid")(y)])',
    )


# Blocks


def _act(spec: NetSpec, name: str = "") -> str:
    return f'layers.Activation("{spec.activation}"{f", name={name}" if name else ""})'


def _label(name: str) -> str:
    return f'f"{{name}}_{name}"'


def _conv(conv: Conv, x: str, name: str, init: str = "") -> str:
    values = {"stride": conv.stride, "dilation": conv.dilation, "groups": str(conv.groups)}
    options = [f"{key}={value}" for key, value in values.items() if value != "1"]
    return f"conv({', '.join([x, conv.c_out, str(conv.kernel), _label(name), *options, *([init] if init else [])])})"


def _norm(spec: NetSpec, x: str, name: str, zero: bool = False) -> str:
    """x itself where there is no norm."""
    gamma = ', gamma="zeros"' if zero else ""
    return x if spec.norm == "none" else f"norm({x}, {_label(name)}{gamma})"


def _block_function(spec: NetSpec) -> str:
    return f"{spec.block.replace('-', '_')}_block"


def _block(spec: NetSpec) -> str:
    body = [f"inner = {inner_width(spec)}"] if inner_width(spec) else []
    body += [f"c_out = {spec.expansion} * width"] if spec.expansion > 1 else []
    body += _preact_branch(spec) if BLOCKS[spec.block].preact else _branch(spec)
    arguments = ["x", "width", "stride", *block_arguments(spec), "name"]
    head = f"def {_block_function(spec)}({', '.join(arguments)}):"
    return _lines(head, *(f"    {line}" for line in [*body, *_tail(spec), *_end(spec)]))


def _branch(spec: NetSpec) -> Iterator[str]:
    """Convolution, norm, activation, and at the end no activation."""
    yield from _shortcut(spec, "x")
    for index, conv in enumerate(convs(spec), 1):
        last = index == len(convs(spec))
        init = 'init="zeros"' if last and _zeroed_conv(spec) else ""
        yield f"y = {_conv(conv, 'x' if index == 1 else 'y', f'conv{index}', init)}"
        y = _norm(spec, "y", f"bn{index}", zero=last and spec.zero_init)
        if not last:
            yield f"y = {_act(spec)}({y})"
        elif spec.norm != "none":
            yield f"y = {y}"


def _preact_branch(spec: NetSpec) -> Iterator[str]:
    """Norm, activation, convolution."""
    for index, conv in enumerate(convs(spec), 1):
        yield f"y = {_act(spec)}({_norm(spec, 'x' if index == 1 else 'y', f'bn{index}')})"
        if index == 1:
            yield from _shortcut(spec, "y")
        init = 'init="zeros"' if index == len(convs(spec)) and spec.zero_init else ""
        yield f"y = {_conv(conv, 'y', f'conv{index}', init)}"


def _tail(spec: NetSpec) -> Iterator[str]:
    if spec.se:
        yield 'y = squeeze_excitation(y, f"{name}_se")'
    if spec.skip_init:
        yield 'y = SkipInit(name=f"{name}_alpha")(y)'
    if has_drop(spec):
        ones = ", ".join(["1"] * (spec.dims + 1))
        yield f"y = layers.Dropout(drop, noise_shape=(None, {ones}))(y)  # whole branches, arXiv 1603.09382"


def _end(spec: NetSpec) -> Iterator[str]:
    kinds, block = set(stage_kinds(spec)), BLOCKS[spec.block]
    added = f"layers.Add(name={_label('add')})([{'x' if kinds == {'identity'} else 'past'}, y])"
    if kinds != {"none"} and "none" in kinds:
        yield "if past is not None:"
        yield f"    y = {added}"
    elif kinds != {"none"}:
        yield f"{'return' if block.preact else 'y ='} {added}"
    if not block.preact:
        yield f"return {_act(spec, _label(block.last_act))}(y)"
    elif "none" in kinds:
        yield "return y"


def _downsample(spec: NetSpec, kind: str, x: str) -> str:
    c_out = outer_width(spec)
    if kind == "A":
        return f"zero_pad({x}, {c_out}, stride)"
    if kind != "D":
        y = _conv(Conv("", c_out, 1, "stride", "1", 1), x, "downsample_0")
        return y if BLOCKS[spec.block].preact else _norm(spec, y, "downsample_1")
    pooled = f"mean({x}, stride)" if _mean_rest(spec) else f"{_nd(spec, 'AveragePooling')}(stride)({x})"
    y = _conv(Conv("", c_out, 1, "1", "1", 1), pooled, "downsample_1")
    return y if BLOCKS[spec.block].preact else _norm(spec, y, "downsample_2")


def _shortcut(spec: NetSpec, x: str) -> Iterator[str]:
    """`past`, what the addition takes beside the branch."""
    kinds = list(dict.fromkeys(stage_kinds(spec)))
    if kinds in (["none"], ["identity"]):
        return
    if kinds == ["C"]:
        yield f"past = {_downsample(spec, 'C', x)}"
        return
    yield "past = x"
    for test, kind in shortcut_cases(spec, "x.shape[-1]"):
        yield test
        yield f"    past = {'None' if kind == 'none' else _downsample(spec, kind, x)}"


# The net


def _stem(spec: NetSpec) -> Iterator[str]:
    for name, module in stem_layers(spec).items():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            yield from _stem_conv(spec, name, module)
        elif isinstance(module, nn.MaxPool2d | nn.MaxPool3d):
            yield "x = max_pool(x)"
        elif isinstance(module, NORM_LAYERS):
            yield f'x = norm(x, "{name}")'
        else:
            yield f"x = {_act(spec)}(x)"


def _stem_conv(spec: NetSpec, name: str, conv: nn.Conv2d | nn.Conv3d) -> Iterator[str]:
    if len({*conv.kernel_size}) == 1:
        stride = f", stride={conv.stride[0]}" if conv.stride[0] > 1 else ""
        yield f'x = conv(x, {conv.out_channels}, {conv.kernel_size[0]}, "{name}"{stride})'
        return
    bias = "" if conv.bias is not None else ", use_bias=False"
    yield f"x = {_nd(spec, 'ZeroPadding')}({conv.padding})(x)"
    options = f"strides={conv.stride}{bias}, kernel_initializer=HE_NORMAL"
    yield f'x = {_nd(spec, "Conv")}({conv.out_channels}, {conv.kernel_size}, {options}, name="{name}")(x)'


def _stage_loop(spec: NetSpec) -> Iterator[str]:
    given = ["x", "width", "stride", *(value for _, value in block_arguments(spec).values())]
    carried = loop_variables(spec)
    after = {"stride": "1"} | {name: step for name, (_, step) in carried.items()}
    if carried:
        yield f"{', '.join(carried)} = {', '.join(start for start, _ in carried.values())}"
    yield f"for index, ({', '.join(stage_columns(spec))}) in enumerate(STAGES, 1):"
    yield "    for position in range(blocks):"
    yield f'        x = {_block_function(spec)}({", ".join(given)}, f"layer{{index}}_{{position}}")'
    yield f"        {', '.join(after)} = {', '.join(after.values())}"


def _build(spec: NetSpec) -> str:
    channels, *sides = spec.input_shape
    shape = ", ".join(map(str, [*sides, channels]))
    body = [f'"""Inputs (N, {shape}) -> logits (N, {spec.classes})."""', f"x = inputs = keras.Input(({shape}))"]
    body += [*_stem(spec), *_stage_loop(spec)]
    if BLOCKS[spec.block].preact:
        body += [*(['x = norm(x, "bn_last")'] if spec.norm != "none" else []), f"x = {_act(spec)}(x)"]
    body += [f"x = {_nd(spec, 'GlobalAveragePooling')}()(x)"]
    body += ['uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")']
    body += [f'x = layers.Dense({spec.classes}, kernel_initializer=uniform, name="fc")(x)']
    body += [f'return keras.Model(inputs, x, name="{net_name(spec)}")']
    return _lines("def build():", *(f"    {line}" for line in body))


def _main(spec: NetSpec) -> str:
    return _lines(
        'if __name__ == "__main__":',
        "    model = build()",
        '    print(f"{model.count_params():,} parameters")',
        '    print("output", model.output_shape)',
    )
