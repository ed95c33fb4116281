"""A net as PyTorch source that needs nothing else: only the classes and options that it uses, and our names."""

from collections.abc import Iterable, Iterator

from torch import nn

from resnet.exports.plan import (
    Conv,
    block_arguments,
    convs,
    group_counts,
    has_drop,
    header,
    inner_width,
    loop_variables,
    net_name,
    outer_width,
    shortcut_cases,
    squeezed,
    stage_columns,
    stage_kinds,
    stage_table,
    stem_layers,
)
from resnet.exports.preparing import torch_prepare
from resnet.nets.blocks import BLOCKS
from resnet.nets.inputs import Inputs
from resnet.nets.layers import ACTIVATIONS
from resnet.nets.spec import NetSpec

_NORM_RULE = '''def norm(channels: int) -> nn.GroupNorm:
    """32 groups, or as many fewer as it takes to have equal ones of two channels or more."""
    return nn.GroupNorm(math.gcd(32, channels // 2) if channels % 2 == 0 else 1, channels)
'''
_SKIP_INIT = '''class SkipInit(nn.Module):
    """The branch times one learned number that starts at 0 (arXiv 2002.10444)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha
'''
_DROP = '''class DropBranch(nn.Module):
    """Training drops the branch of each image with chance `rate` and makes up for it (arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty([x.shape[0]] + [1] * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * kept.div_(1 - self.rate)
'''


def torch_source(spec: NetSpec, inputs: Inputs | None = None) -> str:
    """A Python file whose class ResNet (PlainNet without shortcuts) loads our weights strictly.

    With `inputs` it has a function `prepare` for the images, and the classes' names.
    """
    imports = ["import torch", "from torch import Tensor, nn"]
    if "A" in stage_kinds(spec):
        imports.append("from torch.nn import functional as F")
    if _norm(spec, "").startswith("norm"):
        imports = ["import math", "", *imports]
    text = f"{header(spec)}\nPyTorch only. The state_dict has torchvision's names."
    head = "\n".join([f'"""{text}\n"""\n', *imports, "", stage_table(spec), ""])
    prepare = torch_prepare(spec, inputs) if inputs else []
    return "\n\n".join([head, *_helpers(spec), _block(spec), _net(spec), *prepare, _main(spec)])


def _helpers(spec: NetSpec) -> Iterator[str]:
    """The functions and classes that the blocks need."""
    if _norm(spec, "").startswith("norm"):
        yield _NORM_RULE
    if "A" in stage_kinds(spec):
        yield _zero_pad(spec)
    if spec.se:
        yield _squeeze_excitation(spec)
    if spec.skip_init:
        yield _SKIP_INIT
    if has_drop(spec):
        yield _DROP


def _class(
    name: str, base: str, doc: str, arguments: Iterable[str], init: Iterable[str], forward: Iterable[str]
) -> str:
    lines = [f"class {name}({base}):", f'    """{doc}"""', ""]
    lines += [f"    def __init__({', '.join(['self', *arguments])}) -> None:", "        super().__init__()"]
    lines += [f"        {line}" for line in init]
    body = [f"        {line}" for line in forward]
    return "\n".join([*lines, *(["", "    def forward(self, x: Tensor) -> Tensor:", *body] if body else [])]) + "\n"


def _nd(spec: NetSpec, name: str) -> str:
    return f"nn.{name}{spec.dims}d"


def _norm(spec: NetSpec, channels: str) -> str:
    """The norm's constructor, "" for none."""
    if spec.norm == "group":
        counts = group_counts(spec)
        return f"norm({channels})" if len(counts) > 1 else f"nn.GroupNorm({counts.pop()}, {channels})"
    return f"{_nd(spec, 'BatchNorm')}({channels})" if spec.norm == "batch" else ""


def _act(spec: NetSpec) -> str:
    return f"nn.{type(ACTIVATIONS[spec.activation]()).__name__}()"


