"""The CPU's own linear map and dropout compute what PyTorch's do."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detr_job.models import layers
from detr_job.models.layers import Linear, dropout, linear


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


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (0, 4)])
def test_dropout_takes_any_size(shape: tuple[int, ...]):
    assert dropout(torch.ones(shape), 0.3, training=True).shape == shape


def test_dropout_does_nothing_in_evaluation():
    x = torch.randn(5, 5)
    assert dropout(x, 0.5, training=False) is x
