"""Make tests/goldens/rf_detr.json: what the authors' program (the wheel rfdetr) computes with weights from a formula.

    python -m tests.goldens.rf_detr

The wheel is installed into a temporary folder, and runs with the torch and transformers of this environment.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_job.models.outputs import Outputs
from tests.detr_job.golden import BOXES, fill, padded_pair, wave

FILE = Path(__file__).with_suffix(".json")
WHEELS = ("rfdetr==1.11.2", "supervision==0.31.2", "pyDeprecate==0.14.0")
SIZE = 384
GROUPS, QUERIES, CLASSES, LAYERS = 13, 20, 7, 3
RATES = (
    "backbone.0.encoder.encoder.embeddings.position_embeddings",
    "backbone.0.encoder.encoder.encoder.layer.0.norm1.weight",
    "backbone.0.encoder.encoder.encoder.layer.11.mlp.fc1.weight",
    "backbone.0.encoder.encoder.layernorm.weight",
    "backbone.0.projector.stages.0.1.weight",
    "transformer.decoder.layers.1.linear1.weight",
    "transformer.enc_output.3.weight",
    "class_embed.weight",
    "refpoint_embed.weight",
)


def image() -> Tensor:
    """(1, 3, 384, 384), float64."""
    return wave(3 * SIZE * SIZE, 1001).reshape(1, 3, SIZE, SIZE)


def small_pair() -> tuple[Tensor, Tensor]:
    """A padded batch with other sizes than the published one, float64."""
    images, mask = padded_pair()
    larger = torch.nn.functional.interpolate(images.double(), scale_factor=2)
    mask = torch.nn.functional.interpolate(mask[:, None].double(), scale_factor=2)[:, 0].bool()
    return larger, mask


def outputs() -> Outputs:
    """Made-up outputs of all layers and groups for two images: (layers * groups, 2, queries, …)."""
    shape = (LAYERS * GROUPS, 2, QUERIES)
    count = LAYERS * GROUPS * 2 * QUERIES
    logits = (2 * wave(count * CLASSES, 1)).reshape(*shape, CLASSES)
    boxes = (1.5 * wave(count * 4, 2)).reshape(*shape, 4).sigmoid()
    return Outputs(logits.float(), boxes.float())


LABELS = (3, 1, 6, 0)
SIZES = ((480, 640), (300, 200))


def short(values: Tensor) -> dict[str, Any]:
    """A few of the values, their mean and their deviation."""
    flat = values.detach().double().flatten()
    picked = flat[:: max(1, len(flat) // 12)][:12]
    return {"some": picked.tolist(), "mean": flat.mean().item(), "std": flat.std().item()}


def authors() -> dict[str, Any]:
    """All numbers, computed by the authors' program."""
    from rfdetr.config import RFDETRNanoConfig, TrainConfig  # type: ignore[import-not-found]
    from rfdetr.models.lwdetr import (  # type: ignore[import-not-found]
        build_criterion_from_config,
        build_model_from_config,
    )
    from rfdetr.utilities.tensors import NestedTensor  # type: ignore[import-not-found]

    config = RFDETRNanoConfig(device="cpu", pretrain_weights="none")
    training = TrainConfig(dataset_dir=".", output_dir=".")
    model = build_model_from_config(config).eval()
    tensors = len(model.state_dict())
    del model._buffers["_kp_active_mask"]  # published files do not have it
    fill(model)
    found: dict[str, Any] = {"tensors": tensors}
    rates = argparse.Namespace(**{**training.model_dump(), **config.model_dump()})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = _module("training/param_groups.py").get_param_dict(rates, model)
    by_name = {names[id(each)]: group["lr"] for group in groups for each in group["params"]}
    found["rates"] = {name: by_name[name] for name in RATES}
    model.double()
    whole = NestedTensor(image(), torch.zeros(1, SIZE, SIZE, dtype=torch.bool))
    for name, batch in (("published size", whole), ("padded", NestedTensor(*small_pair()))):
        with torch.no_grad():
            features = model.backbone(batch)[0][0].tensors
            result = model(batch)
        found[name] = {
            "features": short(features),
            "selected logits": short(result["enc_outputs"]["pred_logits"]),
            "selected boxes": short(result["enc_outputs"]["pred_boxes"]),
            "first layer": short(result["aux_outputs"][0]["pred_logits"]),
            "logits": short(result["pred_logits"]),
            "boxes": short(result["pred_boxes"]),
        }
    found["losses"], found["gradients"], found["detections"] = _losses(
        *build_criterion_from_config(config.model_copy(update={"num_classes": CLASSES - 1}), training)
    )
    return found


def _module(path: str) -> Any:
    """A module by its file, because its package imports a trainer that is not installed."""
    spec = importlib.util.spec_from_file_location("module", Path(os.environ["RF_DETR_WHEELS"]) / "rfdetr" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _losses(criterion: Any, postprocess: Any) -> tuple[dict[str, float], dict[str, Any], dict[str, Any]]:
    made = outputs()
    logits, boxes = made.logits.requires_grad_(), made.boxes.requires_grad_()
    layers = [
        {
            # the authors have the groups of a layer behind each other
            "pred_logits": logits.view(LAYERS, GROUPS, 2, QUERIES, -1)[layer].transpose(0, 1).flatten(1, 2),
            "pred_boxes": boxes.view(LAYERS, GROUPS, 2, QUERIES, -1)[layer].transpose(0, 1).flatten(1, 2),
        }
        for layer in range(LAYERS)
    ]
    labels, wanted = torch.tensor(LABELS), torch.tensor(BOXES)
    targets = [{"labels": labels[:3], "boxes": wanted[:3]}, {"labels": labels[3:], "boxes": wanted[3:]}]
    criterion.train()
    terms = criterion({**layers[-1], "aux_outputs": layers[1:-1], "enc_outputs": layers[0]}, targets)
    named = {
        f"loss_{kind}{end}": terms[f"loss_{kind}{end}"] for kind in ("ce", "bbox", "giou") for end in ("", "_0", "_enc")
    }
    weights = {"ce": 1.0, "bbox": 5.0, "giou": 2.0}
    total = sum(weights[name.split("_")[1]] * value for name, value in named.items())
    total.backward()
    found = postprocess(
        {name: value[:, :QUERIES].detach() for name, value in layers[-1].items()},
        torch.tensor(SIZES),
    )
    return (
        {name: value.item() for name, value in named.items()} | {"total": total.item()},
        {"logits": short(logits.grad), "boxes": short(boxes.grad)},
        {name: short(found[1][name]) for name in ("scores", "boxes")},
    )


def main() -> None:
    if "RF_DETR_WHEELS" in os.environ:
        FILE.write_text(json.dumps(authors(), indent=1) + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *WHEELS], check=True
        )
        environment = os.environ | {"PYTHONPATH": folder, "RF_DETR_WHEELS": folder}
        subprocess.run([sys.executable, "-m", "tests.goldens.rf_detr"], env=environment, check=True)


if __name__ == "__main__":
    main()
