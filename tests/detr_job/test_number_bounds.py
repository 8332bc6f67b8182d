"""Every number of the configuration has two bounds, and the job works at both of them."""

import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic.fields import FieldInfo

from detr_job.data.augmentation import Sample, augment, resized_size
from detr_job.data.batches import step_seed
from detr_job.family import build_family
from detr_job.models.outputs import Targets
from detr_job.training.ema import MovingAverage
from detr_job.training.optimizer import build_optimizer, rate_factor, set_rates
from run_config.errors import ConfigError
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.job.keys import Key, keys, limits_of
from run_config.job.limits import Limits
from run_config.job.presets import load_job_config
from run_config.wording import plural
from tests.detr_job.training_runs import Run

SMALL = {
    "model.hidden_dim": 32,
    "model.feedforward_dim": 64,
    "model.queries": 5,
    "data.min_sizes": "[64]",
    "data.max_size": 96,
    "schedule.steps": 4,
}
PRESETS: dict[str, tuple[str, dict[str, object]]] = {
    "tiny": ("tiny", {}),
    "detr": ("detr-r18", {}),
    "d_fine": (
        "d-fine-nano",
        {
            "model.encoder_dim": 32,
            "model.encoder_feedforward_dim": 64,
            "model.fusion_dim": 8,
            "model.points": "[2,2]",
            "model.decoder_layers": 2,
            "model.bins": 8,
            "model.denoising_queries": 8,
        },
    ),
    "deformable_detr": ("deformable-detr-r50-two-stage", {"model.backbone": "resnet18", "model.encoder_layers": 1}),
    "faster_rcnn": ("faster-rcnn-mobilenet", {}),
    "rf_detr": (
        "rf-detr-nano",
        {
            "model.backbone_dim": 24,
            "model.backbone_heads": 2,
            "model.backbone_layers": 4,
            "model.position_cells": 6,
            "model.heads": 4,
            "model.cross_heads": 4,
            "model.groups": 2,
        },
    ),
}
EVERY_FAMILY = ("loss", "optimizer")
"""Sections whose numbers each family reads on its own."""
TIED: dict[str, tuple[str, int]] = {
    "model.heads": ("model.hidden_dim", 4),
    "model.cross_heads": ("model.hidden_dim", 4),
    "model.backbone_heads": ("model.backbone_dim", 1),
}
"""Keys whose value a second key must be a multiple of: the second key, and the factor."""
SMALLEST = {"model.hidden_dim": 32, "model.encoder_dim": 32, "model.backbone_dim": 2, "model.backbone_layers": 4}
"""Keys that must be a multiple of another number: their smallest value here, where their minimum is refused."""


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


class Case(typing.NamedTuple):
    """A number of the configuration, and the family whose model it is tried with."""

    key: Key
    kind: type
    limits: Limits
    family: str

    def __str__(self) -> str:
        return f"{self.family}-{self.key.name}"


def cases() -> Iterator[Case]:
    for key in keys():
        section = key.name.partition(".")[0]
        families = (key.family,) if key.family else tuple(PRESETS) if section in EVERY_FAMILY else ("tiny",)
        for kind, limits in [*numbers(key.field.annotation, key.field.metadata)][:1]:
            yield from (Case(key, kind, limits, family) for family in families)


CASES = [*cases()]


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


def configured(case: Case, value: float) -> JobConfig:
    """A small job with this value, in each place of a list. Other keys follow if a rule ties them to it."""
    key = case.key
    preset, small = PRESETS[case.family]
    fields = FAMILIES[case.family].model_fields
    shared = {name: value for name, value in SMALL.items() if name.removeprefix("model.") in fields or "data" in name}
    options = shared | {"schedule.steps": SMALL["schedule.steps"]} | small
    if isinstance(key.default, tuple):
        endless = Ellipsis in typing.get_args(key.field.annotation)
        given = yaml.safe_load(str(options.get(key.name, "[0]")))
        places = len(given) if endless else len(key.default)
        options[key.name] = f"[{','.join([repr(value)] * places)}]"
    else:
        options[key.name] = repr(value)
    if key.name in TIED:
        width, factor = TIED[key.name]
        options[width] = factor * int(value)
        if (case.family, width) == ("deformable_detr", "model.hidden_dim"):
            options[width] = max(32, factor * int(value))  # also a multiple of the groups of its norms
        if (case.family, width) == ("d_fine", "model.hidden_dim"):
            options["model.encoder_dim"] = options[width]
    if (case.family, key.name, value) == ("detr", "model.dropout", 1):
        # With post-norm, the norms get zeros and multiply gradients by 316 each (1 / sqrt(epsilon)): after the
        # norms of a few layers they are not finite, and training says so (NotFinite).
        options["model.pre_norm"] = "true"
    return load_job_config(preset, [f"{name}={given}" for name, given in options.items()])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_number_has_two_bounds_and_nothing_beyond_them_is_accepted(case: Case):
    key = case.key
    for kind, limits in numbers(key.field.annotation, key.field.metadata):
        low, high = at_end(kind, limits, "low"), at_end(kind, limits, "high")
        assert low < high
        apart = 2 if key.name == "model.bins" else 1  # an even number
        below = low - apart if kind is int else float(np.nextafter(low, -1))
        above = high + apart if kind is int else float(np.nextafter(high, np.inf))
        for beyond in (below, above):
            with pytest.raises(ConfigError, match=rf"{key.name}.* must be .*(above|at least|below|at most)"):
                configured(case, beyond)


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_job_works_at_both_ends(case: Case, end: str):
    key, kind, limits, _ = case
    value = at_end(kind, limits, end)
    if end == "low" and key.name in SMALLEST and case.family != "faster_rcnn":  # which has no such rule
        with pytest.raises(ConfigError, match="must be a multiple of"):
            configured(case, value)
        value = SMALLEST[key.name]
    config = configured(case, value)
    section = key.name.partition(".")[0]
    if section in ("loss", "optimizer", "training") or (section == "model" and (end == "low" or kind is float)):
        step(config, with_average=section in ("model", "training"))
    elif section == "model":
        with torch.device("meta"):  # also networks that fit into no memory
            assert build_family(config, 2).network.state_dict()
    if section == "data":
        images(config)
    if section == "schedule":
        factors = [rate_factor(config.schedule, progress) for progress in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)]
        assert all(0 <= factor <= 1 for factor in factors)


def step(config: JobConfig, *, with_average: bool) -> None:
    """A training step, and the weights after it are numbers."""
    torch.manual_seed(step_seed(config.training.seed, 0) % 2**31)
    family = build_family(config, 2)
    network = family.network.train()
    optimizer = build_optimizer(network, config.optimizer, family.rate)
    average = MovingAverage(network, config.training.ema_decay) if with_average else None
    targets = Targets(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]]), (1, 1))
    set_rates(optimizer, rate_factor(config.schedule, 0.5))
    generator = torch.Generator()
    losses = family.losses(network, torch.randn(2, 3, 64, 96), None, targets, num_boxes=2, generator=generator)
    losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if config.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
    optimizer.step()
    tensors = [*network.state_dict().values(), losses.total]
    if average is not None:
        average.update(network, 0)
        tensors += average.network.state_dict().values()
    assert all(torch.isfinite(each).all() for each in tensors)


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
    assert f"done: {plural(ENDS[end]['schedule.steps'], 'step')} in " in run.with_options(ENDS[end]).ends().says()
