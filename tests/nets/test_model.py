"""Nets against torchvision, against their twins and against slow references; and blocks that hooks can trust."""

import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import chain, product
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet.nets.blocks import BLOCKS, MODES, SHORTCUTS, Block, BlockPlan, PreActBasicBlock, ZeroPad
from resnet.nets.kinds import IDENTITY_VARIANTS, STEMS
from resnet.nets.layers import ACTIVATIONS, NORMS, Add, Gate, Layers, SqueezeExcitation, StochasticDepth
from resnet.nets.model import ResNet, block_plans, blocks, build, memory_format, stage_names, weight_layers
from resnet.nets.spec import PRESETS, NetSpec, StageSpec, plain_twin

# The deepest twins repeat the blocks of the shallower ones; test_profiler.py builds them all.
TWINS = PRESETS | {f"twin of {name}": plain_twin(spec) for name, spec in PRESETS.items() if spec.depth <= 50}


def small(block: str = "basic", shortcut: str = "A", **values: Any) -> NetSpec:
    """Three quick stages: one keeps its input's shape, two change it."""
    width = 8 * BLOCKS[block].expansion
    stages = StageSpec(2, 8), StageSpec(2, 12, 2), StageSpec(1, 17, 2)
    sizes: dict[str, Any] = {"stem": "3x3", "stem_width": width, "classes": 10, "image_size": 16}
    return NetSpec(stages, block, shortcut, **sizes | values)


def stems(frames: int) -> list[str]:
    return [name for name, stem in STEMS.items() if (3 if frames else 2) in stem.dims]


VARIANTS = [(block, shortcut) for block in BLOCKS for shortcut in SHORTCUTS]


def images(spec: NetSpec, n: int = 2, device: str = "cpu") -> Tensor:
    shape = n, *spec.input_shape
    if device == "meta":
        return torch.empty(shape, device="meta")
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def randomise_norms(model: nn.Module, seed: int = 3) -> None:
    """Scales, shifts and running statistics that no initialisation gives."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_var is not None
            assert module.running_mean is not None
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=rng)
            nn.init.normal_(module.bias, 0, 0.2, generator=rng)
            module.running_mean.normal_(0, 0.2, generator=rng)
            module.running_var.uniform_(0.5, 1.5, generator=rng)


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules(remove_duplicate=False) if not any(m.children())}


class Record(TorchDispatchMode):
    """Names every aten call and the devices of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.__name__.split(".")[0]] += 1
        self.devices |= {t.device.type for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor)}
        return out


# Shapes


def expected_features(spec: NetSpec, n: int) -> dict[str, tuple[int, ...]]:
    """Every stride rounds up; the stems of ImageNet nets stride twice by two."""

    def strided(sides: list[int], stride: int) -> list[int]:
        return [math.ceil(side / stride) for side in sides]

    sides = [spec.frames, spec.image_size, spec.image_size] if spec.frames else [spec.image_size] * 2
    if spec.stem in ("7x7", "deep"):
        sides = strided(strided(sides, 2), 2)
    elif spec.stem == "3x7x7":
        sides = [sides[0], *strided(sides[1:], 2)]
    shapes: dict[str, tuple[int, ...]] = {"stem": (n, spec.stem_width, *sides)}
    channels = spec.stem_width
    for index, stage in enumerate(spec.stages, 1):
        sides, channels = strided(sides, stage.stride), stage.width * (4 if "bottleneck" in spec.block else 1)
        shapes[f"stage{index}"] = (n, channels, *sides)
    return shapes | {"pre_logits": (n, channels), "logits": (n, spec.classes)}


@cache
def run_on_meta(name: str) -> tuple[ResNet, dict[str, tuple[int, ...]], Counter[str], Counter[str]]:
    """The net, its features' shapes for 3 images, how often hooks saw each leaf, and the aten calls."""
    model = build(TWINS[name], device="meta").eval()
    seen: Counter[str] = Counter()
    for key, module in leaves(model).items():
        module.register_forward_hook(lambda m, _, out, key=key: seen.update([key]))
    with torch.no_grad(), Record() as record:
        features = model.features(images(TWINS[name], 3, "meta"))
    return model, {key: tuple(value.shape) for key, value in features.items()}, seen, record.calls


