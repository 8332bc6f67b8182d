"""Rates and decays of parameter groups, the schedule over a run, and the moving average of weights."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from detr_job.family import build_family
from detr_job.training.ema import MovingAverage
from detr_job.training.optimizer import build_optimizer, rate_factor, restore_optimizer, set_rates
from run_config.families.registry import FAMILIES
from run_config.job.config import Optimizer, Schedule
from run_config.job.presets import load_job_config
from tests.detr_job.pictures import small_config


def groups(family: str, **options: object) -> dict[str, tuple[float, float]]:
    """Rate and decay of each trained parameter by name."""
    config = small_config(family, **{f"optimizer.{key}": value for key, value in options.items()})
    built = build_family(config, 3)
    names = {id(parameter): name for name, parameter in built.network.named_parameters()}
    optimizer = build_optimizer(built.network, config.optimizer, built.rate)
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


BACKBONES = {"rf_detr": "backbone.0.encoder.", "faster_rcnn": "backbone.body."}
"""How names of the backbone's parameters begin, where the rest of `backbone.` has the rate of the other layers."""
LOWER: dict[str, tuple[float, ...]] = {"rf_detr": (0.7,), "deformable_detr": (0.1,)}
"""Fractions of the rate that some layers outside the backbone have."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backbone_has_its_own_rate_and_everything_is_in_one_group(family: str):
    found = groups(family, lr=1e-3, lr_backbone=1e-5, decay_vectors="true", weight_decay=0.02)
    network = build_family(small_config(family), 3).network
    assert found.keys() == {name for name, each in network.named_parameters() if each.requires_grad}
    for name, (rate, decay) in found.items():
        if not name.startswith(BACKBONES.get(family, "backbone.")):
            assert rate in [1e-3, *(pytest.approx(1e-3 * part) for part in LOWER.get(family, ()))], name
        elif family == "rf_detr":
            assert 1e-5 * 0.8**6 <= rate <= 1e-5, name  # lower from layer to layer
        else:
            assert rate == 1e-5, name
        assert decay == 0.02


def test_vectors_are_decayed_only_where_it_is_asked_for():
    found = groups("tiny", decay_vectors="false", weight_decay=0.02)
    assert found["fusion.encoder.0.norm1.weight"][1] == found["enc_class_embed.bias"][1] == 0
    assert found["fusion.encoder.0.linear1.weight"][1] == found["backbone.stem.0.0.weight"][1] == 0.02
    # what DETR published decays is everything
    assert set(groups("detr", decay_vectors="true").values()) == {(1e-4, 1e-4), (1e-5, 1e-4)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_at_rate_0_is_frozen(family: str):
    backbone = BACKBONES.get(family, "backbone.")
    assert not [name for name in groups(family, lr_backbone=0) if name.startswith(backbone)]
    network = build_family(small_config(family, **{"optimizer.lr_backbone": 0}), 3).network
    assert not [name for name, each in network.named_parameters() if each.requires_grad and backbone in name]
    assert any(each.requires_grad for each in network.parameters())


def test_a_family_sets_the_rates_of_its_layers_and_freezes_what_has_none():
    found = groups("rf_detr", lr=1e-3, lr_backbone=1e-4, weight_decay=0.02)
    layer = "backbone.0.encoder.encoder.encoder.layer.{}.mlp.fc1.weight"
    assert found[layer.format(3)] == (pytest.approx(1e-4 * 0.8**2), 0.02)
    assert found[layer.format(0)] == (pytest.approx(1e-4 * 0.8**5), 0.02)
    assert found["transformer.decoder.layers.0.linear1.weight"] == (pytest.approx(7e-4), 0.02)
    assert found["backbone.0.projector.stages.0.1.weight"] == (1e-3, 0)
    frozen = groups("rf_detr", lr_backbone=0)
    assert not [name for name in frozen if name.startswith("backbone.0.encoder.")]
    assert "backbone.0.projector.stages.0.1.weight" in frozen


@pytest.mark.parametrize("family", FAMILIES)
def test_there_are_few_groups(family: str):
    rates = {"rf_detr": 9, "deformable_detr": 3}.get(family, 2)  # RF-DETR has rates for each layer of its backbone
    assert len(set(groups(family).values())) <= 2 * rates


def schedule(**values: object) -> Schedule:
    return Schedule.model_validate({"steps": 300, **values})


def test_a_step_schedule_drops_where_the_published_one_does():
    published = schedule()
    assert [rate_factor(published, step / 300) for step in (0, 199, 200, 299)] == [1, 1, pytest.approx(0.1), 0.1]
    twice = schedule(drop_at=(0.5, 0.75), drop_factor=0.5)
    assert [rate_factor(twice, step / 300) for step in (149, 150, 224, 225)] == [1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("epochs", [3, 150, 300, 299])
def test_two_thirds_of_a_run_is_a_whole_number_of_epochs_where_it_can_be(epochs: int):
    steps = [rate_factor(schedule(), step / epochs) for step in range(epochs)]
    assert steps.count(1.0) == math.ceil(epochs * 2 / 3 - 1e-6)


def test_warm_up_rises_and_never_starts_at_nothing():
    rising = schedule(kind="constant", warmup=0.1)
    factors = [rate_factor(rising, step / 300) for step in range(40)]
    assert factors == sorted(factors)
    assert factors[0] == 0.01
    assert factors[15] == pytest.approx(0.5)
    assert factors[30:] == [1.0] * 10


def test_a_cosine_begins_at_one_and_ends_at_its_end():
    cosine = schedule(kind="cosine", warmup=0.03, final_lr=0.02)
    assert rate_factor(cosine, 0.03) == 1
    assert rate_factor(cosine, 0.515) == pytest.approx(0.51)
    assert rate_factor(cosine, 1) == pytest.approx(0.02)
    assert rate_factor(cosine, 1.2) == pytest.approx(0.02)


@given(st.sampled_from(["step", "cosine", "constant"]), st.floats(0, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_a_factor_is_between_nothing_and_one(kind: str, warmup: float, final: float, progress: float):
    assert 0 <= rate_factor(schedule(kind=kind, warmup=warmup, final_lr=final), progress) <= 1 + 1e-12


def test_rates_are_always_the_base_rates_times_the_factor():
    optimizer = build_optimizer(nn.Sequential(nn.Linear(2, 2)), Optimizer(lr=0.1))
    for factor in (0.5, 1.0, 0.25):
        set_rates(optimizer, factor)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * factor)


def test_the_betas_of_a_preset_reach_torch():
    config = load_job_config("tiny")
    optimizer = build_optimizer(build_family(small_config("tiny"), 2).network, config.optimizer)
    assert all(tuple(group["betas"]) == (0.9, 0.99) for group in optimizer.param_groups)


def test_a_restored_optimiser_goes_on_as_the_first_would_have():
    """Weights in channels-last memory, the state from a file in plain memory."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 8, 8)
    settings = Optimizer(lr=0.05)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        network(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizer = build_optimizer(first, settings)
    for _ in range(3):
        step(first, optimizer)
    second = copy.deepcopy(first)
    restored = build_optimizer(second, settings)
    state = copy.deepcopy(optimizer.state_dict())
    for values in state["state"].values():
        for name, value in values.items():
            values[name] = value.contiguous()
    restore_optimizer(restored, state)
    step(first, optimizer)
    step(second, restored)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# The moving average -------------------------------------------------------------------------------


def test_the_average_moves_by_the_decay_which_grows_with_the_step():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, decay=0.9)
    nn.init.ones_(network.weight)
    expected = 0.0
    for step in range(200):
        average.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        assert float(average.network.weight) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(network.weight, torch.ones(1, 1))


