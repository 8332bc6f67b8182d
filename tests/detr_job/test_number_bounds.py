"""Every number of the configuration has two bounds, and the job works at both of them."""

import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic.fields import FieldInfo

from detr_job.data.augmentation import Sample, augment, resized_size
from detr_job.data.batches import step_seed
from detr_job.family import build_family
from detr_job.models.outputs import Targets
from detr_job.training.ema import MovingAverage
from detr_job.training.optimizer import build_optimizer, rate_factor, set_rates
from run_config.errors import ConfigError
from run_config.job.config import JobConfig
from run_config.job.keys import Key, keys, limits_of
from run_config.job.limits import Limits
from run_config.job.presets import load_job_config
from tests.detr_job.training_runs import Run

SMALL = {
    "model.hidden_dim": 32,
    "model.feedforward_dim": 64,
    "model.queries": 5,
    "data.min_sizes": "[64]",
    "data.max_size": 96,
    "schedule.steps": 4,
}
PRESETS = {"detr": "detr-r18", "tiny": "tiny"}


def numbers(annotation: Any, constraints: Iterable[Any]) -> Iterator[tuple[type, Limits]]:
    """Type and bounds of each number in the annotation of a key."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner, *more = arguments
        fields = [each for field in more if isinstance(field, FieldInfo) for each in field.metadata]
        yield from numbers(inner, fields)
    elif origin in (typing.Union, types.UnionType, tuple):
        for part in arguments:
            yield from numbers(part, constraints if origin is not tuple else ())
    elif annotation in (int, float):
        yield annotation, limits_of(constraints)


CASES = [(key, *found[0]) for key in keys() if (found := [*numbers(key.field.annotation, key.field.metadata)])]


def named(case: tuple[Key, type, Limits]) -> str:
    return f"{case[0].family or 'all'}-{case[0].name}"


def at_end(kind: type, limits: Limits, end: str) -> float:
    """The largest or the smallest allowed value."""
    assert limits.minimum is not None
    assert limits.maximum is not None
    if kind is int:
        whole = limits.of_integers()
        return int(whole.minimum if end == "low" else whole.maximum)  # type: ignore[arg-type]  # never None here
    if end == "low":
        return float(np.nextafter(limits.minimum, 1)) if limits.above_minimum else limits.minimum
    return float(np.nextafter(limits.maximum, 0)) if limits.below_maximum else limits.maximum


def configured(key: Key, value: float) -> JobConfig:
    """A small job with this value, in each place of a list. Other keys follow if a rule ties them to it."""
    listed = isinstance(key.default, tuple)
    fixed = len(key.default) if listed and Ellipsis not in typing.get_args(key.field.annotation) else 1
    text = f"[{','.join([repr(value)] * fixed)}]" if listed else repr(value)
    options = SMALL | {key.name: text}
    if key.name == "model.heads":
        options["model.hidden_dim"] = 4 * int(value)
    return load_job_config(PRESETS[key.family or "tiny"], [f"{name}={given}" for name, given in options.items()])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_every_number_has_two_bounds_and_nothing_beyond_them_is_accepted(case: tuple[Key, type, Limits]):
    key = case[0]
    for kind, limits in numbers(key.field.annotation, key.field.metadata):
        low, high = at_end(kind, limits, "low"), at_end(kind, limits, "high")
        assert low < high
        below = low - 1 if kind is int else float(np.nextafter(low, -1))
        above = high + 1 if kind is int else float(np.nextafter(high, np.inf))
        for beyond in (below, above):
            with pytest.raises(ConfigError, match=rf"{key.name}.* must be .*(above|at least|below|at most)"):
                configured(key, beyond)


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_job_works_at_both_ends(case: tuple[Key, type, Limits], end: str):
    key, kind, limits = case
    value = at_end(kind, limits, end)
    if (key.name, end) == ("model.hidden_dim", "low"):
        with pytest.raises(ConfigError, match="must be a multiple of"):
            configured(key, value)
        value = 32
    config = configured(key, value)
    section = key.name.partition(".")[0]
    if section == "model":
        with torch.device("meta"):  # also networks that fit into no memory
            assert build_family(config, 2).network.state_dict()
    if (key.family, key.name, end) == ("detr", "model.dropout", "high"):
        return  # nothing is left of the activations: the gradients are not finite, and training says so (NotFinite)
    if section in ("loss", "optimizer", "training") or (section == "model" and (end == "low" or kind is float)):
        step(config)
    if section == "data":
        images(config)
    if section == "schedule":
        factors = [rate_factor(config.schedule, progress) for progress in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)]
        assert all(0 <= factor <= 1 for factor in factors)


def step(config: JobConfig) -> None:
    """A training step, and the weights after it are numbers."""
    torch.manual_seed(step_seed(config.training.seed, 0) % 2**31)
    family = build_family(config, 2)
    network = family.network.train()
    optimizer = build_optimizer(network, config.optimizer)
    average = MovingAverage(network, config.training.ema_decay)
    targets = Targets(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]]), (1, 1))
    set_rates(optimizer, rate_factor(config.schedule, 0.5))
    generator = torch.Generator()
    losses = family.losses(network, torch.randn(2, 3, 64, 96), None, targets, num_boxes=2, generator=generator)
    losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if config.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
    optimizer.step()
    average.update(network, 0)
    for each in (*network.state_dict().values(), *average.network.state_dict().values(), losses.total):
        assert torch.isfinite(each).all()


def images(config: JobConfig) -> None:
    """Augmented images have at least a pixel and boxes inside. Very large ones are only measured."""
    data = config.data
    sides = resized_size(3000, 2000, max(data.min_sizes), data.max_size) + resized_size(1, 9, data.eval_size, 9)
    assert min(sides) >= 1
    if max(sides) > 2000:
        return
    sample = Sample(
        torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8), torch.tensor([[5.0, 5, 30, 20]]), torch.tensor([1])
    )
    for recipe in ("affine", "published", "none"):
        settings = data.augmentation.model_copy(update={"recipe": recipe})
        for seed in range(8):
            rng = np.random.default_rng(seed)
            seen = augment(sample, data.model_copy(update={"augmentation": settings}), rng)
            height, width = seen.image.shape[1:]
            assert min(height, width) >= 1
            assert torch.isfinite(seen.boxes).all()
            assert (seen.boxes >= 0).all()
            assert (seen.boxes <= torch.tensor([width, height, width, height])).all()


ENDS = {
    "low": {"evaluation.interval": 0, "evaluation.batch_size": 1, "evaluation.patience": 0, "data.batch_size": 1}
    | {"checkpoints.interval": 0, "checkpoints.keep": 1, "training.log_interval": 1, "schedule.steps": 1},
    "high": {"evaluation.interval": 10**9, "evaluation.batch_size": 65_536, "evaluation.patience": 10**9}
    | {"checkpoints.interval": 10**9, "checkpoints.keep": 10**9, "training.log_interval": 10**9, "schedule.steps": 2}
    | {"data.batch_size": 65_536, "evaluation.min_delta": 1, "training.seed": 2**31 - 1, "optimizer.clip_norm": 1e9},
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_works_with_its_intervals_and_batches_at_the_ends(run: Run, end: str):
    assert f"done: {ENDS[end]['schedule.steps']} steps" in run.with_options(ENDS[end]).ends().says()
