"""The typed configuration of a training job: what every key means, its bounds and its default.

Presets (`presets/*.yaml`) give these records their values; `load_job_config` in `presets.py` reads
them. Sizes are pixels, intervals optimiser steps, fractions 0…1 of the whole run.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]
Rate = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DetrModel(Section):
    """DETR as published (arXiv 2005.12872)."""

    family: Literal["detr"] = "detr"
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    dilation: bool = Field(False, description="DC5: the last stage keeps stride 16 and dilates instead.")
    backbone_weights: str = Field(
        "", description="URL or path of torchvision ImageNet weights for the backbone; empty: random."
    )
    position_embedding: Literal["sine", "learned"] = "sine"
    hidden_dim: Positive = 256
    heads: Positive = 8
    encoder_layers: Annotated[int, Field(ge=0)] = 6
    decoder_layers: Positive = 6
    feedforward_dim: Positive = 2048
    dropout: Fraction = 0.1
    pre_norm: bool = False
    queries: Positive = 100
    aux_loss: bool = Field(True, description="A loss on every decoder layer, not on the last alone.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "DetrModel":
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 2 x heads ({self.heads})")
        if self.dilation and self.backbone in ("resnet18", "resnet34"):
            raise ValueError("dilation needs a backbone with bottleneck blocks: resnet50 or resnet101")
        return self


class TinyModel(Section):
    """A small deformable DETR that learns from random initialisation: strides 8, 16 and 32."""

    family: Literal["tiny"] = "tiny"
    stem_channels: Positive = 48
    stage_channels: tuple[Positive, Positive, Positive, Positive] = Field(
        (48, 96, 192, 192), description="Channels of the stages at strides 4, 8, 16 and 32."
    )
    stage_blocks: tuple[Positive, Positive, Positive, Positive] = (1, 2, 2, 1)
    hidden_dim: Positive = 128
    heads: Positive = 4
    points: Positive = Field(4, description="Sampling points of each head on each level.")
    encoder_layers: Annotated[int, Field(ge=0)] = Field(1, description="Attention layers on stride 32.")
    decoder_layers: Positive = 3
    feedforward_dim: Positive = 512
    queries: Positive = Field(
        60, description="Tokens taken from the encoder: the most boxes an image can get."
    )
    prior_box: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.07,
        description="Side of the prior box on the finest level, as a part of the image; doubles by level.",
    )
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "TinyModel":
        if self.hidden_dim % (4 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4 x heads ({self.heads})")
        return self


class Loss(Section):
    """Weights of the loss terms, and of the costs by which queries are matched to boxes."""

    classification: Weight = Field(1.0, description="Cross entropy (detr) or varifocal loss (tiny).")
    bbox: Weight = Field(5.0, description="L1 distance of cxcywh boxes in 0…1.")
    giou: Weight = 2.0
    no_object: Fraction = Field(0.1, description="Weight of the no-object class in the cross entropy (detr).")
    cost_class: Weight = 1.0
    cost_bbox: Weight = 5.0
    cost_giou: Weight = 2.0


class Augmentation(Section):
    """What training images go through. Evaluation only resizes."""

    recipe: Literal["published", "affine", "none"] = Field(
        "published",
        description="published: DETR's flips, scales and crops; affine: one random affine map and colour, "
        "for small images; none: resize only.",
    )
    flip: Fraction = Field(0.5, description="Probability of a mirror image, left to right.")
    vertical_flip: Fraction = Field(0.0, description="Probability of a mirror image, top to bottom (affine).")
    crop: Fraction = Field(0.5, description="Probability of a random crop (published).")
    scale: tuple[float, float] = Field((0.75, 1.35), description="Range of the random zoom (affine).")
    aspect: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="Largest change of aspect (affine).")
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    min_visible: Fraction = Field(
        0.3, description="A box is dropped when less than this part of it stays in the picture (affine)."
    )

    @model_validator(mode="after")
    def _range_in_order(self) -> "Augmentation":
        low, high = self.scale
        if not 0 < low <= high <= 10:
            raise ValueError(f"scale must be two numbers, 0 < low <= high <= 10, not {low}, {high}")
        return self


class Data(Section):
    """Images, batches and the processes that decode them."""

    batch_size: Positive = Field(2, description="Images a step takes through the model at once.")
    accumulate: Positive = Field(1, description="Batches whose gradients make one optimiser step.")
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"
    cache: bool = Field(False, description="Keep images, decoded and resized, in memory (small sets).")
    min_sizes: tuple[Positive, ...] = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        min_length=1,
        description="Short sides that training draws from.",
    )
    max_size: Positive = Field(1333, description="Bound of the long side.")
    eval_size: Positive = Field(800, description="Short side in evaluation and prediction.")
    augmentation: Augmentation = Augmentation()


class Optimizer(Section):
    """AdamW with one learning rate for the backbone and one for the rest."""

    lr: Annotated[float, Field(gt=0, le=1)] = 1e-4
    lr_backbone: Rate = Field(1e-5, description="0 freezes the backbone.")
    weight_decay: Rate = 1e-4
    decay_vectors: bool = Field(True, description="Decay biases, norms and embeddings too, as DETR does.")
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Bound of the gradient's norm; 0: none."
    )


class Schedule(Section):
    """How long, and how the rates change. Exactly one of epochs, steps and minutes is set."""

    epochs: Positive | None = Field(None, description="300 when no length is set at all.")
    steps: Positive | None = None
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Wall time of training. Runs under it do not repeat bit for bit."
    )
    kind: Literal["step", "cosine", "constant"] = "step"
    drop_at: tuple[Fraction, ...] = Field(
        (2 / 3,), description="Where step schedules multiply by drop_factor."
    )
    drop_factor: Fraction = 0.1
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Part of the run that warms up.")
    final_lr: Fraction = Field(0.01, description="Where cosine ends, as a part of the rate.")

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
    """Everything else that changes the weights."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware has it. Losses and matching are fp32 always."
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Decay of the moving average of the weights, which then is what is evaluated; 0: off.",
    )
    log_interval: Positive = Field(20, description="Steps between two lines of metrics.")


class Evaluation(Section):
    """When the validation split is predicted, and when training ends early."""

    interval: Annotated[int, Field(ge=0)] = Field(0, description="Steps between evaluations; 0: every epoch.")
    batch_size: Positive = Field(4, description="Images of equal shape predicted at once.")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="Stop after so many evaluations without a better AP; 0: never."
    )
    min_delta: Fraction = Field(0.0, description="By how much AP must rise to count as better.")


class Checkpoints(Section):
    """What is kept, so that a lost machine costs little."""

    interval: Annotated[int, Field(ge=0)] = Field(0, description="Steps between checkpoints; 0: every epoch.")
    keep: Positive = Field(2, description="Newest checkpoints kept; the best one is kept besides.")


class JobConfig(Section):
    """A whole training job."""

    model: Annotated[DetrModel | TinyModel, Field(discriminator="family")] = DetrModel()
    loss: Loss = Loss()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
