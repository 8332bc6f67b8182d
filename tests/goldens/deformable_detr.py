"""Run the authors' Deformable DETR, and store its numbers for tests/detr_job/models/test_deformable_detr_golden.py.

    git clone https://github.com/fundamentalvision/Deformable-DETR /tmp/Deformable-DETR
    git -C /tmp/Deformable-DETR checkout 11169a60c33333af00a4849f1808023eba96a931
    python -m tests.goldens.deformable_detr /tmp/Deformable-DETR

Nothing is installed or compiled: the authors' own function in PyTorch stands for their CUDA code. Weights and images
come from a formula. Numbers are computed in float64, the losses in float32.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import Tensor

from detr_job.models.outputs import Outputs
from tests.detr_job.golden import BOXES, padded_pair, wave

FILE = Path(__file__).with_suffix(".json")
CLASSES, LAYERS, QUERIES, TOKENS = 7, 3, 20, 50
LABELS = (3, 1, 6, 0)
SIZES = ((480, 640), (300, 200))
CASES: dict[str, dict[str, Any]] = {
    "multi-scale": {},
    "single-scale": {"levels": 1},
    "refine": {"refine": True},
    "two-stage": {"refine": True, "two_stage": True},
}
"""The keys of our configuration that differ from the preset `deformable-detr-r50`."""
THEIRS = {"levels": "num_feature_levels", "refine": "with_box_refine", "two_stage": "two_stage"}


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A tensor for each name, by the formula of `tests.detr_job.golden.fill`, in float64."""
    found = {}
    for number, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        count = torch.Size(shape).numel()
        if name.endswith("running_mean"):
            values = torch.zeros(shape)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = torch.ones(shape)
        else:
            scale = 0.1 if len(shape) == 1 else (3 * shape[0] / count) ** 0.5
            values = (wave(count, number) * scale).reshape(shape)
        found[name] = values.double()
    return found


def tied(weights: Mapping[str, Tensor], *, refine: bool) -> dict[str, Tensor]:
    """Equal tensors under all names of a head, those of the first name in the order of the alphabet."""
    found = dict(weights)
    for name in found:
        first = name.removeprefix("transformer.decoder.") if "_embed." in name else name
        if not refine and first.startswith(("class_embed.", "bbox_embed.")):
            head, _, rest = first.split(".", 2)
            first = f"{head}.0.{rest}"
        found[name] = weights[first]
    return found


def outputs(tokens: int = QUERIES, layers: int = LAYERS) -> Outputs:
    """Made-up outputs for two images: (layers, 2, tokens, …)."""
    count = layers * 2 * tokens
    logits = (2 * wave(count * CLASSES, tokens)).reshape(layers, 2, tokens, CLASSES)
    boxes = (1.5 * wave(count * 4, tokens + 1)).reshape(layers, 2, tokens, 4).sigmoid()
    return Outputs(logits.float(), boxes.float())


