"""The tiny model: what its parts compute, that padding changes nothing, that all of it learns."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from detr_job.family import build_family
from detr_job.models.deformable_attention import DeformableAttention
from detr_job.models.feature_levels import prior_boxes
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.padding import resized_mask, valid_ratio
from detr_job.models.tiny.network import CLASS_PRIOR, PADDING_LOGIT, DenseHead, Tiny, TrainingOutputs
from run_config.families.tiny import TinyModel
from run_config.job.config import JobConfig, Optimizer

SMALL = TinyModel(
    stem_channels=8,
    stage_channels=(8, 8, 16, 16),
    hidden_dim=16,
    heads=2,
    points=3,
    feedforward_dim=24,
    queries=11,
    decoder_layers=2,
)
CLASSES = 3


@pytest.fixture
def network() -> Tiny:
    """Fresh weights, moved a little, so that nothing is zero by initialisation."""
    torch.manual_seed(3)
    built = Tiny(SMALL, CLASSES)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in built.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("var") else -0.5))
    return built.eval()


# Deformable attention ------------------------------------------------------------------------------


def bilinear(plane: Tensor, x: float, y: float) -> Tensor:
    """The value of plane (C, H, W) at x, y in 0…1; cell centres are at (i + 0.5) / size, outside is 0."""
    _, height, width = plane.shape
    px, py = x * width - 0.5, y * height - 0.5
    total = torch.zeros(plane.shape[0])
    for row in (math.floor(py), math.floor(py) + 1):
        for column in (math.floor(px), math.floor(px) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(py - row)) * (1 - abs(px - column))
                total += weight * plane[:, row, column]
    return total


def slow_attention(
    layer: DeformableAttention,
    query: Tensor,
    boxes: Tensor,
    memory: Tensor,
    shapes: list[tuple[int, int]],
    mask: Tensor | None,
) -> Tensor:
    """arXiv 2010.04159 equation 3, with places relative to a box (its A.4), one number at a time."""
    batch, queries, dim = query.shape
    width, points = dim // layer.heads, sum(layer.points)
    projected = isinstance(layer.value_proj, nn.Linear)
    result = torch.zeros(batch, queries, dim)
    for b in range(batch):
        value = memory[b] @ layer.value_proj.weight.T + layer.value_proj.bias if projected else memory[b].clone()
        if mask is not None:
            value[mask[b]] = 0
        for q in range(queries):
            cx, cy, w, h = boxes[b, q].tolist()
            offsets = layer.sampling_offsets.weight @ query[b, q] + layer.sampling_offsets.bias
            scores = layer.attention_weights.weight @ query[b, q] + layer.attention_weights.bias
            offsets = offsets.reshape(layer.heads, points, 2)
            for head in range(layer.heads):
                weights = scores[head * points : (head + 1) * points].softmax(0)
                start, point = 0, 0
                for count, (rows, columns) in zip(layer.points, shapes, strict=True):
                    tokens = value[start : start + rows * columns, head * width : (head + 1) * width]
                    plane = tokens.T.reshape(width, rows, columns)
                    start += rows * columns
                    for _ in range(count):
                        dx, dy = offsets[head, point].tolist()
                        x, y = cx + dx * w / 2 / count, cy + dy * h / 2 / count
                        result[b, q, head * width : (head + 1) * width] += weights[point] * bilinear(plane, x, y)
                        point += 1
    return result @ layer.output_proj.weight.T + layer.output_proj.bias if projected else result


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("points", "project"), [((2, 2, 2), True), ((3, 1, 2), True), ((1, 3, 2), False)])
def test_deformable_attention_is_what_the_paper_says(points: tuple[int, ...], project: bool, masked: bool):
    torch.manual_seed(1)
    shapes = [(5, 7), (3, 4), (2, 2)]
    layer = DeformableAttention(12, heads=3, points=points, project=project)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    query, memory = torch.randn(2, 4, 12), torch.randn(2, 35 + 12 + 4, 12)
    boxes = torch.rand(2, 4, 4)
    boxes[0, 0] = torch.tensor((0.02, 0.98, 0.9, 0.9))  # reads beyond the border
    mask = torch.rand(2, 51) < 0.3 if masked else None
    with torch.no_grad():
        fast = layer(query, boxes, memory, shapes, mask)
        slow = slow_attention(layer, query, boxes, memory, shapes, mask)
    assert torch.allclose(fast, slow, atol=1e-5)
    assert fast.abs().max() > 0.1


def test_sampling_begins_as_rings_around_the_centre():
    layer = DeformableAttention(16, heads=4, points=(3, 3))
    offsets = layer.sampling_offsets.bias.reshape(4, 2, 3, 2)
    directions = torch.tensor(((1.0, 0), (0, 1), (-1, 0), (0, -1)))
    for point in range(3):
        for level in range(2):
            assert torch.allclose(offsets[:, level, point], directions * (point + 1), atol=1e-6)
    assert not layer.sampling_offsets.weight.any()
    assert not layer.attention_weights.weight.any()


def test_what_lies_in_the_padding_is_never_read():
    torch.manual_seed(2)
    layer = DeformableAttention(8, heads=2, points=(2,))
    query, boxes, memory = torch.randn(1, 3, 8), torch.rand(1, 3, 4), torch.randn(1, 12, 8)
    mask = torch.arange(12)[None] % 4 == 3
    other = memory.clone()
    other[mask] = torch.nan
    with torch.no_grad():
        assert torch.equal(layer(query, boxes, memory, [(3, 4)], mask), layer(query, boxes, other, [(3, 4)], mask))


# Shapes and starting values -------------------------------------------------------------------------


def test_outputs_are_the_selection_and_each_layer(network):
    outputs = network(torch.randn(2, 3, 64, 96))
    assert outputs.logits.shape == (1 + 2, 2, 11, CLASSES)
    assert outputs.boxes.shape == (1 + 2, 2, 11, 4)
    assert ((outputs.boxes >= 0) & (outputs.boxes <= 1)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7), (31, 97), (64, 64)])
def test_images_of_any_size_pass_with_as_many_queries_as_there_are_tokens(network, size: tuple[int, int]):
    cells = sum(math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in (8, 16, 32))
    outputs = network(torch.randn(1, 3, *size))
    assert outputs.boxes.shape[2] == min(11, cells)
    assert outputs.boxes.isfinite().all()


def test_every_class_starts_at_one_per_cent():
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = Tiny(SMALL, CLASSES).eval()(torch.randn(2, 3, 96, 96))
    assert float(outputs.logits.mean()) == pytest.approx(math.log(CLASS_PRIOR / (1 - CLASS_PRIOR)), abs=0.5)
    assert outputs.logits.sigmoid().max() < 0.1


def test_boxes_start_as_the_priors_of_their_cells():
    torch.manual_seed(0)
    outputs = Tiny(SMALL, CLASSES).eval()(torch.randn(1, 3, 64, 96))
    priors = prior_boxes([(8, 12), (4, 6), (2, 3)], SMALL.prior_box, torch.device("cpu"))[0]
    for layer in outputs.boxes:
        assert closest(layer[0], priors).max() < 1e-5


def test_prior_boxes_are_centred_in_their_cells():
    priors = prior_boxes([(2, 3), (1, 2)], 0.1, torch.device("cpu"))[0]
    wanted = [
        (x, y, side, side)
        for rows, columns, side in ((2, 3, 0.1), (1, 2, 0.2))
        for y in [(row + 0.5) / rows for row in range(rows)]
        for x in [(column + 0.5) / columns for column in range(columns)]
    ]
    assert torch.allclose(priors, torch.tensor(wanted))


def test_the_best_tokens_become_the_queries(network):
    images = torch.randn(1, 3, 64, 96)
    maps = network.fusion(network.backbone(images), None)
    memory = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)
    scores = network.enc_class_embed(network.enc_output(memory))[0]
    best = scores.amax(-1).topk(11).values
    assert torch.allclose(network(images).logits[0, 0].amax(-1), best, atol=1e-6)


# Padding ------------------------------------------------------------------------------------------


def test_the_mask_and_the_covered_part_follow_the_image():
    mask = torch.ones(2, 64, 96, dtype=torch.bool)
    mask[0, :64, :48] = False
    mask[1, :20, :96] = False
    assert valid_ratio(mask)[:, 0].tolist() == [[0.5, 1, 0.5, 1], [1, 20 / 64, 1, 20 / 64]]
    assert resized_mask(None, torch.zeros(1, 1, 2, 2)) is None
    small = resized_mask(mask, torch.zeros(2, 5, 2, 3))
    assert small.tolist() == [
        [[False, False, True], [False, False, True]],
        [[False, False, False], [True, True, True]],
    ]


def padded_maps(maps: list[Tensor], shapes: list[tuple[int, int]], generator: torch.Generator) -> list[Tensor]:
    """The maps on larger canvases, with noise where the padding is."""
    padded = []
    for each, (height, width) in zip(maps, shapes, strict=True):
        canvas = 3 * torch.randn(each.shape[0], each.shape[1], height, width, generator=generator)
        canvas[:, :, : each.shape[2], : each.shape[3]] = each
        padded.append(canvas)
    return padded


def test_the_decoder_sees_the_same_image_with_and_without_padding(network):
    """From the maps on, padding is exact where sides are multiples of 32: not a box moves."""
    generator = torch.Generator().manual_seed(4)
    maps = [torch.randn(1, 16, 8 // 2**level, 12 // 2**level, generator=generator) for level in range(3)]
    mask = torch.ones(1, 128, 160, dtype=torch.bool)
    mask[:, :64, :96] = False
    canvas = padded_maps(maps, [(16, 20), (8, 10), (4, 5)], generator)
    with torch.no_grad():
        alone, padded = network._decode(maps, None), network._decode(canvas, mask)
    order_alone, order_padded = alone.logits[0].amax(-1).argsort(), padded.logits[0].amax(-1).argsort()
    for layer in range(3):
        a, p = alone.boxes[layer, 0][order_alone[0]], padded.boxes[layer, 0][order_padded[0]]
        assert torch.allclose(a, p, atol=1e-5), f"layer {layer}"
    assert torch.allclose(alone.logits[-1, 0][order_alone[0]], padded.logits[-1, 0][order_padded[0]], atol=1e-4)


def test_an_image_padded_in_a_batch_keeps_its_boxes(network):
    """Convolutions see zeros beyond the border instead of nothing: only what is near it may change a little."""
    torch.manual_seed(6)
    image = torch.randn(1, 3, 128, 128)
    canvas, mask = torch.zeros(1, 3, 192, 224), torch.ones(1, 192, 224, dtype=torch.bool)
    canvas[..., :128, :128], mask[:, :128, :128] = image, False
    with torch.no_grad():
        alone, padded = network(image), network(canvas, mask)
    near = closest(alone.boxes[-1, 0], padded.boxes[-1, 0])
    assert near.median() < 0.02
    wrong = network(canvas, None)
    assert closest(alone.boxes[-1, 0], wrong.boxes[-1, 0]).median() > 3 * near.median()


def test_images_of_a_batch_do_not_see_each_other(network):
    torch.manual_seed(7)
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        together = network(images)
        for row in range(3):
            alone = network(images[row : row + 1])
            assert torch.allclose(alone.boxes[-1, 0], together.boxes[-1, row], atol=1e-4)


def test_selection_never_takes_padding_while_there_are_tokens():
    mask = torch.ones(1, 64, 96, dtype=torch.bool)
    mask[:, :32, :32] = False  # 16 + 4 + 1 cells for 11 queries
    fresh = Tiny(SMALL, CLASSES).eval()
    with torch.no_grad():
        boxes = fresh(torch.randn(1, 3, 64, 96), mask).boxes[0, 0]
    centres = prior_boxes([(4, 4), (2, 2), (1, 1)], SMALL.prior_box, torch.device("cpu"))[0]
    assert closest(boxes, centres).max() < 1e-5


# The second head -------------------------------------------------------------------------------------


def test_the_second_head_changes_nothing_but_training(network):
    """Detections are the same, and padding is never a good token."""
    with_head = copy.deepcopy(network)
    with_head.dense_head = DenseHead(SMALL.hidden_dim, CLASSES)
    images, mask = torch.randn(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[:, :, 64:] = True
    with torch.no_grad():
        assert torch.equal(with_head.eval()(images, mask).boxes, network(images, mask).boxes)
        trained = with_head.train()(images, mask)
    assert isinstance(trained, TrainingOutputs)
    assert trained.dense.logits.shape == (1, 2, 126, CLASSES)
    assert (trained.dense.logits[0, :, :96].reshape(2, 8, 12, CLASSES)[:, :, 8:] == PADDING_LOGIT).all()
    assert not isinstance(network.train()(images, mask), TrainingOutputs)


# Learning -----------------------------------------------------------------------------------------


def closest(boxes: Tensor, others: Tensor) -> Tensor:
    """For each box the distance to the nearest of the others; not cdist, which loses digits."""
    return (boxes[:, None] - others[None]).abs().amax(-1).amin(1)


def some_targets() -> Targets:
    return Targets(
        torch.tensor([0, 2, 1]),
        torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.4], [0.5, 0.5, 0.5, 0.4]]),
        (2, 1),
    )


def test_gradients_reach_every_parameter(network):
    family = build_family(JobConfig(model=SMALL.model_copy(update={"dense_targets": 2})), CLASSES)
    network.dense_head = DenseHead(SMALL.hidden_dim, CLASSES)
    with torch.no_grad():
        network.dense_head.bbox_embed[-1].weight.fill_(0.01)
    network.train()
    outputs = network(torch.randn(2, 3, 64, 96))
    family.criterion(outputs, some_targets(), 3).total.backward()
    without = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert without == []


@pytest.mark.parametrize("layer", [0, 1])
def test_boxes_are_refined_layer_by_layer_without_gradients_between(network, layer: int):
    network.train()
    outputs: Outputs = network(torch.randn(1, 3, 64, 96))
    outputs.boxes[1 + layer].sum().backward()
    reached = {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}
    heads = {name for name in reached if name.endswith("bbox_embed.0.weight")}
    assert heads == {f"decoder.{layer}.bbox_embed.0.weight"}, "a box learns through its own layer alone"


def test_the_selection_learns_from_its_own_loss_alone(network):
    network.train()
    outputs: Outputs = network(torch.randn(1, 3, 64, 96))
    outputs.boxes[1].sum().backward()
    reached = {name for name, each in network.named_parameters() if each.grad is not None and each.grad.any()}
    assert not [name for name in reached if name.startswith(("decoder.1.", "enc_"))], "the selected box is detached"
    assert "decoder.0.bbox_embed.0.weight" in reached


def test_a_frozen_backbone_keeps_its_statistics():
    config = JobConfig(model=SMALL, optimizer=Optimizer(lr_backbone=0))
    family = build_family(config, CLASSES)
    before = copy.deepcopy(family.network.state_dict())
    family.network.train()
    family.criterion(family.network(torch.randn(2, 3, 64, 96)), some_targets(), 3).total.backward()
    after = family.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed, "the statistics of the rest go on"
    assert not [name for name in changed if name.startswith("backbone.")]
    assert all(each.grad is None for name, each in family.network.named_parameters() if name.startswith("backbone."))
    assert family.network.fusion.training


def test_it_learns_a_handful_of_pictures():
    torch.manual_seed(0)
    model = TinyModel(
        stem_channels=16,
        stage_channels=(16, 32, 32, 32),
        hidden_dim=32,
        feedforward_dim=64,
        queries=20,
        decoder_layers=2,
    )
    family = build_family(JobConfig(model=model), CLASSES)
    images, targets = drawn_squares(4)
    optimizer = torch.optim.AdamW(family.network.parameters(), lr=3e-3)
    losses = []
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 5) * (1 - step / 80)
        loss = family.criterion(family.network(images), targets, len(targets)).total
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(family.network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < losses[0] / 2.5
    family.network.eval()
    with torch.no_grad():
        outputs = family.network(images)
    best = [each.boxes[each.scores.argmax()] for each in family.detections(outputs, torch.full((4, 2), 1.0))]
    centres = torch.stack([(box[:2] + box[2:]) / 2 for box in best])
    assert (centres - targets.boxes[:, :2]).abs().max() < 0.12


def drawn_squares(count: int) -> tuple[Tensor, Targets]:
    """One square an image, bright in one colour on noise."""
    generator = torch.Generator().manual_seed(1)
    images, boxes, labels = 0.2 * torch.randn(count, 3, 64, 64, generator=generator), [], []
    for row in range(count):
        x, y = (int(each) for each in torch.randint(4, 36, (2,), generator=generator))
        images[row, row % 3, y : y + 20, x : x + 20] += 2
        boxes.append(((x + 10) / 64, (y + 10) / 64, 20 / 64, 20 / 64))
        labels.append(row % 3)
    return images, Targets(torch.tensor(labels), torch.tensor(boxes), (1,) * count)