@pytest.mark.parametrize("name", TWINS)
def test_presets_build_and_name_their_features(name: str) -> None:
    model, shapes, _, _ = run_on_meta(name)
    spec = TWINS[name]
    assert len(weight_layers(model)) == spec.depth + len(STEMS[spec.stem].convs) - 1
    assert len(blocks(model)) == sum(stage.blocks for stage in spec.stages)
    assert list(shapes.items()) == list(expected_features(spec, 3).items())


@pytest.mark.parametrize("frames", [0, 13])
@pytest.mark.parametrize(("block", "shortcut"), VARIANTS)
def test_every_combination_runs_forward_and_backward(block: str, shortcut: str, frames: int) -> None:
    for index, (stem, norm) in enumerate(product(stems(frames), NORMS)):
        activation = list(ACTIVATIONS)[(index + index // 3) % 3]  # each with every norm and in every stem
        values = {"stem": stem, "norm": norm, "activation": activation, "frames": frames}
        spec = small(block, shortcut, **values, image_size=17, in_channels=2)
        model = build(spec)
        features = model.features(images(spec))
        assert {k: tuple(v.shape) for k, v in features.items()} == expected_features(spec, 2)
        features["logits"].square().sum().backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()


def test_features_are_what_the_forward_computes() -> None:
    spec = small("bottleneck", "B")
    model = build(spec).eval()
    seen: dict[str, Tensor] = {}
    for key, module in {"stage2": "layer2", "pre_logits": "flatten", "stem": "act"}.items():
        model.get_submodule(module).register_forward_hook(lambda m, _, out, key=key: seen.__setitem__(key, out))
    logits = model(images(spec))
    features = model.features(images(spec))
    torch.testing.assert_close(features["logits"], logits, rtol=0, atol=0)
    for key, value in seen.items():
        torch.testing.assert_close(features[key], value, rtol=0, atol=0)


# torchvision is the oracle


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_weights_load_strictly_and_give_the_same_logits(name: str) -> None:
    theirs = getattr(torchvision.models, name)(weights=None)
    randomise_norms(theirs)
    nn.init.normal_(theirs.fc.bias)
    spec = replace(PRESETS[name.replace("resnet", "ResNet-")], image_size=64)
    ours = build(spec)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = images(spec, 3)
    with torch.no_grad():
        for training in (False, True):
            want, got = theirs.train(training)(x), ours.train(training)(x)
            assert want.std() > 0.1
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    for key, value in theirs.state_dict().items():  # the running statistics that train mode moved
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)])
def test_state_dict_keys_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None).state_dict()
    ours = build(PRESETS[name.replace("resnet", "ResNet-")], device="meta").state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


# Seeds and twins


@pytest.mark.parametrize("block", BLOCKS)
def test_twins_share_weights(block: str) -> None:
    for shortcut in ("A", "B"):
        spec = small(block, shortcut)
        residual, plain = build(spec, 5).state_dict(), build(plain_twin(spec), 5).state_dict()
        only_residual = residual.keys() - plain.keys()
        assert plain.keys() <= residual.keys()
        assert all(".downsample." in key for key in only_residual)
        assert bool(only_residual) == (shortcut == "B")
        for key, value in plain.items():
            torch.testing.assert_close(value, residual[key], rtol=0, atol=0)


def test_option_a_and_option_b_share_the_main_path() -> None:
    a, b = build(small(shortcut="A"), 5).state_dict(), build(small(shortcut="B"), 5).state_dict()
    assert all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.mark.parametrize(("block", "shortcut"), VARIANTS)
def test_seed_decides_every_weight(block: str, shortcut: str) -> None:
    torch.manual_seed(10)
    before = torch.get_rng_state()
    spec = small(block, shortcut)
    first = build(spec, 1)
    assert torch.equal(torch.get_rng_state(), before), "the global generator belongs to the caller"
    torch.manual_seed(11)
    again, other = build(spec, 1).state_dict(), build(spec, 2).state_dict()
    assert first.state_dict().keys() == again.keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again[key]), key
        if value.ndim > 1:  # convolutions and the head
            assert not torch.equal(value, other[key]), key
    weights = [p.flatten()[:8] for p in first.parameters() if p.ndim > 1]
    assert len({tuple(w.tolist()) for w in weights}) == len(weights), "no two layers share their draws"


