"""Devices and precision: what was asked for and is not there is said, never replaced in silence."""

import pytest
import torch

from detr_job import hardware
from detr_job.errors import JobError
from detr_job.hardware import autocast, choose_device, hardware_name, memory_gib, use_bf16
from run_config.job.config import Training
from run_config.wording import plural

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch):
    def made(capability: tuple[int, int], built_for: list[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A GPU")

    return made


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused():
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(JobError, match="cuda was requested, but PyTorch finds no GPU") as caught:
        choose_device("cuda")
    assert caught.value.exit_code == 2
    with pytest.raises(JobError, match="'tpu' is not one of auto, cuda, cpu"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((8, 9), ["sm_80", "sm_86"], True),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((7, 0), ["compute_80"], False),
        ((10, 0), ["sm_90", "sm_100"], True),
        ((9, 4), ["gfx90a", "gfx942"], True),
        ((3, 5), [], True),
    ],
)
def test_a_gpu_that_the_build_does_not_know_is_refused(gpu, capability, built_for, runs: bool):
    gpu(capability, built_for)
    if runs:
        assert choose_device("auto") == torch.device("cuda", 0)
    else:
        with pytest.raises(JobError, match=r"A GPU has compute capability \d\.\d, which this build"):
            choose_device("cuda")
    assert choose_device("cpu") == CPU


def test_bf16_is_used_where_it_is_and_insisted_on_where_it_is_trained(monkeypatch):
    for has in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=has: has)
        assert use_bf16(Training(precision="auto"), CPU) is has
        assert use_bf16(Training(precision="fp32"), CPU) is False
        assert use_bf16(Training(precision="bf16"), CPU) is True
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        # a model that was trained in bf16 on a GPU can be used on any CPU
        assert use_bf16(Training(precision="bf16"), CPU, insist=False) is has
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(JobError, match=r"training\.precision: .* has no bf16; set it to auto or fp32"):
        use_bf16(Training(precision="bf16"), CPU)


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_gpus_have_bf16_from_ampere_on(gpu, capability, has: bool):
    gpu(capability, [])
    assert use_bf16(Training(), torch.device("cuda", 0)) is has


def test_autocast_is_bf16_or_nothing():
    weight, x = torch.ones(2, 2), torch.ones(2, 2)
    with autocast(CPU, bf16=True):
        assert (weight @ x).dtype == torch.bfloat16
    with autocast(CPU, bf16=False):
        assert (weight @ x).dtype == torch.float32


def test_a_report_can_name_the_machine():
    assert plural(torch.get_num_threads(), "thread") in hardware_name(CPU)
    assert 0.01 < memory_gib(CPU) < 1000


def test_a_cpu_is_told_to_be_deterministic():
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    try:
        hardware.prepare(CPU)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
