"""A family of models gets the targets, the number of boxes and a generator, and is found from its name."""

import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from detr_job.errors import Interrupted, JobError
from detr_job.family import Family, build_family
from detr_job.models.losses import Losses
from detr_job.models.outputs import Outputs, Targets
from detr_job.models.postprocess import Detections, sigmoid_detections
from detr_job.stop_request import StopRequest
from detr_job.training.micro_batches import MicroBatches
from detr_job.training.progress import ProgressReport
from detr_job.training.trainer import Trainer
from detr_job.training.uploads import Uploads
from object_store import open_store
from prepared_set.reader import LocalSet, PreparedSet
from run_config.families.model import ModelConfig
from run_config.families.registry import FAMILIES
from run_config.job.config import JobConfig
from run_config.job.presets import checked
from tests.detr_job.pictures import mixed_set, small_config

CPU = torch.device("cpu")


class DenoisingModel(ModelConfig):
    title = "Denoising"

    family: Literal["denoising"] = Field("denoising", description="Model family.")
    width: int = Field(8, description="Channels.")

    @property
    def most_objects(self) -> int:
        return 10

    @property
    def depths(self) -> dict[str, int]:
        return {}


class DenoisingNetwork(nn.Module):
    """Boxes with noise, and the colour of their image, to boxes without."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, images: Tensor, padding_mask: Tensor | None, noisy: Tensor, image: Tensor) -> Tensor:
        del padding_mask
        found: Tensor = self.layers(torch.cat((noisy, images.mean((2, 3))[image]), dim=1))
        return found


class DenoisingFamily(Family):
    """Remembers what each call of `losses` was given."""

    most_detections = 10

    def __init__(self, config: JobConfig, num_classes: int) -> None:
        del num_classes
        assert isinstance(config.model, DenoisingModel)
        self.network = DenoisingNetwork(config.model.width)
        self.noise: list[Tensor] = []
        self.boxes: list[tuple[float, int]] = []

    def losses(
        self,
        network: nn.Module,
        images: Tensor,
        padding_mask: Tensor | None,
        targets: Targets,
        *,
        num_boxes: float,
        generator: torch.Generator,
    ) -> Losses:
        noise = 0.1 * torch.randn(targets.boxes.shape, generator=generator, device=images.device)
        self.noise.append(noise)
        self.boxes.append((num_boxes, len(targets)))
        image = torch.repeat_interleave(torch.tensor(targets.counts))
        found = network(images, padding_mask, targets.boxes + noise, image)
        total = (found - targets.boxes).abs().sum() / num_boxes
        return Losses(total, {"loss_denoising": total.detach()})

    def detections(self, outputs: Outputs, sizes: Tensor) -> list[Detections]:
        return sigmoid_detections(outputs, sizes)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is registered as a folder, a module and a line would do it."""
    module = ModuleType("detr_job.models.denoising.family")
    module.build = DenoisingFamily  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(FAMILIES, "denoising", DenoisingModel)


@pytest.fixture
def local(tmp_path: Path) -> LocalSet:
    return PreparedSet.open(open_store(tmp_path / "store"), mixed_set(tmp_path)).pull(tmp_path / "pulled")


def trained(local: LocalSet, run: Path, config: JobConfig, stop_after: int = 0) -> tuple[Trainer, DenoisingFamily]:
    """Train, or go on with, the run in a folder; `stop_after` so many calls of `losses` somebody asks to stop."""
    torch.manual_seed(config.training.seed)
    family = build_family(config, 2)
    assert isinstance(family, DenoisingFamily)
    stop, uploads = StopRequest(), Uploads()
    if stop_after:
        whole = family.losses

        def losses(*arguments: object, **named: object) -> Losses:
            if len(family.noise) == stop_after - 1:
                stop.signal = signal.SIGTERM
            return whole(*arguments, **named)  # type: ignore[arg-type]

        family.losses = losses  # type: ignore[method-assign]
    micro = MicroBatches(config.data.batch_size, fixed=True, record=lambda _: None)
    trainer = Trainer(config, family, local, open_store(run), CPU, uploads, stop, micro, evaluation_batch_chosen=False)
    trainer.resume(lambda _: None)
    try:
        if stop_after:
            with pytest.raises(Interrupted):
                trainer.train(ProgressReport())
        else:
            trainer.train(ProgressReport())
        uploads.finish(10)
    finally:
        uploads.close()
    return trainer, family


@pytest.mark.usefixtures("registered")
def test_a_family_with_targets_in_its_forward_pass_trains_and_repeats_its_noise_after_a_resume(
    tmp_path: Path, local: LocalSet
):
    options = {"schedule.steps": 5, "data.batch_size": 3, "data.workers": 0, "data.accumulate": 2}
    tree = small_config("tiny", **options).model_dump()
    config = checked(tree | {"model": {"family": "denoising"}}, "test")
    whole, undisturbed = trained(local, tmp_path / "whole", config)
    _, first = trained(local, tmp_path / "parts", config, stop_after=4)
    parts, second = trained(local, tmp_path / "parts", config)
    assert (len(undisturbed.noise), len(first.noise), len(second.noise)) == (10, 4, 6)
    for mine, theirs in zip(undisturbed.noise, [*first.noise, *second.noise], strict=True):
        assert torch.equal(mine, theirs)
    numbers = [float(each[0, 0]) for each in undisturbed.noise if len(each)]
    assert len(set(numbers)) == len(numbers) > 5, "each batch of each step has noise of its own"
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, parts.network.state_dict()[name]), name
    for one, two in zip(undisturbed.boxes[::2], undisturbed.boxes[1::2], strict=True):
        assert one[0] == two[0] == max(one[1] + two[1], 1) / 2, "both batches of a step are divided by its mean"


@pytest.mark.usefixtures("registered")
def test_another_seed_draws_other_noise(tmp_path: Path, local: LocalSet):
    drawn = []
    for seed in (1, 2):
        tree = small_config("tiny", **{"schedule.steps": 1, "data.workers": 0, "training.seed": seed}).model_dump()
        _, family = trained(local, tmp_path / f"{seed}", checked(tree | {"model": {"family": "denoising"}}, "test"))
        drawn.append(family.noise[0][0, 0])
    assert drawn[0] != drawn[1]


def test_a_family_without_a_network_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FAMILIES, "denoising", DenoisingModel)
    config = checked({"model": {"family": "denoising"}}, "test")
    with pytest.raises(JobError, match="there is no network for models of the family 'denoising'"):
        build_family(config, 2)


@pytest.mark.usefixtures("registered")
def test_a_family_without_weights_of_a_backbone_refuses_them(tmp_path: Path):
    family = build_family(checked({"model": {"family": "denoising"}}, "test"), 2)
    with pytest.raises(JobError, match="models of this family do not start from weights of a backbone"):
        family.load_backbone(tmp_path / "resnet50.pth")