def _conv(spec: NetSpec, conv: Conv) -> str:
    options = {"stride": conv.stride} if conv.stride != "1" else {}
    if conv.kernel == 3:
        options["padding"] = conv.dilation
    if conv.dilation != "1":
        options["dilation"] = conv.dilation
    if conv.groups > 1:
        options["groups"] = str(conv.groups)
    if spec.norm != "none":
        options["bias"] = "False"
    values = [conv.c_in, conv.c_out, str(conv.kernel), *(f"{name}={value}" for name, value in options.items())]
    return f"{_nd(spec, 'Conv')}({', '.join(values)})"


def _zero_pad(spec: NetSpec) -> str:
    steps = ", ".join([":", ":", *[":: self.stride"] * spec.dims])
    sides = ", ".join(["0, 0"] * spec.dims)
    init = ["self.stride, self.before, self.after = stride, new // 2, new - new // 2"]
    forward = [f"x = x[{steps}]", f"return F.pad(x, ({sides}, self.before, self.after))"]
    doc = "Every stride-th pixel, and `new` channels of zeros around those there are (option A, arXiv 1512.03385)."
    return _class("ZeroPad", "nn.Module", doc, ["stride: int", "new: int"], init, forward)


def _squeeze_excitation(spec: NetSpec) -> str:
    init = [
        f"squeezed = {squeezed(spec)}",
        f"self.avgpool = {_nd(spec, 'AdaptiveAvgPool')}(1)",
        f"self.fc1 = {_nd(spec, 'Conv')}(channels, squeezed, 1)",
        f"self.act = {_act(spec)}",
        f"self.fc2 = {_nd(spec, 'Conv')}(squeezed, channels, 1)",
        "self.gate = nn.Sigmoid()",
    ]
    forward = ["return x * self.gate(self.fc2(self.act(self.fc1(self.avgpool(x)))))"]
    doc = "Each channel times a gate from all channels' means (arXiv 1709.01507)."
    return _class("SqueezeExcitation", "nn.Module", doc, ["channels: int"], init, forward)


# Blocks


def _block(spec: NetSpec) -> str:
    preact = BLOCKS[spec.block].preact
    kernels = ", ".join("x".join([str(conv.kernel)] * spec.dims) for conv in convs(spec))
    with_each = "an activation" if spec.norm == "none" else "norm and activation"
    doc = f"Convolutions of {kernels}, each with {with_each} {'before' if preact else 'after'} it."
    arguments = {"c_in": "int", "width": "int", "stride": "int"}
    arguments |= {name: kind for name, (kind, _) in block_arguments(spec).items()}
    init = [*_widths(spec), *_layers(spec), *_tail_layers(spec), *_shortcut(spec)]
    typed = [f"{name}: {kind}" for name, kind in arguments.items()]
    return _class(BLOCKS[spec.block].__name__, "nn.Module", doc, typed, init, _forward(spec))


def _widths(spec: NetSpec) -> Iterator[str]:
    if inner_width(spec):
        yield f"inner = {inner_width(spec)}"
    if spec.expansion > 1:
        yield f"c_out = {spec.expansion} * width"


def _layers(spec: NetSpec) -> Iterator[str]:
    """The branch's layers: after each convolution, or before it, its norm and activation."""
    preact = BLOCKS[spec.block].preact
    for index, conv in enumerate(convs(spec), 1):
        norm = _norm(spec, conv.c_in if preact else conv.c_out)
        around = [f"self.bn{index} = {norm}"] if norm else []
        around += [f"self.act{index} = {_act(spec)}"]
        own = [f"self.conv{index} = {_conv(spec, conv)}"]
        yield from [*around, *own] if preact else [*own, *around]


def _tail_layers(spec: NetSpec) -> Iterator[str]:
    if spec.se:
        yield f"self.se = SqueezeExcitation({outer_width(spec)})"
    if spec.skip_init:
        yield "self.alpha = SkipInit()"
    if has_drop(spec):
        yield "self.drop = DropBranch(drop)"


