"""The CPU's own linear map and dropout compute what PyTorch's do."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detr_job.models import layers
from detr_job.models.layers import Conv2d, Geometry, Linear, dropout, linear, normed_conv2d, scaled_conv2d


@given(
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    flipped=st.booleans(),
)
@settings(max_examples=40)
def test_values_and_gradients_are_those_of_pytorch(rows: list[int], inputs: int, outputs: int, flipped: bool):
    torch.manual_seed(0)
    x = torch.randn(*rows, inputs)
    if flipped:  # rows that do not lie one after the other in memory
        x = torch.randn(*reversed(rows), inputs).permute(*reversed(range(len(rows))), -1)
    x.requires_grad_()
    weight, bias = torch.randn(outputs, inputs, requires_grad=True), torch.randn(outputs, requires_grad=True)
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, (x, weight, bias), grad)
    for one, other in zip(found, torch.autograd.grad(theirs, (x, weight, bias), grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_other_precisions_go_pytorchs_way():
    layer, x = Linear(8, 4), torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_names_are_those_of_a_linear_layer():
    assert Linear(8, 4).state_dict().keys() == nn.Linear(8, 4).state_dict().keys()


def test_onednn_is_used_where_pytorch_has_it():
    assert torch.backends.mkldnn.is_available() == layers.ONEDNN


@pytest.mark.parametrize(("kernel", "stride", "side"), [(1, 1, 4), (1, 1, 20), (1, 2, 20), (3, 1, 9), (3, 2, 9)])
@pytest.mark.parametrize("added", [False, True])
def test_a_scaled_convolution_has_the_values_and_gradients_of_its_parts(
    kernel: int, stride: int, side: int, added: bool
):
    torch.manual_seed(0)
    x = torch.randn(2, 16, side, side).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(24, 16, kernel, kernel, requires_grad=True)
    scale, shift = torch.rand(24, 1, 1, 1), torch.randn(24)
    geometry = Geometry((stride, stride), (kernel // 2,) * 2, (1, 1), 1)
    theirs = F.conv2d(x, weight, None, *geometry) * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    residual = torch.randn_like(theirs, requires_grad=True) if added else None
    theirs = (theirs if residual is None else theirs + residual).relu()
    ours = scaled_conv2d(x, weight, scale, shift, geometry, residual=residual, relu=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    inputs = [each for each in (x, weight, residual) if each is not None]
    grad = torch.randn_like(theirs)
    found = torch.autograd.grad(ours, inputs, grad)
    for one, other in zip(found, torch.autograd.grad(theirs, inputs, grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 16])
def test_a_batch_norm_is_part_of_the_convolution_in_prediction(groups: int):
    torch.manual_seed(0)
    conv, norm = Conv2d(16, 16, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(16)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 16, 7, 9)
    norm.eval()
    with torch.no_grad():
        torch.testing.assert_close(normed_conv2d(x, conv, norm, relu=True), norm(conv(x)).relu())


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_drops_as_many_as_asked_and_keeps_the_mean(probability: float):
    torch.manual_seed(0)
    x = torch.ones(401, 503, requires_grad=True)
    dropped = dropout(x, probability, training=True)
    share = (dropped == 0).float().mean().item()
    deviation = (probability * (1 - probability) / x.numel()) ** 0.5
    assert share == pytest.approx(probability, abs=5 * deviation)
    assert dropped.max().item() == pytest.approx(1 / (1 - probability))
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach()), "the gradient passes where the value passed"


def test_dropout_follows_the_seed():
    x = torch.ones(7, 11)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5, training=True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("probability", [0.9999, 1 - 2**-17, 1 - 1e-6, 1 - 1e-12, 1.0])
def test_dropout_near_1_drops_nearly_everything(probability: float):
    torch.manual_seed(0)
    assert dropout(torch.ones(1 << 16), probability, training=True).count_nonzero() < 20


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (0, 4)])
def test_dropout_takes_any_size(shape: tuple[int, ...]):
    assert dropout(torch.ones(shape), 0.3, training=True).shape == shape


def test_dropout_does_nothing_in_evaluation():
    x = torch.randn(5, 5)
    assert dropout(x, 0.5, training=False) is x


CRASH = """
import torch
from detr_job.models.layers import Conv2d

torch.manual_seed(0)
for _ in range(40):
    for height, width, batch in ((15, 24, 4), (7, 7, 2), (60, 80, 4), (5, 9, 1)):
        for channels in (16, 48, 96):
            conv = Conv2d({channels}, channels, 1, 2, bias=False).to(memory_format=torch.channels_last)
            images = torch.randn(batch, {channels}, height, width).to(memory_format=torch.channels_last)
            conv(images.requires_grad_()).sum().backward()
"""


@pytest.mark.parametrize("channels", [1, 3, 8, 15])
def test_few_channels_do_not_corrupt_the_memory(channels: int):
    """With nn.Conv2d this ends with SIGABRT or SIGSEGV on a CPU with AVX-512."""
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.perturb=165"}
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(channels=channels)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [3, 8, 16])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_convolutions_are_those_of_pytorch(channels: int, kernel: int, stride: int, width: int):
    torch.manual_seed(0)
    ours = Conv2d(channels, 7, kernel, stride, kernel // 2, bias=False).double()
    theirs = nn.Conv2d(channels, 7, kernel, stride, kernel // 2, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    first, second = (torch.randn(2, channels, 6, width, dtype=torch.float64).requires_grad_() for _ in range(2))
    second.data.copy_(first.data)
    one, other = ours(first), theirs(second)
    torch.testing.assert_close(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("height", [1, 2, 5, 32])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kernel", [3, 7])
def test_a_narrow_map_is_right_in_bf16(kernel: int, width: int, height: int):
    """With nn.Conv2d, result and gradient are NaN or 1e37 on a CPU that computes in bf16."""
    torch.manual_seed(0)
    conv = Conv2d(16, 32, kernel, 2, kernel // 2, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(2, 16, height, width).to(memory_format=torch.channels_last)
    gradients, results = [], []
    for bf16 in (False, True, True):
        junk = [torch.full((1 << 16,), float("nan")) for _ in range(3)]  # what an uninitialised buffer would hold
        del junk
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            result = conv(images).float()
        result.square().sum().backward()
        gradients.append(conv.weight.grad.clone())
        results.append(result.detach())
    for wanted, *found in (gradients, results):
        for each in found:
            torch.testing.assert_close(each, wanted, atol=0.05 * float(wanted.abs().max()), rtol=0)
