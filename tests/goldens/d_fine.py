"""Run the authors' D-FINE and store its numbers in d_fine.json, for tests/detr_job/models/test_d_fine_golden.py.

    git clone https://github.com/Peterande/D-FINE /tmp/D-FINE
    git -C /tmp/D-FINE checkout 4a1f73a8bcfac736a88abde9596d87f116d780a7
    python -m tests.goldens.d_fine /tmp/D-FINE

Nothing is installed: the parts of that repository that are needed import only torch, torchvision and scipy. Weights,
images and noise come from a formula, so that only a few numbers are stored. They are computed in float64, but the
losses in float32, because the authors' losses do not run in float64.
"""

import hashlib
import json
import sys
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from published_weights.names.d_fine import own_names
from tests.detr_job.golden import BOXES, wave

FILE = Path(__file__).with_name("d_fine.json")
CLASSES, SIZE = 5, 128
LABELS = (3, 1, 4, 2)
COUNTS = (3, 1)
SIZES = {"nano": "n", "small": "s", "medium": "m", "large": "l", "extra-large": "x"}
# The small network whose numbers are stored, in the words of the authors' configuration.
ENCODER = {"hidden_dim": 64, "nhead": 4, "dim_feedforward": 96, "expansion": 0.5, "depth_mult": 0.34}
DECODER = {"hidden_dim": 32, "nhead": 4, "dim_feedforward": 80, "num_layers": 3, "num_queries": 20, "num_denoising": 9}