def test_initialisation_has_the_stated_spread() -> None:
    model = build(PRESETS["ResNet-20"])
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels >= 16:
            fan_in = module.in_channels * 9
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            state = module.weight, module.bias, module.running_mean, module.running_var, module.num_batches_tracked
            assert [set(t.flatten().tolist()) for t in state if t is not None] == [{1.0}, {0.0}, {0.0}, {1.0}, {0}]
    assert model.fc.weight.abs().max().item() == pytest.approx(1 / 8, rel=0.05)
    assert not model.fc.bias.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", ["zero_init", "skip_init"])
@pytest.mark.parametrize(("block", "shortcut"), [v for v in VARIANTS if v[1] != "none"])
def test_zero_and_skip_init_make_every_block_its_shortcut(block: str, shortcut: str, start: str, norm: str) -> None:
    rng = torch.Generator().manual_seed(0)
    for on in (True, False):
        for unit in blocks(build(small(block, shortcut, norm=norm, **{start: on}))).values():
            unit.eval()
            assert unit.downsample is not None
            c_in = next(m.in_channels for m in unit.modules() if isinstance(m, nn.Conv2d))
            x = torch.rand(2, c_in, 6, 6, generator=rng)
            past, _ = unit.enter(x)
            want = unit.downsample(past, *unit.gates(past))
            assert torch.equal(unit(x), want if "preact" in block else want.relu()) == on
            if isinstance(unit.downsample, nn.Identity):
                assert torch.equal(unit(x), x) == on


def test_zero_init_changes_only_the_ends_of_the_branches() -> None:
    ends = {"basic": "bn2", "bottleneck": "bn3", "preact-basic": "conv2", "preact-bottleneck": "conv3"}
    assert ends.keys() == BLOCKS.keys()
    for block, end in ends.items():
        spec = small(block, "B")
        usual, zero = build(spec, 4).state_dict(), build(replace(spec, zero_init=True), 4).state_dict()
        differ = {key for key in usual if not torch.equal(usual[key], zero[key])}
        assert differ == {key for key in usual if key.endswith(f".{end}.weight")}


# Variants of the identity (arXiv 1603.05027, Table 1)