def test_statistics_of_batch_norm_are_averaged_and_counters_copied():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = MovingAverage(network, decay=0.5)
    before = average.network[1].running_mean.clone()
    network.train()(torch.randn(8, 3, 4, 4) + 5)
    average.update(network, 100)
    wanted = 0.5 * before + 0.5 * network[1].running_mean
    assert torch.allclose(average.network[1].running_mean, wanted)
    assert int(average.network[1].num_batches_tracked) == int(network[1].num_batches_tracked) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_average_of_a_network_at_rest_is_the_network(family: str):
    network = build_family(small_config(family), 2).network.to(memory_format=torch.channels_last)
    average = MovingAverage(network, decay=0.99)
    for step in (0, 1, 5000):
        average.update(network, step)
    mine, theirs = average.network.state_dict(), network.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name
    assert not average.network.training
    assert not any(each.requires_grad for each in average.network.parameters())
    assert network.training


def test_the_average_shares_no_memory_with_the_network():
    network = build_family(small_config("detr"), 2).network
    average = MovingAverage(network, decay=0.99)
    mine = {each.data_ptr() for each in average.network.state_dict().values()}
    assert not mine & {each.data_ptr() for each in network.state_dict().values()}


def test_an_averaged_frozen_batch_norm_is_folded_anew():
    """The folded factors are kept; they must follow the weights that the average moves."""
    network = build_family(small_config("detr"), 2).network
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        network.eval()(image)
        average = MovingAverage(network, decay=0.0)
        network.backbone[0].body.bn1.running_mean.add_(0.5)
        average.update(network, 0)
        assert torch.allclose(average.network(image).boxes, network(image).boxes, atol=1e-5)


def test_a_loaded_average_is_the_one_that_moves_on():
    network = nn.Linear(2, 2)
    average = MovingAverage(network, decay=0.5)
    average.network.load_state_dict({name: torch.zeros_like(each) for name, each in network.state_dict().items()})
    average.update(network, 1000)
    assert torch.allclose(average.network.weight, network.weight / 2)


def test_the_optimiser_is_torchs_bit_for_bit():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    theirs = copy.deepcopy(ours)
    settings = Optimizer(lr=0.02)
    optimizer = build_optimizer(ours, settings)
    groups = [{**group, "params": []} for group in optimizer.param_groups]
    twins = dict(zip(ours.parameters(), theirs.parameters(), strict=True))
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        group["params"] = [twins[parameter] for parameter in own["params"]]
    plain = torch.optim.AdamW(groups, betas=settings.betas, fused=True)
    for _ in range(5):
        images = torch.randn(4, 3)
        for network, one in ((ours, optimizer), (theirs, plain)):
            network(images).square().sum().backward()
            one.step()
            one.zero_grad(set_to_none=True)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert optimizer.state_dict()["param_groups"] == plain.state_dict()["param_groups"]
