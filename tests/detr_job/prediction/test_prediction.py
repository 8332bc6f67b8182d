"""Predictions of a split: padding costs nothing, and every image and box is where it belongs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detr_job.data.augmentation import resize
from detr_job.data.batches import EvaluationSamples, collate, normalised, read_sample
from detr_job.family import Family, build_family
from detr_job.models.faster_rcnn.family import FasterRcnnFamily
from detr_job.models.outputs import Outputs
from detr_job.prediction.predictor import Predictor
from detr_job.prediction.split_predictions import SplitPredictions, predict_split
from detr_job.weights.model_folder import ModelFolderConfig, Preprocessing, write_model
from evaluation.predictions import Prediction, write_predictions
from prepared_set.decoding import decode_image
from prepared_set.reader import Split
from run_config.families.registry import FAMILIES
from tests.detr_job.pictures import mixed_split, small_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return mixed_split(tmp_path_factory.mktemp("mixed"), count=20)


@pytest.fixture(params=["tiny", "detr", "d_fine", "deformable_detr", "faster_rcnn"])
def family(request) -> Family:
    """Random weights that answer differently for every image."""
    torch.manual_seed(5)
    built = build_family(small_config(request.param), 2)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return built


def predict(
    family: Family, split: Split, batch_size: int, *, kind: str = "tiny", bf16: bool = False
) -> SplitPredictions:
    samples = EvaluationSamples(split, small_config(kind).data)
    return predict_split(family.network, family, samples, batch_size, CPU, bf16=bf16)


def worst_difference(one: SplitPredictions, other: SplitPredictions) -> float:
    """For every prediction the nearest one of the same image and class: the largest distance, pixels or scores."""
    assert one.images == other.images
    assert len(one.predictions) == len(other.predictions) > 0
    worst = 0.0
    for prediction in one.predictions:
        rivals = [
            (each.bbox, each.score)
            for each in other.predictions
            if (each.image_id, each.category_id) == (prediction.image_id, prediction.category_id)
        ]
        assert rivals
        worst = max(worst, min(_distance(prediction, bbox, score) for bbox, score in rivals))
    return worst


def _distance(prediction: Prediction, bbox: tuple[float, float, float, float], score: float) -> float:
    pixels = max(abs(a - b) for a, b in zip(prediction.bbox, bbox, strict=True))
    return max(pixels, 100 * abs(prediction.score - score))


def test_batches_of_1_and_of_8_see_the_same(family, split):
    alone, together = predict(family, split, 1), predict(family, split, 8)
    assert worst_difference(alone, together) < 0.01
    assert worst_difference(together, alone) < 0.01


def test_padding_would_have_made_a_difference(family, split):
    """Otherwise the test above could not fail."""
    config = small_config("tiny")
    network = family.network.eval()
    samples = [
        (index, resize(read_sample(split, index), config.data.eval_size, config.data.max_size)) for index in range(4)
    ]
    batch = collate(samples)
    assert batch.padding_mask is not None
    sizes = torch.tensor([(split.images[index].height, split.images[index].width) for index in range(4)])
    with torch.no_grad():
        padded = family.detections(network(normalised(batch), batch.padding_mask), sizes.float())
        unpadded = [
            family.detections(network(normalised(collate([sample])), None), sizes[index : index + 1].float())[0]
            for index, sample in enumerate(samples)
        ]
    moved = max(_moved(a.boxes, b.boxes) for a, b in zip(padded, unpadded, strict=True))
    assert moved > 0.5, "pixels"


def _moved(boxes: Tensor, others: Tensor) -> float:
    return float((boxes[:, None] - others[None]).abs().amax(-1).amin(1).max())


def test_every_image_is_there_in_the_order_of_the_set(family, split):
    seen = predict(family, split, 3)
    assert [image.image_id for image in seen.images] == [record.image_id for record in split.images]
    assert [(image.width, image.height) for image in seen.images] == [(r.width, r.height) for r in split.images]
    ids = [prediction.image_id for prediction in seen.predictions]
    assert ids == sorted(ids, key=[image.image_id for image in seen.images].index)
    assert all(prediction.bbox[2] >= 0 and prediction.bbox[3] >= 0 for prediction in seen.predictions)
    assert {prediction.category_id for prediction in seen.predictions} <= {0, 1}


def test_predicting_changes_nothing_about_the_network(family, split):
    family.network.train()
    before = {name: value.clone() for name, value in family.network.state_dict().items()}
    predict(family, split, 4)
    assert family.network.training
    assert all(torch.equal(before[name], value) for name, value in family.network.state_dict().items())
    assert not any(parameter.grad is not None for parameter in family.network.parameters())


def test_the_file_is_accepted_by_its_reader(family, split, tmp_path):
    content = predict(family, split, 4).file("the set", "test", "a model", ("disc", "square"))
    write_predictions(tmp_path / "test.json", content)
    assert (tmp_path / "test.json").stat().st_size > 1000


def test_a_split_without_images_gives_no_predictions(family, tmp_path_factory, split):
    empty = mixed_split(tmp_path_factory.mktemp("empty"), "val", count=6)
    assert len(empty) == 0
    seen = predict(family, empty, 4)
    assert (seen.images, seen.predictions, seen.collapsed) == ((), (), False)
    assert len(split)


def test_queries_that_answer_the_same_for_every_image_are_noticed(family, split):
    if isinstance(family, FasterRcnnFamily):
        pytest.skip("its boxes come from the image, not from queries")
    assert not predict(family, split, 4).collapsed
    same = Outputs(torch.zeros(2, 1, 20, 3), torch.rand(2, 1, 20, 4))

    class Blind(torch.nn.Module):
        def forward(self, images: Tensor, _: Tensor | None) -> Outputs:
            batch = images.shape[0]
            return Outputs(same.logits.expand(2, batch, 20, 3), same.boxes.expand(2, batch, 20, 4))

    samples = EvaluationSamples(split, small_config("tiny").data)
    blind = predict_split(Blind(), family, samples, 4, CPU, bf16=False)
    assert blind.collapsed
    assert blind.spread == pytest.approx(0, abs=1e-6)


def test_bf16_moves_boxes_by_little(family, split):
    exact, rough = predict(family, split, 4), predict(family, split, 4, bf16=True)
    boxes = [torch.tensor([each.bbox for each in seen.predictions[:40]]) for seen in (exact, rough)]
    assert boxes[0].isfinite().all()
    assert boxes[1].isfinite().all()
    assert (boxes[0].mean() - boxes[1].mean()).abs() < 5


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_image_alone_is_predicted_as_in_its_split(kind: str, split, tmp_path: Path):
    config = small_config(kind)
    torch.manual_seed(5)
    family = build_family(config, 2)
    info = ModelFolderConfig(
        classes=("disc", "square"),
        preset=kind,
        job=config.model_dump(mode="json"),
        preprocessing=Preprocessing(config.data.eval_size, config.data.max_size, square=config.data.square),
        prepared_set="set",
        metrics={},
    )
    write_model(tmp_path, family.network.state_dict(), info)
    predictor = Predictor(str(tmp_path), CPU)
    seen = predict(family, split, 4, kind=kind)
    for index in (0, 3, 5):
        record = split.images[index]
        found = predictor(decode_image(split.read(index)), threshold=0.0)
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        expected = sorted(
            (each for each in seen.predictions if each.image_id == record.image_id), key=lambda each: -each.score
        )
        assert len(found) == len(expected)
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-4)
        for one, other in zip(found, expected, strict=True):
            x, y, width, height = one.bbox
            assert 0 <= x <= x + width <= record.width + 1e-3
            assert 0 <= y <= y + height <= record.height + 1e-3
            assert predictor.classes[other.category_id] in ("disc", "square")
        best, wanted = found[0], expected[0]
        inside = wanted.bbox[0] >= 0 and wanted.bbox[0] + wanted.bbox[2] <= record.width
        if inside:
            assert (best.bbox[0], best.bbox[2]) == pytest.approx((wanted.bbox[0], wanted.bbox[2]), abs=0.05)
        middle = (found[0].score + found[-1].score) / 2
        above = predictor(decode_image(split.read(index)), threshold=middle)
        assert above == [each for each in found if each.score >= middle]