def _downsample(spec: NetSpec, kind: str) -> str:
    """The module on a shortcut that changes the shape."""
    c_out = outer_width(spec)
    if kind == "A":
        return f"ZeroPad(stride, {c_out} - c_in)"
    conv = _conv(spec, Conv("c_in", c_out, 1, "1" if kind == "D" else "stride", "1", 1))
    pool = [f"{_nd(spec, 'AvgPool')}(stride, ceil_mode=True, count_include_pad=False)"] if kind == "D" else []
    norm = [] if BLOCKS[spec.block].preact else list(filter(None, [_norm(spec, c_out)]))
    members = [*pool, conv, *norm]
    if len(members) == 1:
        return f"nn.Sequential({conv})"
    return "\n".join(["nn.Sequential(", *(f"    {member}," for member in members), ")"])


def _shortcut(spec: NetSpec) -> Iterator[str]:
    """`self.downsample`, where there is anything but the identity, or nothing at all."""
    kinds = list(dict.fromkeys(stage_kinds(spec)))
    if kinds in (["none"], ["identity"]):
        return
    if kinds == ["C"]:
        yield from f"self.downsample = {_downsample(spec, 'C')}".splitlines()
        return
    optional = " | None" if "none" in kinds else ""
    yield f"self.downsample: nn.Module{optional} = nn.Identity()"
    for test, kind in shortcut_cases(spec, "c_in"):
        yield test
        module = "None" if kind == "none" else _downsample(spec, kind)
        yield from (f"    {line}" for line in f"self.downsample = {module}".splitlines())


def _calls(names: Iterable[str], x: str) -> str:
    """self.c(self.b(self.a(x)))."""
    for name in names:
        x = f"self.{name}({x})"
    return x


def _forward(spec: NetSpec) -> Iterator[str]:
    block, last = BLOCKS[spec.block], BLOCKS[spec.block].convs
    bn = (lambda i: [f"bn{i}"]) if spec.norm != "none" else (lambda i: [])
    if block.preact:
        yield f"y = {_calls([*bn(1), 'act1'], 'x')}"
        yield from _past(spec)
        yield "y = self.conv1(y)"
        for i in range(2, last + 1):
            yield f"y = {_calls([*bn(i), f'act{i}', f'conv{i}'], 'y')}"
    else:
        for i in range(1, last + 1):
            yield f"y = {_calls([f'conv{i}', *bn(i), *([f'act{i}'] if i < last else [])], 'x' if i == 1 else 'y')}"
    tail = [name for name, used in (("se", spec.se), ("alpha", spec.skip_init), ("drop", has_drop(spec))) if used]
    if tail:
        yield f"y = {_calls(tail, 'y')}"
    yield f"return {_sum(spec)}" if block.preact else f"return self.act{last}({_sum(spec)})"


def _past(spec: NetSpec) -> Iterator[str]:
    """What the shortcut of a pre-activation block reads."""
    kinds = set(stage_kinds(spec))
    if kinds == {"C"}:
        yield "past = y"
    elif kinds not in ({"none"}, {"identity"}):
        yield "past = x if isinstance(self.downsample, nn.Identity) else y"


def _sum(spec: NetSpec) -> str:
    kinds = set(stage_kinds(spec))
    if kinds in ({"none"}, {"identity"}):
        return "y" if kinds == {"none"} else "x + y"
    both = f"self.downsample({'past' if BLOCKS[spec.block].preact else 'x'}) + y"
    return f"y if self.downsample is None else {both}" if "none" in kinds else both


# The net


def _constructor(module: nn.Module) -> str:
    """A stem's layer as source."""
    name = f"nn.{type(module).__name__}"
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        sizes = {"stride": module.stride, "padding": module.padding}
        options = [f"{key}={_short(value)}" for key, value in sizes.items() if key != "stride" or set(value) != {1}]
        options += [] if module.bias is not None else ["bias=False"]
        values = str(module.in_channels), str(module.out_channels), _short(module.kernel_size)
        return f"{name}({', '.join([*values, *options])})"
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        return f"{name}({module.num_features})"
    if isinstance(module, nn.GroupNorm):
        return f"{name}({module.num_groups}, {module.num_channels})"
    if isinstance(module, nn.MaxPool2d | nn.MaxPool3d):
        return f"{name}({module.kernel_size}, stride={module.stride}, padding={module.padding})"
    return f"{name}()"


