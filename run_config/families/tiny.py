"""The configuration of the small model that can be trained from random weights."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from run_config.families.model import ModelConfig, Recipe
from run_config.section import MAY_BE_AUTO, Fraction, Heads, Layers, PositiveLayers, Width, added_later


class TinyModel(ModelConfig):
    """A small deformable DETR with strides 8, 16 and 32 that can be trained from random weights."""

    title = "Tiny"
    normalised_stride = 32
    beside_weights = frozenset({"dropout", "dense_targets"})
    recipe = Recipe(backbone_share=1.0, sizes=(192, 240), highest_rate=1e-3)

    family: Literal["tiny"] = Field("tiny", description="Model family.")
    stem_channels: Width = Field(48, description="Channels of the two stem convolutions.")
    stage_channels: tuple[Width, Width, Width, Width] = Field(
        (48, 96, 192, 192), description="Channels of the stages at strides 4, 8, 16 and 32."
    )
    stage_blocks: tuple[PositiveLayers, PositiveLayers, PositiveLayers, PositiveLayers] = Field(
        (1, 2, 2, 1), description="Residual blocks of these stages."
    )
    hidden_dim: Width = Field(128, description="Width of tokens and queries.")
    heads: Heads = Field(4, description="Attention heads.")
    points: PositiveLayers = Field(4, description="Sampling points of each head on each level.")
    encoder_layers: Layers = Field(1, description="Self-attention layers on stride 32.")
    decoder_layers: PositiveLayers = Field(3, description="Deformable layers, each of which refines the boxes.")
    feedforward_dim: Width = Field(512, description="Hidden width of the feed-forward layers.")
    queries: Width = Field(
        60,
        description="Largest number of objects per image, up to 5000. The best encoder tokens become queries. Of the "
        "boxes of an image, the best 100 are kept, or one per query if there are more than 100 queries.",
    )
    prior_box: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.07,
        description="Side of the prior box on the finest level, as a fraction of the image; doubles with each level.",
    )
    dense_targets: Layers = Field(
        0,
        description="Tokens per box that a second head on all tokens learns from while training; 0: no such head.",
        json_schema_extra=added_later(0) | MAY_BE_AUTO,
    )
    dropout: Fraction = Field(0.0, description="Fraction of the activations set to 0 in training.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "TinyModel":
        if self.hidden_dim % (4 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4 x heads ({self.heads})")
        return self

    @property
    def finest_stride(self) -> int:
        """Pixels of the input between two cells of the finest feature map."""
        return 8

    @property
    def most_objects(self) -> int:
        """One object per query."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """The number of transformer layers, and of blocks in the longest stage."""
        return {
            "encoder_layers": self.encoder_layers,
            "decoder_layers": self.decoder_layers,
            "stage_blocks": max(self.stage_blocks),
        }
