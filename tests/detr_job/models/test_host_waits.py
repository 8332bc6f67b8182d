"""In a training step the host waits for the device once: for the costs that the matcher needs."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detr_job.family import build_family
from detr_job.models.outputs import Targets
from detr_job.training.optimizer import build_optimizer
from run_config.families.registry import FAMILIES
from tests.detr_job.pictures import small_config

WAITING = (
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "is_nonzero", "equal"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave.Tensor"),
)
"""Operators whose result, or its shape, the host must know."""


class Waits(TorchDispatchMode):
    """Counts these operators, and indexing with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        masks = name.startswith("index") and any(
            each is not None and each.dtype == torch.bool
            for each in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if name in WAITING or name.partition(".")[0] in WAITING or masks:
            self.seen[name] += 1
        return func(*args, **kwargs or {})


# torchvision's Faster R-CNN selects its proposals on the host
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"faster_rcnn"}))
def test_a_step_waits_only_for_the_costs_of_the_matcher(name: str, monkeypatch: pytest.MonkeyPatch):
    config = small_config(name)
    family = build_family(config, 3)
    family.network.train()
    optimizer = build_optimizer(family.network, config.optimizer, family.rate)
    boxes = torch.tensor([(0.3, 0.3, 0.2, 0.2), (0.7, 0.6, 0.3, 0.4), (0.5, 0.5, 0.5, 0.4)])
    targets = Targets(torch.tensor([0, 1, 2]), boxes, (2, 1))
    images, mask = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, :, 60:] = True
    copies: Counter[str] = Counter()
    for method in ("cpu", "item", "tolist", "__bool__", "__int__", "__float__"):
        original = getattr(Tensor, method)

        def counted(self: Tensor, *rest: Any, method: str = method, original: Any = original) -> Any:
            copies[method] += 1
            return original(self, *rest)

        monkeypatch.setattr(Tensor, method, counted)
    with Waits() as waits:
        losses = family.losses(
            family.network, images, mask, targets, num_boxes=3.0, generator=torch.Generator().manual_seed(3)
        )
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(family.network.parameters(), 0.1, foreach=True)
        optimizer.step()
    assert copies == {"cpu": 1}
    assert waits.seen == {}