def _short(sizes: Iterable[object]) -> str:
    """(3, 3) as 3."""
    values = tuple(sizes)
    return str(values[0]) if len(set(values)) == 1 else str(values)


def _stem(spec: NetSpec) -> Iterator[str]:
    for name, layer in stem_layers(spec).items():
        yield f"self.{name} = {_constructor(layer)}"


def _stage_loop(spec: NetSpec) -> Iterator[str]:
    """The loops that add layer1, layer2, ..."""
    given = ["c_in", "width", "stride", *(value for _, value in block_arguments(spec).values())]
    c_out = f"{spec.expansion} * width" if spec.expansion > 1 else "width"
    carried = {"c_in": (str(spec.stem_width), c_out)} | loop_variables(spec)
    after = {"stride": "1"} | {name: step for name, (_, step) in carried.items()}
    yield f"{', '.join(carried)} = {', '.join(start for start, _ in carried.values())}"
    yield f"for index, ({', '.join(stage_columns(spec))}) in enumerate(STAGES, 1):"
    yield "    stage = nn.Sequential()"
    yield "    for _ in range(blocks):"
    yield f"        stage.append({BLOCKS[spec.block].__name__}({', '.join(given)}))"
    yield f"        {', '.join(after)} = {', '.join(after.values())}"
    yield '    self.add_module(f"layer{index}", stage)'


def _initialisation(spec: NetSpec) -> Iterator[str]:
    """He normal for convolutions, PyTorch's own uniform for the head, biases and what the net wants at 0."""
    yield "for module in self.modules():"
    yield f"    if isinstance(module, {_nd(spec, 'Conv')}):"
    yield '        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # arXiv 1502.01852'
    if spec.norm == "none":
        yield "        nn.init.zeros_(module.bias)"
    elif spec.se:
        yield "        if module.bias is not None:"
        yield "            nn.init.zeros_(module.bias)"
    yield "nn.init.zeros_(self.fc.bias)"
    if spec.zero_init:
        block = BLOCKS[spec.block]
        last = block.last_norm if block.last_norm and spec.norm != "none" else block.last_conv
        yield "for module in self.modules():"
        yield f"    if isinstance(module, {block.__name__}):"
        yield f"        nn.init.zeros_(module.{last}.weight)  # each block starts as its shortcut (arXiv 1706.02677)"


def _net(spec: NetSpec) -> str:
    shapes = "Clips (N, {}, {}, {}, {})" if spec.frames else "Images (N, {}, {}, {})"
    doc = f"{shapes.format(*spec.input_shape)} -> logits (N, {spec.classes}); other sizes work too."
    init = [*_stem(spec), *_stage_loop(spec)]
    if BLOCKS[spec.block].preact:
        norm = _norm(spec, "c_in")
        init += [*([f"self.bn_last = {norm}"] if norm else []), f"self.act_last = {_act(spec)}"]
    init += [f"self.avgpool = {_nd(spec, 'AdaptiveAvgPool')}(1)", "self.flatten = nn.Flatten()"]
    init += [f"self.fc = nn.Linear(c_in, {spec.classes})", *_initialisation(spec)]
    return _class(net_name(spec), "nn.Sequential", doc, [], init, [])


def _main(spec: NetSpec) -> str:
    shape = ", ".join(map(str, (1, *spec.input_shape)))
    return f"""if __name__ == "__main__":
    model = {net_name(spec)}().eval()
    print(f"{{sum(p.numel() for p in model.parameters()):,}} parameters")
    print("output", tuple(model(torch.zeros({shape})).shape))
"""
