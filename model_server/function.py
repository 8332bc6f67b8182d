"""A trained model as a function for CVAT's own tools: `cvat-cli task auto-annotate` and `cvat_sdk.auto_annotation`.

    cvat-cli task auto-annotate 8 --function-file model_server/function.py \
        -p model=str:s3://bucket/workflow-data/output/RUN/model -p device=str:auto --allow-unmatched-labels

Labels are matched by name. The lowest score of a box is `--conf-threshold`, else `-p threshold=float:0.4`, else the
model's own threshold. A box that repeats a better one is left out; `-p keep_repeated=bool:true`
keeps it.
"""

from collections.abc import Collection, Sequence

import cvat_sdk.auto_annotation as cvataa  # type: ignore[import-untyped]
from PIL import Image

from detr_job import hardware
from detr_job.prediction.predictor import Found, Predictor, upright_rgb_of
from detr_job.prediction.repeated import without_repeated


class Detector:
    """A detection function in the sense of CVAT's SDK."""

    def __init__(self, predictor: Predictor, threshold: float | None, *, keep_repeated: bool = False) -> None:
        self.predictor, self.threshold, self.keep_repeated = predictor, threshold, keep_repeated
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[cvataa.label_spec(name, index, type="rectangle") for index, name in enumerate(predictor.classes)]
        )
        self.at_limit = False
        """Whether the number of boxes on the last image reached the model's limit."""
        self._ids = {name: index for index, name in enumerate(predictor.classes)}

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> Sequence[cvataa.DetectionAnnotation]:
        """Return rectangles with scores. UnreadableImage: the image is damaged."""
        threshold = self.threshold if context.conf_threshold is None else context.conf_threshold
        return [
            cvataa.rectangle(self._ids[found.label], found.corners, score=round(found.score, 4))
            for found in self.find(image, threshold, self._ids)
        ]

    def find(self, image: Image.Image, threshold: float | None, classes: Collection[str]) -> list[Found]:
        """Detections of these classes. threshold: None means the model's own. UnreadableImage: the image is damaged."""
        everything = self.predictor(upright_rgb_of(image), threshold)
        self.at_limit = self.predictor.at_limit(everything, threshold)
        # A box whose class has no label must not hide another one.
        found = [each for each in everything if each.label in classes]
        return found if self.keep_repeated else without_repeated(found)


def create(
    model: str, device: str = "auto", threshold: float | None = None, *, keep_repeated: bool = False
) -> Detector:
    """Create the function for one model. JobError: the model cannot be used.

    model: URL or path of the model's folder or its run's folder. threshold: lowest score. None: the model's own.
    keep_repeated: keep boxes that repeat a better one.
    """
    chosen = hardware.choose_device(device)
    hardware.prepare(chosen)
    return Detector(Predictor(model, chosen), threshold, keep_repeated=keep_repeated)
