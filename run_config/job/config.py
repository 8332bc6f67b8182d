"""The typed configuration of a training job: the meaning, the bounds and the default of every key.

Presets (`presets/*.yaml`) give these records their values; `load_job_config` in `presets.py` reads them. Sizes are in
pixels, intervals in optimiser steps, and fractions are 0…1 of the whole run.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from run_config.families.model import ModelConfig
from run_config.families.registry import DEFAULT, FAMILIES, model_config
from run_config.section import (
    MAY_BE_AUTO,
    Beta,
    Fraction,
    Images,
    Pixels,
    PositiveSteps,
    Rate,
    Section,
    Steps,
    Weight,
    Zoom,
    added_later,
)

MOST_BOXES = 5000
"""The largest number of boxes that are kept for an image, whatever the number of queries."""


def advised_queries(boxes: int) -> int:
    """A good number of queries for images with up to `boxes` boxes: slightly more."""
    return min(boxes + 20, MOST_BOXES)


class Loss(Section):
    """Weights of the loss terms, and of the matching costs between queries and boxes."""

    classification: Weight = Field(1.0, description="Cross entropy or varifocal loss, depending on the model family.")
    bbox: Weight = Field(5.0, description="L1 distance of cxcywh boxes in 0…1.")
    giou: Weight = Field(2.0, description="1 - generalised IoU.")
    fgl: Weight = Field(
        0.15,
        description="Fine-grained localisation: cross entropy of D-FINE's distributions.",
        json_schema_extra=added_later(0.15),
    )
    ddf: Weight = Field(
        1.5,
        description="Distillation: divergence of each D-FINE layer's distributions from the last layer's.",
        json_schema_extra=added_later(1.5),
    )
    no_object: Fraction = Field(0.1, description="Weight of the no-object class in the cross entropy.")
    cost_class: Weight = Field(
        1.0,
        description="Weight of the class in matching: -probability, or focal cost with varifocal loss.",
    )
    cost_bbox: Weight = Field(5.0, description="Weight of the L1 distance in matching.")
    cost_giou: Weight = Field(2.0, description="Weight of -GIoU in matching.")

    @model_validator(mode="after")
    def _learns_something(self) -> "Loss":
        for kind, weights in (
            ("classification, bbox and giou", (self.classification, self.bbox, self.giou)),
            ("cost_class, cost_bbox and cost_giou", (self.cost_class, self.cost_bbox, self.cost_giou)),
        ):
            if not any(weights):
                raise ValueError(f"{kind} cannot all be 0: nothing would be learnt")
        return self


class Augmentation(Section):
    """Augmentation of the training images. Evaluation images are only resized."""

    recipe: Literal["published", "affine", "none"] = Field(
        "published",
        description="published: DETR's flips, scales and crops; affine: one random affine map and colour, "
        "for small images; none: resize only.",
    )
    flip: Fraction = Field(0.5, description="Probability of a mirror image, left to right.")
    vertical_flip: Fraction = Field(
        0.0, description="Probability of a mirror image, top to bottom (affine).", json_schema_extra=MAY_BE_AUTO
    )
    crop: Fraction = Field(0.5, description="Probability of a random crop (published).")
    scale: tuple[Zoom, Zoom] = Field((0.75, 1.35), description="Range of the random zoom (affine).")
    aspect: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="Largest change of aspect (affine).")
    brightness: Fraction = Field(0.0, description="Largest change of brightness (affine).")
    contrast: Fraction = Field(0.0, description="Largest change of contrast (affine).")
    saturation: Fraction = Field(0.0, description="Largest change of saturation (affine).")
    mosaic: Fraction = Field(
        0.0,
        description="Probability that a training image is put together from four images (affine).",
        json_schema_extra=added_later(0.0) | MAY_BE_AUTO,
    )
    min_visible: Fraction = Field(
        0.3, description="Drop a box when a smaller fraction of it stays in the image (affine)."
    )

    @model_validator(mode="after")
    def _range_in_order(self) -> "Augmentation":
        low, high = self.scale
        if low > high:
            raise ValueError(f"scale must be two numbers, 0.01 <= low <= high <= 10, not {low}, {high}")
        return self


class Data(Section):
    """Images, batches and the processes that decode images."""

    batch_size: Images = Field(
        2,
        description="Images per batch. auto: fewer if a GPU has too little memory, with more batches per step.",
        json_schema_extra=MAY_BE_AUTO,
    )
    accumulate: Images = Field(1, description="Batches whose gradients make one optimiser step.")
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto",
        description="Processes that decode and augment; auto: one per core with a GPU (at most 8), otherwise 0.",
    )
    cache: bool = Field(False, description="Keep decoded and resized images in memory (small sets).")
    min_sizes: tuple[Pixels, ...] = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        min_length=1,
        description="Short sides, of which training picks one at random.",
        json_schema_extra=MAY_BE_AUTO,
    )
    max_size: Pixels = Field(1333, description="Largest long side.", json_schema_extra=MAY_BE_AUTO)
    eval_size: Pixels = Field(
        800, description="Short side in evaluation and prediction.", json_schema_extra=MAY_BE_AUTO
    )
    square: bool = Field(
        False,
        description="Stretch images to squares of these sizes instead of keeping their aspect ratio.",
        json_schema_extra=added_later(False),
    )
    balance: bool = Field(
        False,
        description="Show images with rare classes more often.",
        json_schema_extra=added_later(False) | MAY_BE_AUTO,
    )
    augmentation: Augmentation = Augmentation()


class Optimizer(Section):
    """AdamW with one learning rate for the backbone and one for the rest."""

    lr: Annotated[float, Field(gt=0, le=1)] = Field(
        1e-4, description="Peak learning rate, except of the backbone.", json_schema_extra=MAY_BE_AUTO
    )
    lr_backbone: Rate = Field(
        1e-5, description="Peak learning rate of the backbone; 0 freezes it.", json_schema_extra=MAY_BE_AUTO
    )
    freeze_backbone: bool = Field(
        False,
        description="Keep the backbone as it was loaded, as with lr_backbone=0.",
        json_schema_extra=added_later(False) | MAY_BE_AUTO,
    )
    weight_decay: Rate = Field(1e-4, description="Weight decay of AdamW.")
    decay_vectors: bool = Field(True, description="Also decay biases, norms and embeddings, as DETR does.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Decay rates of AdamW's two moving averages.")
    clip_norm: Annotated[float, Field(ge=0, le=1e9)] = Field(
        0.1, description="Largest norm of the gradient; 0: no clipping."
    )


class Schedule(Section):
    """The length of training and the change of the learning rates. Set exactly one of epochs, steps and minutes."""

    epochs: PositiveSteps | None = Field(None, description="Length in passes over the images; 300 if no length is set.")
    steps: PositiveSteps | None = Field(None, description="Length in optimiser steps.", json_schema_extra=MAY_BE_AUTO)
    minutes: Annotated[float, Field(gt=0, le=1e7)] | None = Field(
        None, description="Wall time of training. Such runs are not reproducible bit for bit."
    )
    kind: Literal["step", "cosine", "constant"] = Field("step", description="How the learning rates fall.")
    drop_at: tuple[Fraction, ...] = Field(
        (2 / 3,), description="Fractions of the run after which `step` multiplies the rates by drop_factor."
    )
    drop_factor: Fraction = Field(0.1, description="Factor by which a drop multiplies the rates.")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Fraction of the run in which the rates rise to their peak.",
        json_schema_extra=MAY_BE_AUTO,
    )
    final_lr: Fraction = Field(0.01, description="Final rate of `cosine`, as a fraction of the peak rate.")
    small_images: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Fraction of the run, from its start, in which training images are scaled to two thirds of their "
        "width and height (progressive resizing).",
        json_schema_extra=added_later(0.0) | MAY_BE_AUTO,
    )

    @model_validator(mode="before")
    @classmethod
    def _published_length(cls, values: object) -> object:
        if isinstance(values, dict) and not any(key in values for key in ("epochs", "steps", "minutes")):
            return {**values, "epochs": 300}
        return values

    @model_validator(mode="after")
    def _one_length(self) -> "Schedule":
        if sum(value is not None for value in (self.epochs, self.steps, self.minutes)) != 1:
            raise ValueError("set exactly one of epochs, steps and minutes")
        return self


class Training(Section):
    """All other settings that change the weights."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        42, description="Seed of the initial weights, the order of images, augmentation and dropout."
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="auto: bf16 on a GPU that supports it, and on a CPU that has AMX or is measured to be faster in "
        "it; otherwise fp32. Losses and matching are always fp32.",
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Decay of the moving average of the weights; the averaged weights are evaluated and saved; 0: off.",
        json_schema_extra=MAY_BE_AUTO,
    )
    log_interval: PositiveSteps = Field(20, description="Steps between two log lines of metrics.")


class Evaluation(Section):
    """When the model is evaluated on the validation split, and when training stops early."""

    interval: Steps = Field(0, description="Steps between evaluations; 0: every epoch.", json_schema_extra=MAY_BE_AUTO)
    batch_size: Images = Field(4, description="Images per batch, of equal shape.")
    patience: Steps = Field(
        0,
        description="Stop after this many evaluations without a better AP; 0: never.",
        json_schema_extra=MAY_BE_AUTO,
    )
    min_delta: Fraction = Field(0.0, description="Smallest rise of AP that counts as better.")


class Checkpoints(Section):
    """How often checkpoints are saved and how many are kept, so that little work is lost with a machine."""

    interval: Steps = Field(0, description="Steps between checkpoints; 0: every epoch.", json_schema_extra=MAY_BE_AUTO)
    keep: PositiveSteps = Field(2, description="Number of newest checkpoints to keep, besides the best one.")


class JobConfig(Section):
    """The whole configuration of a training job."""

    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(model_config)] = FAMILIES[DEFAULT]()
    loss: Loss = Loss()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()

    @model_validator(mode="after")
    def _model_takes_the_images(self) -> "JobConfig":
        self.model.check_image_size(self.data.max_size)
        return self
