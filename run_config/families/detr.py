"""The configuration of DETR."""

from typing import Literal

from pydantic import Field, model_validator

from run_config.families.model import ResNetModel
from run_config.section import Fraction, Heads, Layers, PositiveLayers, Width

LEARNED_CELLS = 50
"""Number of rows and columns in the published learned position encoding."""


class DetrModel(ResNetModel):
    """DETR as published (arXiv 2005.12872)."""

    title = "DETR"
    from_scratch_images = 10_000

    family: Literal["detr"] = Field("detr", description="Model family.")
    position_embedding: Literal["sine", "learned"] = Field(
        "sine", description="Position encoding of the image tokens. The learned one covers at most 50 x 50 cells."
    )
    hidden_dim: Width = Field(256, description="Width of tokens and queries.")
    heads: Heads = Field(8, description="Attention heads.")
    encoder_layers: Layers = Field(6, description="Transformer encoder layers.")
    decoder_layers: PositiveLayers = Field(6, description="Transformer decoder layers.")
    feedforward_dim: Width = Field(2048, description="Hidden width of the feed-forward layers.")
    dropout: Fraction = Field(0.1, description="Fraction of the activations set to 0 in training.")
    pre_norm: bool = Field(False, description="Normalise before attention and feed-forward layers, not after.")
    queries: Width = Field(
        100,
        description="Largest number of boxes per image, up to 5000. Public checkpoints have 100; change it only when "
        "training from scratch.",
    )
    aux_loss: bool = Field(True, description="Compute the loss for every decoder layer, not only for the last.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "DetrModel":
        if self.hidden_dim % (2 * self.heads):
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 2 x heads ({self.heads})")
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4: sine and cosine of x and y")
        return self

    @property
    def finest_stride(self) -> int:
        """Pixels of the input between two cells of the finest feature map."""
        return 16 if self.dilation else 32

    @property
    def most_objects(self) -> int:
        """One object per query."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """The number of transformer layers. Layers of the backbone have names, not numbers, and are not listed."""
        return {"encoder_layers": self.encoder_layers, "decoder_layers": self.decoder_layers}

    def check_image_size(self, longest: int) -> None:
        """Raise ValueError if the images have more cells than the published learned position encoding."""
        stride = self.finest_stride
        if self.position_embedding == "learned" and longest > LEARNED_CELLS * stride:
            raise ValueError(
                f"model.position_embedding: learned encodings end at {LEARNED_CELLS} x {LEARNED_CELLS} cells of "
                f"{stride} pixels; set data.max_size to {LEARNED_CELLS * stride} or less, or use sine"
            )
