"""Faster R-CNN computes what torchvision's computes with the same weights, from images that are already prepared."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from detr_job.family import Family, build_family
from detr_job.models.faster_rcnn.network import BUILDERS, EPSILON, Candidates, FasterRcnn
from detr_job.models.outputs import Targets
from detr_job.weights.finetune import WeightsSource, load_weights
from run_config.job.presets import load_job_config
from run_config.weights.coco_classes import COCO_CLASSES
from tests.detr_job.golden import BOXES, padded_pair

PRESETS = {"resnet50": "faster-rcnn-r50", "mobilenet_v3": "faster-rcnn-mobilenet"}
SIZES = ((128, 192), (160, 128))


def torchvisions(backbone: str, classes: int) -> GeneralizedRCNN:
    """With random weights, norms and images as in a published model; images are taken as they are."""
    torch.manual_seed(1)
    model = BUILDERS[backbone](
        weights=None,
        weights_backbone=None,
        num_classes=classes + 1,
        image_mean=(0.0, 0.0, 0.0),
        image_std=(1.0, 1.0, 1.0),
    )
    model.transform.resize = lambda image, target: (image, target)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
            for each in (module.running_var, module.weight.data):
                each.uniform_(0.7, 1.1)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:  # large enough that no two regions have the same score, and that none has 1
            gain = 0.1 if "bbox" in name else 0.3 if "cls_score" in name else 1.2
            nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)
    return model


def family_of(backbone: str, classes: int) -> Family:
    return build_family(load_job_config(PRESETS[backbone], ["loss.classification=1"]), classes)


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request: pytest.FixtureRequest) -> tuple[GeneralizedRCNN, Family]:
    """torchvision's model and ours with its weights, which are loaded strictly."""
    theirs = torchvisions(request.param, 5)
    family = family_of(request.param, 5)
    weights = family.own_names(theirs.state_dict())
    weights = {name: each for name, each in weights.items() if not name.endswith("num_batches_tracked")}
    family.network.load_state_dict(weights)
    return theirs, family


def pictures() -> tuple[Tensor, Tensor, list[Tensor]]:
    images, mask = padded_pair()
    each = [image[:, :height, :width] for image, (height, width) in zip(images, SIZES, strict=True)]
    return images, mask, each


def test_detections_are_torchvisions_and_none_is_of_the_background(pair: tuple[GeneralizedRCNN, Family]):
    theirs, family = pair
    images, mask, each = pictures()
    with torch.no_grad():
        wanted = theirs.double().eval()([image.double() for image in each])
        found = family.network.double().eval()(images.double(), mask)
    detected = family.detections(found, torch.tensor(SIZES))
    assert isinstance(found, Candidates)
    for ours, reference in zip(detected, wanted, strict=True):
        assert len(ours.scores) == len(reference["scores"]) > 20
        torch.testing.assert_close(ours.scores, reference["scores"])
        torch.testing.assert_close(ours.boxes, reference["boxes"])
        assert torch.equal(ours.labels, reference["labels"] - 1)


