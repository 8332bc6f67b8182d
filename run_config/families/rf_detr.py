"""The configuration of RF-DETR."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from run_config.families.model import ModelConfig, Recipe
from run_config.section import MAY_BE_AUTO, Fraction, Heads, Pixels, PositiveLayers, Width

Cells = Annotated[int, Field(gt=0, le=1024)]

OUTPUTS = 4
"""Feature maps that leave the backbone, after equal numbers of layers."""


class RfDetrModel(ModelConfig):
    """RF-DETR as published: a DINOv2 backbone with windows, and a two-stage decoder with groups of queries."""

    title = "RF-DETR"
    from_scratch_images = 10_000
    recipe = Recipe(average=0.993, backbone_share=0.735, warm_up=False)
    beside_weights = frozenset({"layer_decay", "decoder_rate"})

    family: Literal["rf_detr"] = Field("rf_detr", description="Model family.")
    backbone_dim: Width = Field(384, description="Width of the backbone's tokens.")
    backbone_heads: Heads = Field(6, description="Attention heads of the backbone.")
    backbone_layers: PositiveLayers = Field(12, description="Layers of the backbone, a multiple of 4.")
    patch_size: Pixels = Field(16, description="Side of a patch in pixels; a patch becomes one token.")
    windows: PositiveLayers = Field(
        2, description="Windows per side: most layers of the backbone attend only within a window of the image."
    )
    position_cells: Cells = Field(
        24,
        description="Side of the position embedding in patches. For other image sizes it is interpolated. Public "
        "checkpoints have the number of their preset.",
    )
    hidden_dim: Width = Field(256, description="Width of queries and of the tokens that they attend to.")
    heads: Heads = Field(8, description="Attention heads among queries.")
    cross_heads: Heads = Field(16, description="Attention heads from queries to the image.")
    points: PositiveLayers = Field(2, description="Sampling points of each head from queries to the image.")
    decoder_layers: PositiveLayers = Field(2, description="Decoder layers.")
    feedforward_dim: Width = Field(2048, description="Hidden width of the decoder's feed-forward layers.")
    queries: Width = Field(
        300,
        description="Largest number of boxes per image, up to 5000. Public checkpoints have 300; change it only when "
        "training from scratch.",
    )
    groups: PositiveLayers = Field(
        13, description="Groups of queries in training, each matched on its own. Only the first group predicts."
    )

    layer_decay: Fraction = Field(
        0.8,
        description="Learning rate of a backbone's layer, as a fraction of the rate of the layer after it.",
        json_schema_extra=MAY_BE_AUTO,
    )
    decoder_rate: Fraction = Field(0.7, description="Learning rate of the decoder, as a fraction of `optimizer.lr`.")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "RfDetrModel":
        if self.backbone_dim % self.backbone_heads:
            raise ValueError(
                f"backbone_dim {self.backbone_dim} must be a multiple of backbone_heads ({self.backbone_heads})"
            )
        if self.backbone_layers % OUTPUTS:
            raise ValueError(f"backbone_layers {self.backbone_layers} must be a multiple of {OUTPUTS}")
        for name, heads in (("heads", self.heads), ("cross_heads", self.cross_heads)):
            if self.hidden_dim % heads:
                raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of {name} ({heads})")
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of 4: sine and cosine of a coordinate")
        return self

    @property
    def finest_stride(self) -> int:
        """Pixels of the input between two cells of the finest feature map."""
        return self.patch_size

    @property
    def most_objects(self) -> int:
        """One object per query."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """The number of layers of backbone and decoder, and of groups, each with heads of its own."""
        return {
            "backbone_layers": self.backbone_layers,
            "decoder_layers": self.decoder_layers,
            "groups": self.groups,
        }

    def about_image_size(self, size: int) -> str:
        """A sentence if the position embedding does not have the size of the images."""
        cells: int = -(-size // (self.patch_size * self.windows)) * self.windows
        if cells == self.position_cells:
            return ""
        own = self.position_cells * self.patch_size
        return (
            f"images of {size} pixels: the position embedding, made for {own} pixels, is interpolated from "
            f"{self.position_cells} to {cells} cells per side"
        )