@pytest.mark.parametrize("frames", [0, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_variants_of_the_identity_are_what_the_paper_says(block: str, frames: int) -> None:
    gate = 1 / (1 + math.exp(6))  # before it has learned to look
    shares = {"scaled": (0.5, 1), "exclusive": (1 - gate, gate), "gated": (1 - gate, 1), "dropout": (0.5, 1)}
    assert shares.keys() == set(IDENTITY_VARIANTS)
    for kind, (way, inside) in shares.items():
        model = build(small(block, kind, frames=frames)).eval()
        plans = [plan for *_, plan in block_plans(model.spec)]
        for plan, unit in zip(plans, blocks(model).values(), strict=True):
            assert unit.shortcut_kind == (kind if plan.keeps_shape else "B")
            if not plan.keeps_shape:
                continue
            if unit.gate is not None:
                nn.init.zeros_(unit.gate.conv.get_parameter("weight"))
            x = torch.rand(2, plan.c_in, *[4] * (3 if frames else 2))
            y = way * x + inside * unit.branch(unit.enter(x)[1])
            torch.testing.assert_close(unit(x), y if unit.preact else y.relu())


def test_a_gate_looks_at_all_channels_of_a_pixel() -> None:
    gate = Gate(3, Layers())
    x = torch.randn(2, 3, 4, 5)
    weight, bias = gate.conv.get_parameter("weight"), gate.conv.get_parameter("bias")
    want = torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + bias[:, None, None]
    torch.testing.assert_close(gate(x), 1 / (1 + torch.exp(-want)))


def test_dropout_on_the_shortcut_keeps_half_of_the_values_as_they_are() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 8, 32, 32) + 0.1
    way = SHORTCUTS["dropout"](BlockPlan("basic", 8, 8), True)
    assert way is not None
    kept = way.train()(x)
    assert ((kept == 0) | (kept == x)).all()
    assert (kept > 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(way.eval()(x), x / 2)


def test_variants_change_no_weight_of_the_main_path() -> None:
    usual = build(small("basic", "B"), 4).state_dict()
    for kind in IDENTITY_VARIANTS:
        own = build(small("basic", kind), 4).state_dict()
        assert own.keys() - usual.keys() == {key for key in own if ".gate." in key}
        assert all(torch.equal(own[key], value) for key, value in usual.items() if ".downsample." not in key)
        assert [key for key in own if key.endswith("gate.conv.bias") and not (own[key] == -6).all()] == []


# Modes: a net without a block, or with only one of its two ways


def set_modes(model: nn.Module, mode: str) -> None:
    for block in blocks(model).values():
        block.mode = mode


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_branch_only_is_the_plain_twin(block: str, training: bool) -> None:
    spec = small(block, "A")
    residual, plain = build(spec, 1), build(plain_twin(spec), 2)
    randomise_norms(residual)
    plain.load_state_dict(residual.state_dict(), strict=True)
    residual.train(training)
    plain.train(training)
    x = images(spec)
    with torch.no_grad():
        both = residual(x)
        set_modes(residual, "branch")
        torch.testing.assert_close(residual(x), plain(x), rtol=0, atol=0)
        set_modes(residual, "both")
        torch.testing.assert_close(residual(x), both, rtol=0, atol=0)
        assert not torch.allclose(both, plain(x), rtol=1e-2)


@pytest.mark.parametrize(("block", "shortcut"), VARIANTS)
def test_each_mode_runs_what_it_says(block: str, shortcut: str) -> None:
    spec = small(block, shortcut)
    model = build(spec).eval()
    randomise_norms(model)
    x = model.features(images(spec))["stem"]
    for unit in blocks(model).values():
        assert unit.mode == "both"
        x = x - x.mean()  # negative values too, so that a lost ReLU shows
        past, inside = unit.enter(x)
        branch, gates = unit.branch(inside), unit.gates(past)
        if unit.shortcut_kind == "exclusive":
            branch = branch * gates[0]
        assert unit.keeps_shape == (branch.shape == x.shape)
        for mode in MODES:
            possible = {"shortcut": shortcut != "none", "cut": unit.keeps_shape}.get(mode, True)
            if not possible:
                with pytest.raises(ValueError, match=r"plain block|keeps its input's shape"):
                    unit.mode = mode
                continue
            unit.mode = mode
            way = x if unit.downsample is None else unit.downsample(past, *gates)
            total = branch if shortcut == "none" else branch + way
            want = {"both": total, "branch": branch, "shortcut": way}.get(mode, x)
            acts = mode != "cut" and "preact" not in block
            torch.testing.assert_close(unit(x), want.relu() if acts else want, rtol=0, atol=0)
        unit.mode = "both"
        x = unit(x)


def test_refused_modes_leave_the_block_as_it_was() -> None:
    model = build(small(shortcut="none"))
    first, changes = blocks(model)["layer1.0"], blocks(model)["layer2.0"]
    first.mode = "cut"
    with pytest.raises(ValueError, match=r"both, shortcut, branch, cut. Received 'off'"):
        first.mode = "off"
    with pytest.raises(ValueError, match="plain block has no shortcut"):
        first.mode = "shortcut"
    with pytest.raises(ValueError, match="keeps its input's shape"):
        changes.mode = "cut"
    assert (first.mode, changes.mode) == ("cut", "both")


@pytest.mark.parametrize("shortcut", ["A", "none"])
def test_cutting_a_block_out_is_the_net_without_it(shortcut: str) -> None:
    spec = replace(PRESETS["ResNet-20"], shortcut=shortcut, image_size=16)
    model = build(spec).eval()
    randomise_norms(model)
    x = images(spec)
    with torch.no_grad():
        for name, block in blocks(model).items():
            if not block.keeps_shape:
                continue
            block.mode = "cut"
            stage, position = name.split(".")
            y = x
            for key, child in model.named_children():
                members = list(child.children()) if key.startswith("layer") else [child]
                for index, module in enumerate(members):
                    if (key, index) != (stage, int(position)):
                        y = module(y)
            torch.testing.assert_close(model(x), y, rtol=0, atol=0)
            block.mode = "both"


# Hooks


@pytest.mark.parametrize("name", TWINS)
def test_hooks_see_every_relu_and_every_addition_once(name: str) -> None:
    spec, (model, _, seen, calls) = TWINS[name], run_on_meta(name)
    modules = leaves(model)
    assert len(set(modules.values())) == len(modules), "a module under two names"
    assert seen == dict.fromkeys(modules, 1)
    relus = [m for m in modules.values() if isinstance(m, nn.ReLU)]
    adds = [m for m in modules.values() if isinstance(m, Add)]
    gates = len([m for m in model.modules() if isinstance(m, SqueezeExcitation)])
    stem = len(STEMS[spec.stem].convs)  # before pre-activation blocks one fewer, which stands after the last
    assert len(relus) == stem + BLOCKS[spec.block].convs * len(blocks(model)) + gates
    assert len(adds) == (0 if spec.plain else len(blocks(model)))
    assert not any(relu.inplace for relu in relus)
    assert calls["relu"] == len(relus), "a ReLU outside the modules"
    assert calls["add"] == len(adds), "an addition outside the modules"
    assert calls["mul"] == gates, "a product outside the modules"
    assert not [call for call in calls if call.endswith("_")], "an operation in place"


@pytest.mark.parametrize("block", BLOCKS)
def test_identity_shortcuts_are_modules(block: str) -> None:
    for shortcut, changing in {"A": ZeroPad, "B": nn.Sequential, "D": nn.Sequential}.items():
        for unit in blocks(build(small(block, shortcut), device="meta")).values():
            assert type(unit.downsample) is (nn.Identity if unit.keeps_shape else changing)
    for unit in blocks(build(small(block, "C"), device="meta")).values():
        assert type(unit.downsample) is nn.Sequential


def test_without_a_norm_a_pre_activation_has_a_tensor_of_its_own() -> None:
    """Else the ReLU's node would also carry the shortcut's gradient, and guided backprop would be wrong."""
    for unit in blocks(build(small("preact-basic", "A", norm="none"))).values():
        assert isinstance(unit, PreActBasicBlock)
        assert isinstance(unit.conv1, nn.Conv2d)
        x = torch.randn(2, unit.conv1.in_channels, 5, 5, requires_grad=True)
        seen: list[Tensor] = []
        unit.act1.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0]))
        unit(x)
        assert seen[0] is not x
        torch.testing.assert_close(seen[0], x, rtol=0, atol=0)


