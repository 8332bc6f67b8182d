"""The configuration of D-FINE."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from run_config.families.model import ModelConfig, Recipe
from run_config.section import Fraction, Heads, Layers, PositiveLayers, Width


class DFineModel(ModelConfig):
    """D-FINE (arXiv 2410.13842): boxes are refined as distributions. The defaults are those of the size "small"."""

    title = "D-FINE"
    recipe = Recipe(backbone_share=0.5)
    beside_weights = frozenset({"dropout", "queries", "denoising_queries", "label_noise", "box_noise"})
    from_scratch_images = 1_000
    normalised_stride = 32

    family: Literal["d_fine"] = Field("d_fine", description="Model family.")
    backbone: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6"] = Field("b0", description="Size of the HGNetV2.")
    affine_activations: bool = Field(
        True, description="A learned scale and bias after each activation of the backbone (nano, small, medium)."
    )
    freeze_norms: bool = Field(
        False, description="Keep the stem and the batch norms of the backbone as they were loaded (large, extra-large)."
    )
    levels: Literal[2, 3] = Field(3, description="Feature levels: strides 8, 16 and 32, or only 16 and 32 (nano).")
    encoder_dim: Width = Field(256, description="Width of the encoder.")
    encoder_layers: Layers = Field(1, description="Self-attention layers on stride 32.")
    encoder_feedforward_dim: Width = Field(1024, description="Hidden width of these layers.")
    fusion_dim: Width = Field(64, description="Width of the convolutions that fuse two levels.")
    fusion_blocks: PositiveLayers = Field(1, description="Convolution blocks in each of their branches.")
    hidden_dim: Width = Field(256, description="Width of the decoder.")
    heads: Heads = Field(8, description="Attention heads.")
    points: tuple[PositiveLayers, ...] = Field((3, 6, 3), description="Sampling points of each head on each level.")
    decoder_layers: PositiveLayers = Field(3, description="Deformable layers, each of which refines the boxes.")
    feedforward_dim: Width = Field(1024, description="Hidden width of the decoder's feed-forward layers.")
    activation: Literal["relu", "silu"] = Field(
        "relu", description="Activation of the decoder. silu for weights of DEIM and RT-DETRv4."
    )
    queries: Width = Field(
        300,
        description="Largest number of objects per image, up to 5000. The best encoder tokens become queries, so a "
        "checkpoint can be used with another number.",
    )
    bins: Annotated[int, Field(ge=4, le=256, multiple_of=2)] = Field(
        32, description="Intervals, an even number, of the distribution that places each edge of a box."
    )
    reach: Annotated[float, Field(ge=0.1, le=100)] = Field(
        4.0,
        description="How far the distributions reach; replaced by the checkpoint's value (8 for extra-large).",
    )
    dropout: Fraction = Field(0.0, description="Fraction of the activations set to 0 in training.")
    denoising_queries: Annotated[int, Field(ge=0, le=5000)] = Field(
        100, description="In training, about twice as many queries start from boxes with noise; 0: none."
    )
    label_noise: Fraction = Field(0.5, description="Twice the fraction of these queries with a random class.")
    box_noise: Annotated[float, Field(ge=0, le=10)] = Field(
        1.0, description="Largest shift of their edges, in halves of the box's size; twice as much for negatives."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> "DFineModel":
        for name in ("hidden_dim", "encoder_dim"):
            width = getattr(self, name)
            if width % (4 * self.heads):
                raise ValueError(f"{name} {width} must be a multiple of 4 x heads ({self.heads})")
        if len(self.points) != self.levels:
            raise ValueError(f"points must name a number for each of the {self.levels} levels, not {len(self.points)}")
        return self

    @property
    def finest_stride(self) -> int:
        """Pixels of the input between two cells of the finest feature map."""
        return 8 if self.levels == 3 else 16

    @property
    def most_objects(self) -> int:
        """One object per query."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """The number of transformer layers and of fusion blocks."""
        return {
            "encoder_layers": self.encoder_layers,
            "decoder_layers": self.decoder_layers,
            "fusion_blocks": self.fusion_blocks,
        }
