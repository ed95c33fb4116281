"""What a machine's devices have, and how they are named."""

import pytest
import torch

from resnet.devices import device_name, has_bf16


@pytest.mark.parametrize("amx", [False, True])
def test_a_cpu_has_bf16_where_it_has_amx(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bf16("cpu") is amx
    assert has_bf16("mps") is False
    assert ("AMX" in device_name("cpu")) is amx


@pytest.mark.parametrize(
    ("limit", "amx"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_AMX", True), ("ALL", True), ("", True)]
)
def test_onednn_may_be_kept_from_amx(limit: str, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a new processor that is to pass for an old one trains in bf16, eight times slower than in fp32."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    free = device_name("cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_bf16("cpu") is amx
    assert ("with AMX" in device_name("cpu")) is amx
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