def test_blocks_are_named_from_the_input_to_the_output() -> None:
    model = build(small("bottleneck"), device="meta")
    assert list(blocks(model)) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0"]
    assert all(isinstance(block, Block) for block in blocks(model).values())
    names = list(weight_layers(build(small("basic", "B"), device="meta")))
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert names[-2:] == ["layer3.0.conv2", "fc"]


# Option A


@pytest.mark.parametrize(
    ("c_in", "c_out", "stride", "height", "width"),
    [
        (2, 4, 2, 6, 6),
        (2, 4, 2, 5, 7),
        (3, 6, 2, 4, 4),
        (3, 4, 1, 3, 2),
        (2, 7, 3, 7, 8),
        (4, 4, 2, 5, 5),
        (1, 2, 4, 1, 9),
    ],
)
def test_option_a_is_the_slow_reference(c_in: int, c_out: int, stride: int, height: int, width: int) -> None:
    x = torch.randn(2, c_in, height, width)
    want = torch.zeros(2, c_out, -(-height // stride), -(-width // stride))
    before = (c_out - c_in) // 2
    for channel in range(c_in):
        for i in range(want.shape[2]):
            for j in range(want.shape[3]):
                want[:, before + channel, i, j] = x[:, channel, i * stride, j * stride]
    module = SHORTCUTS["A"](BlockPlan("basic", c_in, c_out, stride), True)
    assert module is not None
    torch.testing.assert_close(module(x), want, rtol=0, atol=0)
    assert not list(module.parameters())
    volume = SHORTCUTS["A"](BlockPlan("basic", c_in, c_out, stride, layers=Layers(3)), True)
    assert volume is not None
    torch.testing.assert_close(volume(x[:, :, None].repeat(1, 1, 3, 1, 1))[:, :, 0], want, rtol=0, atol=0)


# Norms and the meta device


@pytest.mark.parametrize(("block", "shortcut"), VARIANTS)
def test_without_norm_convolutions_are_biased(block: str, shortcut: str) -> None:
    for norm in NORMS:
        model = build(small(block, shortcut, norm=norm), 1)
        gates = [m.conv for m in model.modules() if isinstance(m, Gate)]  # always biased
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in gates]
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm)]
        normed = len(weight_layers(model)) - 1 if "preact" in block else len(convs)  # its projections have none
        assert len(norms) == (0 if norm == "none" else normed)
        assert all((conv.bias is not None) == (norm == "none") for conv in convs)
        assert not any(conv.bias.any() for conv in convs if conv.bias is not None)
        assert model(images(small())).isfinite().all()


