"""The configuration of Deformable DETR."""

from typing import Literal

from pydantic import Field, model_validator

from run_config.families.model import ModelConfig, ResNetModel
from run_config.section import Fraction, Heads, Layers, PositiveLayers, Width

NORM_GROUPS = 32
"""Groups of the norms after the projections of the features."""


class DeformableDetrModel(ResNetModel):
    """Deformable DETR as published (arXiv 2010.04159): single-scale or multi-scale, with refined boxes, two-stage."""

    title = "Deformable DETR"
    from_scratch_images = 10_000

    family: Literal["deformable_detr"] = Field("deformable_detr", description="Model family.")
    levels: Literal[1, 3, 4, 5] = Field(
        4, description="Feature levels: strides 8, 16, 32 and so on, each twice the one before; 1: only stride 32."
    )
    refine: bool = Field(False, description="Each decoder layer has heads of its own and refines the boxes.")
    two_stage: bool = Field(False, description="The best encoder tokens become queries; needs `refine`.")
    hidden_dim: Width = Field(256, description="Width of tokens and queries, a multiple of 32.")
    heads: Heads = Field(8, description="Attention heads.")
    points: PositiveLayers = Field(4, description="Sampling points of each head on each level.")
    encoder_layers: Layers = Field(6, description="Transformer encoder layers.")
    decoder_layers: PositiveLayers = Field(6, description="Transformer decoder layers.")
    feedforward_dim: Width = Field(1024, description="Hidden width of the feed-forward layers.")
    dropout: Fraction = Field(0.1, description="Fraction of the activations set to 0 in training.")
    queries: Width = Field(
        300,
        description="Largest number of boxes per image, up to 5000. Public checkpoints have 300; change it only with "
        "`two_stage`, or when training from scratch.",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> "DeformableDetrModel":
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of heads ({self.heads})")
        if self.hidden_dim % NORM_GROUPS:
            raise ValueError(
                f"hidden_dim {self.hidden_dim} must be a multiple of {NORM_GROUPS}: the groups of the norms"
            )
        if self.two_stage and not self.refine:
            raise ValueError("two_stage needs refine: true")
        return self

    def fits(self, trained: ModelConfig) -> bool:
        """See ModelConfig. With two stages, no weight depends on the number of queries."""
        if self.two_stage and isinstance(trained, DeformableDetrModel):
            trained = trained.model_copy(update={"queries": self.queries})
        return super().fits(trained)

    @property
    def most_objects(self) -> int:
        """One object per query."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """The number of transformer layers. Layers of the backbone have names, not numbers, and are not listed."""
        return {"encoder_layers": self.encoder_layers, "decoder_layers": self.decoder_layers}
