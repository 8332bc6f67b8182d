"""How much of a GPU a run uses: FLOPs are counted without computing, and set against what the device can do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detr_job.family import build_family
from detr_job.models.layers import ONEDNN
from detr_job.training.utilisation import Utilisation, _linear_flops, peak_flops, training_flops
from run_config.job.presets import load_job_config


@pytest.mark.parametrize(
    ("name", "bf16", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", True, 989),
        ("NVIDIA H100 PCIe", True, 756),
        ("NVIDIA A100-SXM4-40GB", False, 156),
        ("NVIDIA A10G", True, 70),
        ("NVIDIA A10", True, 125),
        ("NVIDIA L4", True, 121),
        ("NVIDIA L40S", False, 183),
        ("NVIDIA GeForce GTX 1080", True, None),
        ("", True, None),
    ],
)
def test_the_peak_is_the_one_of_the_data_sheet_or_not_known(name: str, bf16: bool, tflops: float | None):
    assert peak_flops(name, bf16=bf16) == (None if tflops is None else tflops * 1e12)


@pytest.mark.parametrize("preset", ["detr-r18", "tiny", "rf-detr-nano", "d-fine-nano", "deformable-detr-r50"])
def test_nothing_is_computed_for_the_count_which_is_that_of_a_real_pass(preset: str):
    config = load_job_config(preset)
    shape = (1, 3, 128, 160)
    network = build_family(config, 3).network.requires_grad_(requires_grad=True).train()
    ours = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if ONEDNN else {}
    with FlopCounterMode(display=False, custom_mapping=ours) as counter:
        network(torch.zeros(shape), torch.zeros((1, 128, 160), dtype=torch.bool))
    whole = 3 * counter.get_total_flops()
    counted = training_flops(config, 3, shape)
    # DETR's first layers are frozen.
    assert (0.5 * whole < counted < whole) if preset in ("detr-r18", "deformable-detr-r50") else (counted == whole)
    frozen = training_flops(load_job_config(preset, ["optimizer.lr_backbone=0"]), 3, shape)
    assert whole / 3 < frozen < 0.9 * counted


def test_the_work_of_a_network_that_depends_on_the_images_is_not_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("detr_job.training.utilisation.peak_flops", lambda _name, *, bf16: 1e12 if bf16 else None)
    config = load_job_config("faster-rcnn-mobilenet")
    assert training_flops(config, 3, (1, 3, 64, 64)) is None
    assert Utilisation(config, 3, torch.device("cpu"), bf16=True).of(1000.0, (1, 3, 64, 64)) is None


def test_counting_is_done_once_and_draws_nothing_at_random(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("detr_job.training.utilisation.peak_flops", lambda _name, *, bf16: 1e12 if bf16 else None)
    config, cpu = load_job_config("tiny"), torch.device("cpu")
    used = Utilisation(config, 3, cpu, bf16=True)
    before = torch.get_rng_state()
    shape = (2, 3, 128, 160)
    share = used.of(1000.0, shape)
    assert share == pytest.approx(1000.0 * training_flops(config, 3, shape) / (2 * 128 * 160) / 1e12)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr("detr_job.training.utilisation.training_flops", lambda *_: 0.0)
    assert used.of(2000.0, shape) == pytest.approx(2 * share)
    assert Utilisation(config, 3, cpu, bf16=False).of(1000.0, shape) is None
