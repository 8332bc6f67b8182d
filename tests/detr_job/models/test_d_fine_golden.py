"""D-FINE gives the numbers of the authors' code and of transformers; tests/goldens/d_fine.py made the former."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from detr_job.data.batches import MEAN, STD
from detr_job.models.d_fine.criterion import DFineCriterion, agreed_pairs
from detr_job.models.d_fine.decoder import Predictions
from detr_job.models.d_fine.denoising import Noise, with_noise
from detr_job.models.d_fine.network import DFine
from detr_job.models.losses import Losses
from detr_job.models.outputs import Targets
from run_config.families.d_fine import DFineModel
from run_config.job.config import Loss
from run_config.job.presets import load_job_config
from tests.detr_job.golden import BOXES
from tests.goldens.d_fine import CLASSES, COUNTS, FILE, LABELS, fill, layout, pictures, summary, uniform

GOLDEN = json.loads(FILE.read_text())
SMALL = DFineModel(
    encoder_dim=64,
    encoder_feedforward_dim=96,
    fusion_dim=16,
    heads=4,
    hidden_dim=32,
    feedforward_dim=80,
    queries=20,
    denoising_queries=9,
)
SIZES = {
    "nano": load_job_config("d-fine-nano").model,
    "small": load_job_config("d-fine-small").model,
    "medium": load_job_config("d-fine-medium").model,
    "large": DFineModel(
        backbone="b4", affine_activations=False, freeze_norms=True, fusion_dim=128, fusion_blocks=3, decoder_layers=6
    ),
    "extra-large": DFineModel(
        backbone="b5",
        affine_activations=False,
        freeze_norms=True,
        encoder_dim=384,
        encoder_feedforward_dim=2048,
        fusion_dim=192,
        fusion_blocks=3,
        decoder_layers=6,
        reach=8,
    ),
}


def filled(config: DFineModel) -> DFine:
    network = DFine(config, CLASSES).double()
    with torch.no_grad():
        fill(network)
    return network.eval()


def normalised(images: Tensor) -> Tensor:
    """So that the network gets exactly the pixels that the authors' code reads."""
    mean, deviation = (torch.tensor(each)[:, None, None].double() for each in (MEAN, STD))
    return (images - mean) / deviation


def targets() -> Targets:
    return Targets(torch.tensor(LABELS), torch.tensor(BOXES), COUNTS)


def same(values: Tensor, golden: dict[str, object], tolerance: float) -> bool:
    found = summary(values)
    assert found["shape"] == golden["shape"]
    return [found["sum"], found["size"], *found["some"]] == pytest.approx(
        [golden["sum"], golden["size"], *golden["some"]], abs=tolerance, rel=tolerance
    )


@pytest.mark.parametrize("size", SIZES)
def test_every_published_tensor_has_a_place(size: str):
    with torch.device("meta"):
        network = DFine(SIZES[size], 80)
    assert layout(network.state_dict()) == GOLDEN["layouts"][size]["digest"]


def test_the_predictions_are_those_of_the_authors_code_before_and_after_the_selection():
    network, seen = filled(SMALL), {}
    network.decoder.enc_score_head.register_forward_hook(lambda *arguments: seen.update(scores=arguments[2]))
    with torch.no_grad():
        outputs = network(normalised(pictures()))
    assert same(seen["scores"], GOLDEN["forward"]["before top-k"], 1e-6)
    assert same(outputs.logits[-1], GOLDEN["forward"]["logits"], 1e-6)
    assert same(outputs.boxes[-1], GOLDEN["forward"]["boxes"], 1e-6)


# Losses ----------------------------------------------------------------------------------------------


def noise(groups: int) -> Noise:
    """The numbers that the authors' code got, in the order of its calls."""
    queries = (2, 2 * groups * max(COUNTS))
    label = (CLASSES * uniform(queries, 2002).float()).floor().long()
    sign = 2 * (2 * uniform((*queries, 4), 2003).float()).floor() - 1
    return Noise(uniform(queries, 2001).float(), label, sign, uniform((*queries, 4), 2004).float())


def trained_once() -> tuple[DFine, Losses]:
    network = filled(SMALL).float().train()
    groups = SMALL.denoising_queries // max(COUNTS)
    denoising = with_noise(SMALL, targets(), CLASSES, groups, noise(groups))
    found = network(normalised(pictures()).float(), None, denoising)
    assert isinstance(found, Predictions)
    constants = (network.decoder.up, network.decoder.reg_scale)
    return network, DFineCriterion(LOSS)(found, targets(), len(targets()), denoising, constants)


LOSS = Loss(cost_class=2.0)
WEIGHTS = {"ce": ("vfl", LOSS.classification), "bbox": ("bbox", LOSS.bbox), "giou": ("giou", LOSS.giou)}
EDGES = {"fgl": LOSS.fgl, "ddf": LOSS.ddf}


def authors_name(name: str) -> tuple[str, float]:
    """`loss_dn_ce_0` to the authors' name of the term, and its weight."""
    kind, *layer = name.removeprefix("loss_").removeprefix("dn_").split("_")
    dn = name.startswith("loss_dn_")
    if kind in WEIGHTS:
        places = ["_dn_pre", "_dn_0", "_dn_1", "_dn_2"] if dn else ["_enc_0", "_pre", "_aux_0", "_aux_1", ""]
        authors, weight = WEIGHTS[kind]
    else:
        places = ["_dn_0", "_dn_1", "_dn_2"] if dn else ["_aux_0", "_aux_1", ""]
        places = places[:-1] if kind == "ddf" else places
        authors, weight = kind, EDGES[kind]
    return f"loss_{authors}{places[int(layer[0]) if layer else -1]}", weight


def test_the_losses_and_their_gradient_are_those_of_the_authors_code():
    network, losses = trained_once()
    found = {}
    for name, value in losses.terms.items():
        authors, weight = authors_name(name)
        found[authors] = weight * value.item()
    golden = dict(GOLDEN["losses"])
    total, gradient, zero = golden.pop("total"), golden.pop("gradient"), golden.pop("loss_ddf_dn_2")
    assert zero == 0, "the last layer does not learn from itself"
    assert found == pytest.approx(golden, rel=2e-4, abs=1e-5)
    assert losses.total.item() == pytest.approx(total, rel=1e-5)
    losses.total.backward()
    grads = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert torch.nn.utils.get_total_norm(grads).item() == pytest.approx(gradient, rel=1e-3)


def test_of_the_layers_pairs_the_most_frequent_target_of_each_query_counts():
    layers = [[(0, 4, 0), (0, 7, 1)], [(0, 4, 1), (0, 7, 0)], [(0, 4, 1), (1, 7, 2)]]
    agreed = agreed_pairs(np.array(layers).transpose(2, 0, 1))
    assert agreed[:, 0].T.tolist() == [[0, 4, 1], [0, 7, 0], [1, 7, 2]]
