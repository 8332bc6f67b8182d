"""D-FINE: agreement with transformers, published files, padding, denoising, and that all of it learns."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import DFineForObjectDetection

from benchmarks import transformers_models
from detr_job.errors import JobError
from detr_job.family import build_family
from detr_job.hardware import autocast
from detr_job.models.d_fine.decoder import Predictions
from detr_job.models.d_fine.denoising import denoising_queries
from detr_job.models.d_fine.distribution import edge_targets, expected_distance, move_edges, weighting
from detr_job.models.d_fine.family import DFineFamily
from detr_job.models.d_fine.hybrid_encoder import sine_position
from detr_job.models.d_fine.network import DFine
from detr_job.models.outputs import Outputs, Targets
from detr_job.weights.finetune import load_weights, read_source
from detr_job.weights.model_folder import NoModel, find_model
from published_weights.names.d_fine import own_names
from run_config.families.d_fine import DFineModel
from run_config.weights.coco_classes import COCO_CLASSES
from tests.detr_job.golden import BOXES
from tests.detr_job.models.test_d_fine_golden import normalised
from tests.detr_job.pictures import small_config
from tests.goldens.d_fine import CLASSES, COUNTS, LABELS, fill, pictures

TWO_LEVELS = DFineModel(
    levels=2,
    encoder_dim=64,
    encoder_feedforward_dim=96,
    fusion_dim=16,
    fusion_blocks=2,
    heads=4,
    hidden_dim=64,
    feedforward_dim=80,
    points=(6, 4),
    decoder_layers=2,
    queries=15,
    bins=16,
)
FROZEN = DFineModel(
    backbone="b1",
    affine_activations=False,
    freeze_norms=True,
    encoder_layers=2,
    encoder_dim=64,
    encoder_feedforward_dim=96,
    fusion_dim=32,
    heads=4,
    hidden_dim=32,
    feedforward_dim=80,
    decoder_layers=2,
    queries=30,
    reach=8,
)


def filled_twin(config: DFineModel, classes: int) -> DFineForObjectDetection:
    twin = transformers_models.d_fine(config, classes).eval()
    with torch.no_grad():
        fill(twin)
    return twin


def targets() -> Targets:
    return Targets(torch.tensor(LABELS), torch.tensor(BOXES), COUNTS)


# Published weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TWO_LEVELS, FROZEN], ids=["two levels", "frozen norms"])
def test_the_predictions_are_those_of_transformers(config: DFineModel):
    twin = filled_twin(config, CLASSES).double()
    network = DFine(config, CLASSES).double().eval()
    network.load_state_dict(own_names(twin.state_dict(), torch.cat))
    seen: dict[str, Tensor] = {}
    network.decoder.enc_score_head.register_forward_hook(lambda *arguments: seen.update(scores=arguments[2]))
    with torch.no_grad():
        ours, theirs = network(normalised(pictures())), twin(pixel_values=pictures())
    torch.testing.assert_close(seen["scores"], theirs.enc_outputs_class, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.logits[-1], theirs.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.boxes[-1], theirs.pred_boxes, atol=1e-6, rtol=0)


def coco_family(classes: tuple[str, ...], **options: object) -> DFineFamily:
    torch.manual_seed(3)
    family = build_family(small_config("d_fine", **options), len(classes))
    assert isinstance(family, DFineFamily)
    return family


COCO = tuple(name for name in COCO_CLASSES if name is not None)


def test_a_file_of_transformers_loads_and_rows_of_known_classes_are_kept(tmp_path: Path):
    family = coco_family(("cat", "widget"))
    twin = filled_twin(family.model, 80)
    twin.save_pretrained(tmp_path)
    with pytest.raises(NoModel, match="Hugging Face Transformers"):
        find_model(str(tmp_path))
    assert read_source(str(tmp_path)).url == f"{tmp_path}/model.safetensors"
    report = load_weights(family, read_source(f"{tmp_path}/model.safetensors"), ("cat", "widget"))
    assert report.kept_classes == ("cat",)
    assert report.fresh == report.ignored == []
    weights = own_names(load_file(tmp_path / "model.safetensors"), torch.cat)
    state = family.network.state_dict()
    for name in family.class_heads:
        assert torch.equal(state[name][0], weights[name][COCO.index("cat")]), name
    assert set(report.rows) == set(family.class_heads)
    assert torch.equal(
        state["decoder.denoising_class_embed.weight"][2], weights["decoder.denoising_class_embed.weight"][80]
    )
    same = "encoder.encoder.0.layers.0.self_attn.in_proj_weight"
    assert torch.equal(state[same], weights[same])


def raw_file(path: Path, family: DFineFamily, **more: Tensor) -> dict[str, Tensor]:
    """A checkpoint as the authors publish it, with 80 classes."""
    network = DFine(family.model, 80)
    with torch.no_grad():
        fill(network)
    weights = dict(network.state_dict())
    constants = {
        "decoder.anchors": torch.zeros(1, 30, 4),
        "decoder.valid_mask": torch.ones(1, 30, 1, dtype=torch.bool),
        "decoder.decoder.up": torch.tensor([0.5]),
        "decoder.decoder.reg_scale": torch.tensor([8.0]),
        "decoder.decoder.layers.0.cross_attn.num_points_scale": torch.ones(4),
    }
    average = weights | constants | more
    torch.save({"model": {name: 0 * each for name, each in average.items()}, "ema": {"module": average}}, path)
    return weights


def test_a_file_of_the_authors_loads_whole_and_its_moving_average_counts(tmp_path: Path):
    family = coco_family(COCO)
    weights = raw_file(tmp_path / "dfine.pth", family)
    report = load_weights(family, read_source(f"{tmp_path}/dfine.pth"), COCO)
    assert report.rows == {}
    assert report.fresh == report.ignored == []
    for name, value in family.network.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_weights_of_rt_detr_v4_need_their_activation(tmp_path: Path):
    link = {"encoder.feature_projector.0.weight": torch.zeros(768, 16)}
    raw_file(tmp_path / "rtv4.pth", coco_family(COCO), **link)
    source = read_source(f"{tmp_path}/rtv4.pth")
    with pytest.raises(JobError, match=r"weights of RT-DETRv4.*; set model\.activation=silu"):
        load_weights(coco_family(COCO), source, COCO)
    report = load_weights(coco_family(COCO, **{"model.activation": "silu"}), source, COCO)
    assert report.fresh == report.ignored == []


@pytest.mark.parametrize(
    ("name", "activation", "warned"),
    [
        ("deim_dfine_hgnetv2_s_coco_120e.pth", "relu", True),
        ("deim_dfine_hgnetv2_s_coco_120e.pth", "silu", False),
        ("dfine_s_obj365.pth", "relu", False),
        ("dfine_s_obj365.pth", "silu", True),
        ("model.safetensors", "silu", False),
    ],
)
def test_the_assumed_activation_is_said_and_an_unusual_one_is_a_warning(name: str, activation: str, warned: bool):
    said = coco_family(COCO, **{"model.activation": activation}).about_weights(name)
    assert said.startswith("warning: ") == warned
    assert activation in said


def test_another_size_is_refused_in_a_sentence(tmp_path: Path):
    raw_file(tmp_path / "dfine.pth", coco_family(COCO))
    with pytest.raises(JobError, match=r"has a different architecture: .*; and \d+ more differences"):
        load_weights(coco_family(COCO, **{"model.hidden_dim": 32}), read_source(f"{tmp_path}/dfine.pth"), COCO)


def test_another_number_of_queries_loads(tmp_path: Path):
    raw_file(tmp_path / "dfine.pth", coco_family(COCO))
    family = coco_family(COCO, **{"model.queries": 7})
    load_weights(family, read_source(f"{tmp_path}/dfine.pth"), COCO)
    with torch.no_grad():
        assert family.network.eval()(torch.zeros(1, 3, 128, 128)).boxes.shape == (1, 1, 7, 4)


# Parts -----------------------------------------------------------------------------------------------


def test_edges_come_back_from_their_targets():
    up, reach = torch.tensor([0.5]), torch.tensor([4.0])
    values = weighting(16, up, reach)
    assert values.shape == (17,)
    assert (values.diff() > 0).all()
    torch.testing.assert_close(values, -values.flip(0))
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.4, 0.1, 0.1]])
    wanted = torch.tensor([[0.52, 0.49, 0.25, 0.28], [0.31, 0.41, 0.12, 0.09]])
    left, share = edge_targets(boxes, wanted, values, reach)
    certain = torch.zeros(2, 4, 17).scatter_(-1, left[..., None], (1 - share)[..., None])
    certain = certain.scatter_add_(-1, left[..., None] + 1, share[..., None])
    moved = move_edges(boxes, expected_distance(certain.log().flatten(-2), values), reach)
    torch.testing.assert_close(moved, wanted)


def test_edges_out_of_reach_get_the_outermost_bin():
    values = weighting(16, torch.tensor([0.5]), torch.tensor([4.0]))
    box, far = torch.tensor([[0.5, 0.5, 0.01, 0.01]]), torch.tensor([[0.2, 0.5, 0.3, 0.9]])
    left, share = edge_targets(box, far, values, torch.tensor([4.0]))
    assert left.tolist() == [[15, 15, 0, 15]]
    assert share.tolist() == [[1, 1, 0, 1]]


def test_positions_keep_their_meaning_on_maps_that_are_not_square():
    square, wide = sine_position(3, 3, 8, torch.device("cpu")), sine_position(3, 5, 8, torch.device("cpu"))
    assert torch.equal(square[0].view(3, 3, 8), wide[0].view(3, 5, 8)[:, :3])


def small_network() -> DFine:
    torch.manual_seed(1)
    network = build_family(small_config("d_fine"), CLASSES).network
    assert isinstance(network, DFine)
    with torch.no_grad():
        fill(network)
    return network.eval()


def test_padding_changes_little_and_boxes_are_fractions_of_the_image():
    """The cells at the border see other neighbours, as in any network with batches of several shapes."""
    network = small_network()
    image = torch.randn(1, 3, 128, 96)
    padded = torch.zeros(1, 3, 128, 160)
    padded[..., :96] = image
    mask = torch.ones(1, 128, 160, dtype=torch.bool)
    mask[..., :96] = False
    noise = padded + 5 * mask[:, None]
    with torch.no_grad():
        alone, beside, noisy = network(image), network(padded, mask), network(noise, mask)
    assert torch.equal(beside.boxes, noisy.boxes), "what lies in the padding is never read"
    assert torch.equal(beside.logits, noisy.logits)
    assert alone.boxes.shape == beside.boxes.shape
    nearest = torch.cdist(alone.boxes[0, 0], beside.boxes[0, 0], p=1).amin(1)
    assert nearest.median() < 0.03


def test_denoising_queries_do_not_change_the_others():
    network = small_network()
    config = small_config("d_fine").model
    assert isinstance(config, DFineModel)
    denoising = denoising_queries(config, targets(), CLASSES, torch.Generator().manual_seed(0))
    assert denoising is not None
    assert (denoising.groups, denoising.group_size, denoising.count) == (2, 6, 12)
    images = torch.randn(2, 3, 64, 64)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        alone, more = network(images), network(images, None, denoising)
    assert isinstance(alone, Predictions)
    assert isinstance(more, Predictions)
    torch.testing.assert_close(alone.layers.boxes, more.layers.boxes[:, :, denoising.count :])
    torch.testing.assert_close(alone.layers.logits, more.layers.logits[:, :, denoising.count :])
    pairs = denoising.positives
    found = list(zip(*(each[0].tolist() for each in (pairs.image, pairs.query, pairs.target)), strict=True))
    assert found == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (0, 6, 0), (0, 7, 1), (0, 8, 2), (1, 6, 3)]


def test_positive_queries_lie_closer_to_their_boxes_than_negative_ones():
    config = DFineModel(denoising_queries=60, label_noise=0.0)
    denoising = denoising_queries(config, targets(), CLASSES, torch.Generator().manual_seed(0))
    assert denoising is not None
    boxes = denoising.references.sigmoid()[0].view(20, 2, 3, 4)
    shift = (boxes - torch.tensor(BOXES[:3])).abs().sum(-1).mean((0, 2))
    assert shift[1] > 1.5 * shift[0]
    assert denoising.labels[0].view(40, 3).eq(torch.tensor(LABELS[:3])).all()
    assert denoising.labels[1].view(40, 3)[:, 1:].eq(CLASSES).all(), "what fills up an image is of no class"


# Training --------------------------------------------------------------------------------------------


def losses(family: DFineFamily, packed: Targets, seed: int = 0) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((len(packed.counts), 3, 64, 96), generator=torch.Generator().manual_seed(7))
    found = family.losses(family.network, images, None, packed, num_boxes=max(len(packed), 1), generator=generator)
    family.network.zero_grad()
    found.total.backward()
    return {name: value.item() for name, value in found.terms.items()} | {"total": found.total.item()}


def small_family(**options: object) -> DFineFamily:
    torch.manual_seed(1)
    family = build_family(small_config("d_fine", **options), CLASSES)
    assert isinstance(family, DFineFamily)
    family.network.train()
    return family


def test_every_parameter_learns():
    family = small_family()
    optimizer = torch.optim.SGD(family.network.parameters(), lr=1e-2)
    losses(family, targets())
    optimizer.step()  # some layers start at zero and pass no gradient on
    losses(family, targets())
    lazy = [name for name, each in family.network.named_parameters() if each.grad is None or not each.grad.any()]
    # away from the edges, a shift before a batch norm changes nothing: its gradient is a rounding error, or 0
    assert [name for name in lazy if not name.endswith("lab.bias")] == []


def test_a_batch_without_boxes_has_the_same_terms_and_a_gradient():
    family = small_family()
    with_boxes = losses(family, targets())
    empty = losses(family, Targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (0, 0)))
    assert list(empty) == list(with_boxes), "so that accumulated batches can be added up"
    assert all(each.isfinite().all() for each in (p.grad for p in family.network.parameters()) if each is not None)
    assert {name: value for name, value in empty.items() if "dn" in name or "box" in name or "fgl" in name} == (
        pytest.approx({name: 0.0 for name in empty if "dn" in name or "box" in name or "fgl" in name})
    )


def test_denoising_and_all_layers_but_one_can_be_left_out():
    family = small_family(**{"model.denoising_queries": 0, "model.decoder_layers": 1})
    terms = losses(family, targets())
    assert not [name for name in terms if "dn" in name or "ddf" in name]
    assert "loss_fgl" in terms


def test_the_noise_comes_from_the_generator_alone():
    family = small_family()
    copies = [copy.deepcopy(family) for _ in range(3)]
    torch.manual_seed(11)
    first = losses(copies[0], targets(), seed=5)
    torch.manual_seed(12)
    assert losses(copies[1], targets(), seed=5) == first
    assert losses(copies[2], targets(), seed=6) != first


def test_a_batch_is_learnt_by_heart():
    family = small_family(**{"model.queries": 10})
    packed = targets()
    optimizer = torch.optim.AdamW(family.network.parameters(), lr=5e-3)
    first = last = losses(family, packed)
    for step in range(40):
        last = losses(family, packed, seed=step)
        optimizer.step()
    assert last["loss_bbox"] < 0.6 * first["loss_bbox"]
    assert last["total"] < 0.8 * first["total"]


def test_a_frozen_backbone_keeps_its_statistics():
    family = small_family(**{"optimizer.lr_backbone": 0})
    family.network.train()
    before = {name: value.clone() for name, value in family.network.backbone.state_dict().items()}
    losses(family, targets())
    for name, value in family.network.backbone.state_dict().items():
        assert torch.equal(before[name], value), name


def test_detections_are_the_best_pairs_of_query_and_class():
    family = small_family()
    with torch.no_grad():
        outputs = family.network.eval()(torch.randn(2, 3, 64, 96))
    assert isinstance(outputs, Outputs)
    seen = family.detections(outputs, torch.tensor([[64.0, 96.0], [64.0, 96.0]]))
    assert [len(each.scores) for each in seen] == [family.most_detections] * 2 == [100, 100]
    assert (seen[0].scores.diff() <= 0).all()


def test_a_step_in_bf16_has_a_loss_of_like_size():
    """Other tokens may be selected, since the scores of a fresh network are nearly equal."""
    totals = []
    for bf16 in (False, True):
        with autocast(torch.device("cpu"), bf16=bf16):
            totals.append(losses(small_family(), targets())["total"])
    assert totals[1] == pytest.approx(totals[0], rel=0.25)
    assert totals[1] != totals[0]
