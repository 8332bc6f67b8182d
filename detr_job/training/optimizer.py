"""AdamW with few parameter groups, and the learning rate schedule."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from detr_job.family import usual_rate
from run_config.job.config import Optimizer, Schedule


class EagerAdamW(torch.optim.AdamW):
    """torch's AdamW without the wrappers for torch.compile, which is not used here.

    The wrappers change no result, but the first call of each imports the compiler, which would make every
    start of the job more than a second slower.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimizer(
    network: nn.Module, settings: Optimizer, rate_of: Callable[[str, Optimizer], float] = usual_rate
) -> torch.optim.AdamW:
    """One group per pair of rate and decay, instead of one per tensor, so that a step is a few fused kernels."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = rate_of(name, settings)
            decay = settings.weight_decay if settings.decay_vectors or parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return EagerAdamW(
        [
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=settings.betas,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict, each tensor in the memory layout of its parameter.

    The fused kernel reads parameter and state in memory order and ignores strides, but a checkpoint stores
    everything in the default layout.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def rate_factor(schedule: Schedule, progress: float) -> float:
    """The factor for the base rates at `progress`, which is 0 at the first step and 1 after the last."""
    if progress < schedule.warmup:
        # A rate of 0 would waste the first step of a run.
        return max(progress / schedule.warmup, 0.01)
    if schedule.kind == "cosine":
        done = (progress - schedule.warmup) / (1 - schedule.warmup)
        return schedule.final_lr + (1 - schedule.final_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if schedule.kind == "step":
        # 200 of 300 epochs and 2/3 of the run differ in the last digits.
        return schedule.drop_factor ** sum(progress >= point - 1e-9 for point in schedule.drop_at)
    return 1.0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
