"""The typed configuration of a training job: what every key means, its bounds and its default.

Presets (`presets/*.yaml`) give these records their values; `load_job_config` in `presets.py` reads
them. Sizes are pixels, intervals optimiser steps, fractions 0…1 of the whole run.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from run_config.section import A_PLACE, Beta, Fraction, Pixels, Positive, Rate, Section, Weight

LEARNED_CELLS = 50
"""Rows and columns for which the published learned position encoding has vectors."""


MOST_BOXES = 5000
"""Boxes that are kept for an image, whatever the number of queries."""


def advised_queries(boxes: int) -> int:
    """A number of queries for images with up to this many boxes: a few more than boxes."""
    return min(boxes + 20, MOST_BOXES)


class DetrModel(Section):
    """DETR as published (arXiv 2005.12872)."""

    family: Literal["detr"] = Field("detr", description="Kind of model.")
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = Field(
        "resnet50", description="The convolutional network that makes the features."
    )
    dilation: bool = Field(False, description="DC5: the last stage keeps stride 16 and dilates instead.")
    backbone_weights: str = Field(
        "",
        description="URL or path of torchvision ImageNet weights for the backbone; empty: random.",
        json_schema_extra=A_PLACE,
    )
    position_embedding: Literal["sine", "learned"] = Field(
        "sine", description="How tokens know their place. The learned one ends at 50 x 50 cells."
    )
    hidden_dim: Positive = Field(256, description="Width of tokens and queries.")
    heads: Positive = Field(8, description="Attention heads.")
    encoder_layers: Annotated[int, Field(ge=0)] = Field(6, description="Transformer layers over the image.")
    decoder_layers: Positive = Field(6, description="Transformer layers over the queries.")
    feedforward_dim: Positive = Field(2048, description="Inner width of the feed-forward parts.")
    dropout: Fraction = Field(0.1, description="Part of the activations set to 0 in training.")
    pre_norm: bool = Field(False, description="Normalise before attention and feed-forward, not after.")
    queries: Positive = Field(
        100,
        description="The most boxes an image can get, up to 5000. Public checkpoints have 100; change it only from "
        "scratch.",
    )
    aux_loss: bool = Field(True, description="A loss on every decoder layer, not on the last alone.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "DetrModel":
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 2 x heads ({self.heads})")
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4: sine and cosine of x and y")
        if self.dilation and self.backbone in ("resnet18", "resnet34"):
            raise ValueError("dilation needs a backbone with bottleneck blocks: resnet50 or resnet101")
        return self


class TinyModel(Section):
    """A small deformable DETR that learns from random initialisation: strides 8, 16 and 32."""

    family: Literal["tiny"] = Field("tiny", description="Kind of model.")
    stem_channels: Positive = Field(48, description="Channels of the two stem convolutions.")
    stage_channels: tuple[Positive, Positive, Positive, Positive] = Field(
        (48, 96, 192, 192), description="Channels of the stages at strides 4, 8, 16 and 32."
    )
    stage_blocks: tuple[Positive, Positive, Positive, Positive] = Field(
        (1, 2, 2, 1), description="Residual blocks of these stages."
    )
    hidden_dim: Positive = Field(128, description="Width of tokens and queries.")
    heads: Positive = Field(4, description="Attention heads.")
    points: Positive = Field(4, description="Sampling points of each head on each level.")
    encoder_layers: Annotated[int, Field(ge=0)] = Field(1, description="Attention layers on stride 32.")
    decoder_layers: Positive = Field(3, description="Deformable layers, each of which refines the boxes.")
    feedforward_dim: Positive = Field(512, description="Inner width of the feed-forward parts.")
    queries: Positive = Field(
        60,
        description="Tokens taken from the encoder: the most objects that can be found in an image, up to 5000. The "
        "best 100 boxes of an image are kept, or as many as there are queries where these are more.",
    )
    prior_box: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.07,
        description="Side of the prior box on the finest level, as a part of the image; doubles by level.",
    )
    dropout: Fraction = Field(0.0, description="Part of the activations set to 0 in training.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "TinyModel":
        if self.hidden_dim % (4 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4 x heads ({self.heads})")
        return self


class Loss(Section):
    """Weights of the loss terms, and of the costs by which queries are matched to boxes."""

    classification: Weight = Field(1.0, description="Cross entropy (detr) or varifocal loss (tiny).")
    bbox: Weight = Field(5.0, description="L1 distance of cxcywh boxes in 0…1.")
    giou: Weight = Field(2.0, description="1 - generalised IoU.")
    no_object: Fraction = Field(0.1, description="Weight of the no-object class in the cross entropy (detr).")
    cost_class: Weight = Field(1.0, description="Weight of the class in matching: -probability, or focal cost (tiny).")
    cost_bbox: Weight = Field(5.0, description="Weight of the L1 distance in matching.")
    cost_giou: Weight = Field(2.0, description="Weight of -GIoU in matching.")


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
    brightness: Fraction = Field(0.0, description="Largest change of brightness (affine).")
    contrast: Fraction = Field(0.0, description="Largest change of contrast (affine).")
    saturation: Fraction = Field(0.0, description="Largest change of saturation (affine).")
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
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        "auto", description="Processes that decode and augment; auto: beside a GPU one a core, up to 8; else none."
    )
    cache: bool = Field(False, description="Keep images, decoded and resized, in memory (small sets).")
    min_sizes: tuple[Pixels, ...] = Field(
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        min_length=1,
        description="Short sides that training draws from.",
    )
    max_size: Pixels = Field(1333, description="Bound of the long side.")
    eval_size: Pixels = Field(800, description="Short side in evaluation and prediction.")
    augmentation: Augmentation = Augmentation()


class Optimizer(Section):
    """AdamW with one learning rate for the backbone and one for the rest."""

    lr: Annotated[float, Field(gt=0, le=1)] = Field(1e-4, description="Peak rate of all but the backbone.")
    lr_backbone: Rate = Field(1e-5, description="Peak rate of the backbone; 0 freezes it.")
    weight_decay: Rate = Field(1e-4, description="Decay of AdamW.")
    decay_vectors: bool = Field(True, description="Decay biases, norms and embeddings too, as DETR does.")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Memory of AdamW's two averages.")
    clip_norm: Annotated[float, Field(ge=0)] = Field(0.1, description="Bound of the gradient's norm; 0: none.")


class Schedule(Section):
    """How long, and how the rates change. Exactly one of epochs, steps and minutes is set."""

    epochs: Positive | None = Field(None, description="Length in passes over the images; 300 where no length is set.")
    steps: Positive | None = Field(None, description="Length in optimiser steps.")
    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Wall time of training. Runs under it do not repeat bit for bit."
    )
    kind: Literal["step", "cosine", "constant"] = Field("step", description="How the rates fall.")
    drop_at: tuple[Fraction, ...] = Field(
        (2 / 3,), description="Parts of the run after which a step schedule multiplies the rates by drop_factor."
    )
    drop_factor: Fraction = Field(0.1, description="What a drop multiplies the rates by.")
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

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        42, description="Fixes the first weights, the order, the augmentation and the dropout."
    )
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

    @model_validator(mode="before")
    @classmethod
    def _published_family(cls, values: object) -> object:
        """A file without a base may leave the family out."""
        if isinstance(values, dict) and isinstance(values.get("model"), dict) and "family" not in values["model"]:
            return {**values, "model": {"family": "detr", **values["model"]}}
        return values

    @model_validator(mode="after")
    def _places_for_every_cell(self) -> "JobConfig":
        model = self.model
        if isinstance(model, DetrModel) and model.position_embedding == "learned":
            stride = 16 if model.dilation else 32
            if self.data.max_size > LEARNED_CELLS * stride:
                raise ValueError(
                    f"model.position_embedding: learned encodings end at {LEARNED_CELLS} x {LEARNED_CELLS} cells of "
                    f"{stride} pixels; set data.max_size to {LEARNED_CELLS * stride} or less, or use sine"
                )
        return self