def test_meta_build_allocates_nothing() -> None:
    huge = NetSpec((StageSpec(60, 4096),), "bottleneck", stem_width=4096)
    for spec in (small(), huge):  # a build that does allocate fails at the small one
        with Record() as record:
            model = build(spec, device="meta")
        assert all(t.is_meta for t in chain(model.parameters(), model.buffers()))
        assert record.devices <= {"meta"}
    assert sum(p.numel() for p in model.parameters()) > 15e9  # 60 GB anywhere else


def test_build_puts_the_net_on_the_device() -> None:
    spec = small()
    for device in ("cpu", torch.device("cpu"), "meta", torch.device("meta")):
        model = build(spec, device=device)
        assert isinstance(model, ResNet)
        assert model.spec == spec
        assert {t.device.type for t in chain(model.parameters(), model.buffers())} == {torch.device(device).type}


def test_stochastic_depth_is_torchvisions() -> None:
    x = torch.rand(64, 3, 2, 2) + 1
    ours = StochasticDepth(0.3)
    for training in (False, True):
        torch.manual_seed(0)
        want = torchvision.ops.StochasticDepth(0.3, "row").train(training)(x)
        torch.manual_seed(0)
        torch.testing.assert_close(ours.train(training)(x), want, rtol=0, atol=0)
    assert 0 < int((want == 0).all(1).all(1).all(1).sum()) < 40


def test_drop_rates_grow_linearly_with_depth() -> None:
    spec = small("basic", "B", stochastic_depth=0.8)
    rates = [getattr(unit.drop, "p", 0.0) for unit in blocks(build(spec, device="meta")).values()]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])


def test_channels_last_where_the_cpu_kernel_is_sound() -> None:
    """PyTorch 2.14's crashes on strided 1x1 convolutions of few channels; test_trainer.py trains such nets."""
    thin = NetSpec((StageSpec(1, 4), StageSpec(1, 8, 2)), stem="3x3", stem_width=4)
    assert memory_format(build(thin, device="meta")) == torch.contiguous_format
    for spec in (replace(thin, shortcut="A"), replace(PRESETS["ResNet-20"], shortcut="B"), PRESETS["ResNet-50"]):
        assert memory_format(build(spec, device="meta")) == torch.channels_last
    assert memory_format(build(PRESETS["ResNet3D-18"], device="meta")) == torch.contiguous_format


@pytest.mark.parametrize(("block", "shortcut"), VARIANTS)
def test_stages_and_weight_layers_follow_the_modules(block: str, shortcut: str) -> None:
    spec = small(block, shortcut, se=4)
    model = build(spec, device="meta")
    assert stage_names(spec) == model.stages
    assert list(model.stages) == [name for name, _ in model.named_children()]
    assert list(dict.fromkeys(model.stages.values())) == ["stem", "stage1", "stage2", "stage3", "head"]
    for name in weight_layers(model):
        assert name in ("conv1", "fc") or re.fullmatch(r"layer\d\.\d\.conv\d", name)
    for unit in blocks(model).values():
        assert unit.bottleneck == (BLOCKS[block].convs == 3)
        assert (unit.shortcut_kind == "identity") == (type(unit.downsample) is nn.Identity)
        assert (unit.shortcut_kind == "") == (unit.downsample is None)
