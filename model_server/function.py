"""A trained model as a function for CVAT's own tools: `cvat-cli task auto-annotate` and `cvat_sdk.auto_annotation`.

    cvat-cli task auto-annotate 8 --function-file model_server/function.py \
        -p model=str:s3://bucket/workflow-data/output/RUN/model -p device=str:auto --allow-unmatched-labels

Labels are matched by name. Boxes have at least the score of `--conf-threshold`, else of `-p threshold=float:0.4`,
else the model's own threshold.
"""

from collections.abc import Sequence

import cvat_sdk.auto_annotation as cvataa  # type: ignore[import-untyped]
from PIL import Image

from detr_job import hardware
from detr_job.inference import Predictor, upright_rgb_of


class Detector:
    """What CVAT's tools call a detection function."""

    def __init__(self, predictor: Predictor, threshold: float | None) -> None:
        self.predictor, self.threshold = predictor, threshold
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, index, type="rectangle") for index, name in enumerate(predictor.classes)]
        )
        self.at_limit = False
        """Whether the last image got as many boxes as the model can give."""
        self._ids = {name: index for index, name in enumerate(predictor.classes)}

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> Sequence[cvataa.DetectionAnnotation]:
        """Rectangles with their scores. UnreadableImage: the image is damaged."""
        threshold = self.threshold if context.conf_threshold is None else context.conf_threshold
        everything = self.predictor(upright_rgb_of(image), threshold)
        self.at_limit = self.predictor.at_limit(everything, threshold)
        shapes = []
        for found in everything:
            left, top, width, height = found.bbox
            points = [round(each, 2) for each in (left, top, left + width, top + height)]
            shapes.append(cvataa.rectangle(self._ids[found.label], points, score=round(found.score, 4)))
        return shapes


def create(model: str, device: str = "auto", threshold: float | None = None) -> Detector:
    """The function of one model. JobError: it cannot be used.

    model: its folder or its run's, as a URL or a path. threshold: lowest score; None: the model's own.
    """
    chosen = hardware.choose_device(device)
    hardware.prepare(chosen)
    return Detector(Predictor(model, chosen), threshold)