def test_losses_and_gradients_are_torchvisions_and_random_numbers_the_generators(pair: tuple[GeneralizedRCNN, Family]):
    theirs, family = pair
    images, mask, each = pictures()
    labels, boxes = torch.tensor((3, 1, 4, 0)), torch.tensor(BOXES)
    scales = [torch.tensor((width, height, width, height)) for height, width in SIZES]
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)
    torch.manual_seed(7)
    theirs.float().eval()  # the norms of our network never change
    for part in (theirs, theirs.rpn, theirs.roi_heads):
        part.training = True
    wanted = theirs(
        each,
        [
            {"boxes": (corners[:3] * scales[0]), "labels": labels[:3] + 1},
            {"boxes": (corners[3:] * scales[1]), "labels": labels[3:] + 1},
        ],
    )
    sum(wanted.values()).backward()
    family.network.float().train()
    before = torch.get_rng_state()
    losses = family.losses(
        family.network,
        images,
        mask,
        Targets(labels, boxes, (3, 1)),
        num_boxes=4,
        generator=torch.Generator().manual_seed(7),
    )
    losses.total.backward()
    assert torch.equal(torch.get_rng_state(), before)
    names = {
        "loss_ce": "loss_classifier",
        "loss_bbox": "loss_box_reg",
        "loss_rpn_ce": "loss_objectness",
        "loss_rpn_bbox": "loss_rpn_box_reg",
    }
    expected = {ours: wanted[name].item() for ours, name in names.items()}
    assert {name: term.item() for name, term in losses.terms.items()} == pytest.approx(expected, rel=1e-4)
    assert losses.total.item() == pytest.approx(sum(expected.values()), rel=1e-4)
    gradients = family.own_names({name: each.grad for name, each in theirs.named_parameters() if each.grad is not None})
    compared = 0
    for name, parameter in family.network.named_parameters():
        if parameter.grad is not None:
            assert (parameter.grad - gradients[name]).norm() <= 1e-3 * gradients[name].norm() + 1e-6, name
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("backbone", BUILDERS)
def test_files_of_the_published_form_keep_the_rows_of_known_names(backbone: str):
    rows = len(COCO_CLASSES) - 1
    with torch.no_grad():
        file = dict(torchvisions(backbone, rows).state_dict())
    for name in [name for name in file if name.startswith(("backbone.fpn.", "rpn.head.conv."))]:
        file[name.replace(".0.0.", ".0." if "fpn" in name else ".")] = file.pop(
            name
        )  # the names of the published files
    classes = ("cat", "gadget", "Traffic_Light")
    family = family_of(backbone, 3)
    before = {name: each.clone() for name, each in family.network.state_dict().items()}
    report = load_weights(family, WeightsSource("coco.pth", file, None), classes)
    assert report.kept_classes == ("cat", "Traffic_Light")
    assert not report.fresh
    assert [name for name in report.ignored if not name.endswith("num_batches_tracked")] == []
    after, cat = family.network.state_dict(), COCO_CLASSES.index("cat")
    scores, boxes = (f"roi_heads.box_predictor.{part}.weight" for part in ("cls_score", "bbox_pred"))
    assert torch.equal(after[scores][0], file[scores][cat])
    assert torch.equal(after[scores][3], file[scores][0]), "the background, last here"
    assert torch.equal(after[boxes][0], file[boxes][4 * cat : 4 * cat + 4])
    assert torch.equal(after[boxes][1], before[boxes][1])
    # a file that this program wrote is not turned a second time
    again = family.own_names(after)
    assert all(torch.equal(again[name], each) for name, each in after.items())


def test_the_first_layers_are_frozen_as_torchvision_freezes_them():
    for backbone in BUILDERS:
        family = family_of(backbone, 2)
        published = BUILDERS[backbone](weights=None, weights_backbone=None, num_classes=3).backbone.body
        stages = ["conv1", "layer1"] if backbone == "resnet50" else [str(number) for number in range(7)]
        frozen = {f"backbone.body.{name}" for name, _ in published.named_parameters() if name.split(".")[0] in stages}
        trained = {name for name, each in family.network.named_parameters() if each.requires_grad}
        assert not trained & frozen
        assert len(trained) > 40


def test_from_random_weights_all_layers_and_norms_learn_and_their_model_can_be_frozen_later():
    config = load_job_config("faster-rcnn-mobilenet", ["model.freeze_norms=false"])
    live = build_family(config, 2)
    assert all(each.requires_grad for each in live.network.parameters())
    assert any(isinstance(module, nn.BatchNorm2d) for module in live.network.modules())
    frozen = family_of("mobilenet_v3", 2)
    report = load_weights(frozen, WeightsSource("run", live.network.state_dict(), ("a", "b")), ("a", "b"))
    assert not report.fresh
    assert all(name.endswith("num_batches_tracked") for name in report.ignored)


def test_the_number_of_boxes_and_the_thresholds_are_the_configurations():
    network = family_of("mobilenet_v3", 2).network
    assert isinstance(network, FasterRcnn)
    torch.manual_seed(3)
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        found = network.eval()(image)
    sizes = torch.tensor([[128, 128]])
    few, strict, all_of_them = (
        build_family(load_job_config("faster-rcnn-mobilenet", options), 2).detections(found, sizes)[0]
        for options in (["model.queries=5"], ["model.score_threshold=0.99"], ["model.nms_threshold=1.0"])
    )
    assert len(few.scores) == 5
    assert len(strict.scores) == 0
    assert len(all_of_them.scores) == 100
    assert few.scores.tolist() == sorted(few.scores.tolist(), reverse=True)