def fill(network: nn.Module) -> None:
    """Overwrite every tensor but the constants, by a formula from its name and shape."""
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or name.rpartition(".")[2] in ("num_points_scale", "up", "reg_scale"):
            continue
        values = wave(tensor.numel(), zlib.crc32(name.encode()) % 1000)
        if name.endswith("running_var"):
            values = 1 + 0.3 * values
        elif name.endswith("lab.scale") or (tensor.dim() == 1 and name.endswith("weight")):
            values = 1 + 0.2 * values
        elif tensor.dim() <= 1:
            values = 0.1 * values
        else:
            values = values * (3 / (tensor.numel() // tensor.shape[0])) ** 0.5
        tensor.copy_(values.reshape(tensor.shape))


def pictures() -> Tensor:
    """(2, 3, 128, 128), pixels in 0…1."""
    return 0.5 * wave(2 * 3 * SIZE * SIZE, 1001).reshape(2, 3, SIZE, SIZE) + 0.5


def uniform(shape: tuple[int, ...], number: int) -> Tensor:
    """Noise in 0…1."""
    return 0.5 * wave(torch.Size(shape).numel(), number).reshape(shape) + 0.5


def layout(state: Mapping[str, Tensor]) -> str:
    """A digest of the names and shapes of tensors."""
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def summary(values: Tensor) -> dict[str, Any]:
    """A few numbers that show whether a tensor is the same."""
    flat = values.flatten()
    chosen = flat[:: max(flat.numel() // 16, 1)][:16]
    return {"shape": list(values.shape), "sum": flat.sum().item(), "size": flat.norm().item(), "some": chosen.tolist()}


def authors(repository: Path) -> SimpleNamespace:
    """The modules of the repository, without those that it would load beside them."""
    for name in ("src", "src.core", "src.nn", "src.nn.backbone", "src.zoo", "src.misc", "src.misc.dist_utils"):
        module = ModuleType(name)
        module.__path__ = [str(repository / name.replace(".", "/"))]
        sys.modules[name] = module
    sys.modules["src.core"].register = lambda *_, **__: lambda decorated: decorated  # type: ignore[attr-defined]
    dist = sys.modules["src.misc.dist_utils"]
    dist.get_world_size = lambda: 1  # type: ignore[attr-defined]
    dist.is_dist_available_and_initialized = lambda: False  # type: ignore[attr-defined]
    names = ("decoder", "hybrid_encoder", "dfine_criterion", "matcher", "denoising", "dfine")
    found = {name: import_module(f"src.zoo.dfine.{name.replace('decoder', 'dfine_decoder')}") for name in names}
    return SimpleNamespace(hgnetv2=import_module("src.nn.backbone.hgnetv2"), **found)


def published(modules: SimpleNamespace, repository: Path, letter: str) -> nn.Module:
    """The network of a size, as its configuration file describes it, on the meta device."""
    folder = repository / "configs/dfine"
    settings = yaml.safe_load((folder / "include/dfine_hgnetv2.yml").read_text())
    for part, values in yaml.safe_load((folder / f"dfine_hgnetv2_{letter}_coco.yml").read_text()).items():
        settings[part] = {**settings.get(part, {}), **values} if isinstance(values, dict) else values
    space = settings["eval_spatial_size"]
    return network(
        modules,
        {**settings["HGNetv2"], "pretrained": False},
        {**settings["HybridEncoder"], "eval_spatial_size": space},
        {**settings["DFINETransformer"], "eval_spatial_size": space},
    )


def network(modules: SimpleNamespace, backbone: dict, encoder: dict, decoder: dict) -> nn.Module:
    """Backbone, encoder and decoder in one."""
    backbone = {key: value for key, value in backbone.items() if key != "local_model_dir"}
    return modules.dfine.DFINE(
        modules.hgnetv2.HGNetv2(**backbone),
        modules.hybrid_encoder.HybridEncoder(**encoder),
        modules.decoder.DFINETransformer(**decoder),
    )


def small_network(modules: SimpleNamespace) -> nn.Module:
    """The network whose numbers are stored."""
    backbone = {"name": "B0", "use_lab": True, "freeze_at": -1, "freeze_norm": False, "pretrained": False}
    decoder = {**DECODER, "num_classes": CLASSES, "feat_channels": [64, 64, 64], "num_points": [3, 6, 3]}
    return network(modules, backbone, {**ENCODER, "in_channels": [256, 512, 1024]}, decoder)


class FixedNoise:
    """torch, for the authors' denoising, with noise from the formula; the calls come in this order."""

    def __init__(self) -> None:
        self.number = 2000

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def _next(self, like: Tensor) -> Tensor:
        self.number += 1
        return uniform(tuple(like.shape), self.number).float()

    def rand_like(self, like: Tensor, **_: Any) -> Tensor:
        return self._next(like)

    def randint_like(self, like: Tensor, low: int, high: int, dtype: torch.dtype | None = None) -> Tensor:
        return (low + (high - low) * self._next(like)).floor().to(dtype or like.dtype)


def main(repository: Path) -> None:
    """Write the file."""
    modules = authors(repository)
    golden: dict[str, Any] = {"layouts": {}}
    for size, letter in SIZES.items():
        state = published(modules, repository, letter).state_dict()
        golden["layouts"][size] = {"tensors": len(state), "digest": layout(own_names(state, torch.cat))}
    whole = small_network(modules).double()
    with torch.no_grad():
        fill(whole)
    whole.eval()
    seen: dict[str, Tensor] = {}
    whole.decoder.enc_score_head.register_forward_hook(lambda *arguments: seen.update(scores=arguments[2]))
    with torch.no_grad():
        found = whole(pictures())
    golden["forward"] = {
        "before top-k": summary(seen["scores"]),
        "logits": summary(found["pred_logits"]),
        "boxes": summary(found["pred_boxes"]),
    }
    golden["losses"] = losses(modules, whole.float().train())
    FILE.write_text(json.dumps(golden, indent=1) + "\n")


def losses(modules: SimpleNamespace, whole: nn.Module) -> dict[str, float]:
    """The authors' weighted terms, and the length of the gradient."""
    modules.denoising.torch = FixedNoise()
    boxes, labels = torch.tensor(BOXES).split(COUNTS), torch.tensor(LABELS).split(COUNTS)
    targets = [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]
    costs = {"cost_class": 2, "cost_bbox": 5, "cost_giou": 2}
    criterion = modules.dfine_criterion.DFINECriterion(
        modules.matcher.HungarianMatcher(costs, use_focal_loss=True),
        {"loss_vfl": 1, "loss_bbox": 5, "loss_giou": 2, "loss_fgl": 0.15, "loss_ddf": 1.5},
        ["vfl", "boxes", "local"],
        alpha=0.75,
        num_classes=CLASSES,
    )
    terms = criterion(whole(pictures().float(), targets), targets)
    total = sum(terms.values())
    total.backward()
    gradients = [parameter.grad for parameter in whole.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    return {name: term.item() for name, term in terms.items()} | {"total": total.item(), "gradient": norm}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
