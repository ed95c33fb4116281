"""What a machine's devices have, and how they are named."""

import pytest
import torch

from resnet.devices import device_name, has_bf16

AMX, ZEN5, ARM, AVX512 = (
    {"avx512_f": True, "avx512_bf16": True, "amx_bf16": True, "cpu_name": "one"},
    {"avx512_f": True, "avx512_bf16": True, "amx_bf16": False},
    {"neon": True, "bf16": True},
    {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False},
)


@pytest.mark.parametrize(
    ("capabilities", "unit"),
    [(AMX, "AMX"), (ZEN5, "AVX512_BF16"), (ARM, "bf16"), (AVX512, ""), ({"avx2": True}, ""), ({}, "")],
)
def test_a_cpu_is_asked_what_it_has(capabilities: dict[str, bool], unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bf16("cpu") is bool(unit)
    assert has_bf16("mps") is False
    assert device_name("cpu").count(" with ") == bool(unit)
    assert f" with {unit}" * bool(unit) in device_name("cpu")


def test_this_cpu_says_what_it_can_do() -> None:
    assert torch.cpu.get_capabilities()["architecture"]


@pytest.mark.parametrize(
    ("limit", "amx", "zen5"),
    [
        ("AVX2", "", ""),
        ("avx512_core", "", ""),
        ("AVX512_CORE_VNNI", "", ""),
        ("AVX512_CORE_BF16", "AVX512_BF16", "AVX512_BF16"),
        ("AVX512_CORE_AMX", "AMX", "AVX512_BF16"),
        ("ALL", "AMX", "AVX512_BF16"),
        ("", "AMX", "AVX512_BF16"),
    ],
)
def test_onednn_may_be_kept_from_what_there_is(
    limit: str, amx: str, zen5: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new processor that is to pass for an old one trains in bf16, eight times slower than in fp32."""
    for capabilities, unit in ((AMX, amx), (ZEN5, zen5)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        free = device_name("cpu")
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert has_bf16("cpu") is bool(unit)
        assert (f" with {unit}" in device_name("cpu")) is bool(unit)
        assert (device_name("cpu") == free) is (limit in ("", "ALL"))  # a timing kept for one is none for the other


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_is_asked_by_any_of_its_names(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: f"GPU {which}")
    assert has_bf16(device)
    assert device_name(device) == f"GPU {device}"


def test_other_threads_are_another_machine() -> None:
    before, names = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            names.add(device_name("cpu"))
    finally:
        torch.set_num_threads(before)
    assert len(names) == 2