def short(values: Tensor) -> dict[str, Any]:
    """A few of the values, their mean and their deviation."""
    flat = values.detach().double().flatten()
    picked = flat[:: max(1, len(flat) // 12)][:12]
    return {"some": picked.tolist(), "mean": flat.mean().item(), "std": flat.std().item()}


def authors(repository: Path) -> Any:
    """Their module `models`, which needs an older torchvision, a compiled extension and ImageNet weights to import."""
    sys.path.insert(0, str(repository))
    sys.modules["MultiScaleDeformableAttention"] = ModuleType("MultiScaleDeformableAttention")
    torchvision.__version__ = "0.9"
    resnet50 = torchvision.models.resnet50

    def untrained(*, pretrained: bool, **options: Any) -> Any:
        del pretrained
        return resnet50(weights=None, **options)

    torchvision.models.resnet50 = untrained
    import models  # type: ignore[import-not-found]
    from models.ops.functions import ms_deform_attn_func as function  # type: ignore[import-not-found]
    from models.ops.modules import ms_deform_attn as module  # type: ignore[import-not-found]

    class InPyTorch:
        @staticmethod
        def apply(value: Tensor, shapes: Tensor, _: Tensor, places: Tensor, weights: Tensor, __: int) -> Tensor:
            sampled: Tensor = function.ms_deform_attn_core_pytorch(value, shapes, places.to(value.dtype), weights)
            return sampled

    module.MSDeformAttnFunction = InPyTorch
    return models


def arguments(**more: Any) -> Namespace:
    """The authors' defaults (main.py)."""
    known = {"dataset_file": "coco", "device": "cpu", "masks": False, "frozen_weights": None, "aux_loss": True}
    backbone = {"backbone": "resnet50", "dilation": False, "lr_backbone": 2e-5, "position_embedding": "sine"}
    transformer = {"enc_layers": 6, "dec_layers": 6, "dim_feedforward": 1024, "hidden_dim": 256, "dropout": 0.1}
    attention = {"nheads": 8, "num_queries": 300, "dec_n_points": 4, "enc_n_points": 4, "num_feature_levels": 4}
    kind = {"with_box_refine": False, "two_stage": False, "focal_alpha": 0.25}
    costs = {"set_cost_class": 2, "set_cost_bbox": 5, "set_cost_giou": 2}
    losses = {"cls_loss_coef": 2, "bbox_loss_coef": 5, "giou_loss_coef": 2}
    return Namespace(**known | backbone | transformer | attention | kind | costs | losses | more)


def predictions(models: Any, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one kind of model."""
    from util.misc import NestedTensor  # type: ignore[import-not-found]

    model, _, _ = models.build_model(arguments(**{THEIRS[key]: value for key, value in keys.items()}))
    names = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model = model.double().eval()
    model.load_state_dict(tied(filled(names), refine="refine" in keys))
    images, mask = padded_pair()
    with torch.no_grad():
        found = model(NestedTensor(images.double(), mask))
    numbers = {
        "tensors": len(names),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "first layer": short(found["aux_outputs"][0]["pred_logits"]),
        "first boxes": short(found["aux_outputs"][0]["pred_boxes"]),
        "logits": short(found["pred_logits"]),
        "boxes": short(found["pred_boxes"]),
    }
    if "enc_outputs" in found:
        numbers |= {f"encoder {each}": short(found["enc_outputs"][f"pred_{each}"]) for each in ("logits", "boxes")}
    return numbers


def losses(models: Any) -> dict[str, Any]:
    """Losses, gradients and detections of the made-up outputs."""
    _, criterion, post = models.build_model(arguments(two_stage=True, with_box_refine=True, dec_layers=LAYERS))
    layers, encoder = outputs(), outputs(TOKENS, 1)
    tensors = (layers.logits, layers.boxes, encoder.logits, encoder.boxes)
    for each in tensors:
        each.requires_grad_()
    records = [
        {"pred_logits": logits, "pred_boxes": boxes}
        for logits, boxes in zip((*layers.logits, *encoder.logits), (*layers.boxes, *encoder.boxes), strict=True)
    ]
    labels, wanted = torch.tensor(LABELS), torch.tensor(BOXES)
    targets = [{"labels": labels[:3], "boxes": wanted[:3]}, {"labels": labels[3:], "boxes": wanted[3:]}]
    criterion.num_classes = CLASSES
    terms = criterion(
        {**records[LAYERS - 1], "aux_outputs": records[: LAYERS - 1], "enc_outputs": records[-1]}, targets
    )
    total = sum(weight * terms[name] for name, weight in criterion.weight_dict.items())
    total.backward()
    found = post["bbox"](records[LAYERS - 1], torch.tensor(SIZES))
    return {
        "losses": {name: terms[name].item() for name in criterion.weight_dict} | {"total": total.item()},
        "gradients": [short(each.grad) for each in tensors],
        "detections": {name: short(found[1][name].double()) for name in ("scores", "labels", "boxes")},
    }


def main() -> None:
    models = authors(Path(sys.argv[1]))
    numbers = {name: predictions(models, keys) for name, keys in CASES.items()} | losses(models)
    FILE.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
