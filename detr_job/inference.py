"""A trained model on single images: what the command line, and later the bridge to CVAT, call."""

from dataclasses import dataclass

import torch
from PIL import Image

from detr_job import pixels
from detr_job.augmentation import Sample, resize
from detr_job.data import collate, normalised
from detr_job.hardware import autocast, use_bf16
from detr_job.model_folder import TrainedModel, load_model


@dataclass(frozen=True, slots=True)
class Found:
    """One detection: class name, score in 0…1, box (x, y, width, height) in pixels."""

    label: str
    score: float
    bbox: tuple[float, float, float, float]


class Predictor:
    """A model from its folder, ready to look at images."""

    def __init__(self, url: str, device: torch.device) -> None:
        self.device = device
        self.model: TrainedModel = load_model(url, device)
        self.classes = self.model.info.classes
        self.bf16 = use_bf16(self.model.config.training, device, insist=False)

    @torch.no_grad()
    def __call__(self, image: Image.Image, threshold: float) -> list[Found]:
        """Detections with at least this score, best first. image: 8-bit RGB, orientation applied."""
        size = self.model.info.preprocessing
        sample = Sample(pixels.pil_to_tensor(image), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        batch = collate([(0, resize(sample, size.eval_size, size.max_size))]).to(self.device)
        with autocast(self.device, bf16=self.bf16):
            outputs = self.model.family.network(normalised(batch), None)
        sizes = torch.tensor([[image.height, image.width]], dtype=torch.float32)
        seen = self.model.family.detections(outputs, sizes)[0]
        found = []
        for score, label, (x1, y1, x2, y2) in zip(
            seen.scores.tolist(), seen.labels.tolist(), seen.boxes.tolist(), strict=True
        ):
            if score >= threshold:
                left, top = max(x1, 0.0), max(y1, 0.0)
                right, bottom = min(x2, float(image.width)), min(y2, float(image.height))
                box = (left, top, max(right - left, 0.0), max(bottom - top, 0.0))
                found.append(Found(self.classes[label], score, box))
        return sorted(found, key=lambda each: -each.score)
