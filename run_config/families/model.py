"""The interface that the configuration of every model family has."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from run_config.section import A_PLACE, Section


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the rules of `auto` values (`job/recipe.py`) know about a family."""

    average: float = 0.995
    """Decay of the moving average of the weights in a long run."""
    backbone_share: float = 0.1
    """Rate of the backbone, as a fraction of the rate of the rest."""
    frozen_norms: bool = False
    """Whether batch norms and the first layers of trained weights stay as they are, by the key `freeze_norms`."""
    warm_up: bool = True
    """Whether fine-tuning begins with low rates."""
    sizes: tuple[int, int] | None = None
    """Short side of the images for large and for small objects. None: the preset's."""
    highest_rate: float | None = None
    """Learning rate from random weights with many boxes per step. None: the preset's."""


class ModelConfig(Section):
    """The section `model` of a job. Each family subclasses it and adds its own keys."""

    title: ClassVar[str]
    """The name of the family in messages."""
    from_scratch_images: ClassVar[int] = 0
    """With fewer training images than this, random weights learn nothing. 0: any number is enough."""

    recipe: ClassVar[Recipe] = Recipe()

    normalised_stride: ClassVar[int] = 0
    """Stride of the coarsest map with batch normalisation, which needs more than one value. 0: there is no such map."""

    beside_weights: ClassVar[frozenset[str]] = frozenset({"dropout"})
    """Keys whose values may differ from those with which the weights were trained."""

    family: str = ""

    def fits(self, trained: "ModelConfig") -> bool:
        """Whether weights of the model `trained` have the tensors of this model, and the same meaning."""
        apart = set(self.beside_weights)
        return type(self) is type(trained) and self.model_dump(exclude=apart) == trained.model_dump(exclude=apart)

    @property
    def most_objects(self) -> int:
        """The largest number of objects per image that the model can learn."""
        raise NotImplementedError

    @property
    def finest_stride(self) -> int:
        """Pixels of the input between two cells of the finest feature map. 0: not known."""
        return 0

    @property
    def depths(self) -> dict[str, int]:
        """The number of layers with separate weights, by the key that sets it."""
        raise NotImplementedError

    @property
    def needs_weights(self) -> bool:
        """Whether `auto` requires published weights for this model."""
        return bool(self.from_scratch_images)

    @property
    def imagenet_backbone(self) -> str:
        """The name of the backbone that may start from ImageNet weights. Empty: the model has none."""
        return ""

    @property
    def trained_backbone(self) -> bool:
        """Whether the backbone starts from trained weights of its own."""
        return False

    @property
    def untrained(self) -> str:
        """The part of the model that has random weights when training does not start from a checkpoint."""
        return "random weights"

    def about_image_size(self, size: int) -> str:
        """A sentence for the log if images with a short side of `size` pixels are not what the model was made for."""
        del size
        return ""

    def check_image_size(self, longest: int) -> None:
        """Raise ValueError if images with a long side of `longest` pixels are too large for the model."""


class ResNetModel(ModelConfig):
    """A model whose backbone is a ResNet, which may start from ImageNet weights."""

    beside_weights = frozenset({"dropout", "aux_loss", "backbone_weights"})

    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = Field(
        "resnet50", description="Convolutional network that computes the features."
    )
    dilation: bool = Field(False, description="DC5: the last stage keeps stride 16 and dilates instead.")
    backbone_weights: str = Field(
        "",
        description="URL or path of torchvision ImageNet weights for the backbone; empty: random.",
        json_schema_extra=A_PLACE,
    )

    @model_validator(mode="after")
    def _backbone_can_dilate(self) -> Self:
        if self.dilation and self.backbone in ("resnet18", "resnet34"):
            raise ValueError("dilation needs a backbone with bottleneck blocks: resnet50 or resnet101")
        return self

    @property
    def needs_weights(self) -> bool:
        """Not if somebody chose the weights of the backbone."""
        return not self.backbone_weights

    @property
    def trained_backbone(self) -> bool:
        """Whether it has weights."""
        return bool(self.backbone_weights)

    @property
    def imagenet_backbone(self) -> str:
        """The ResNet."""
        return self.backbone

    @property
    def untrained(self) -> str:
        """The transformer, or with no backbone weights the whole model."""
        return "a random transformer" if self.backbone_weights else super().untrained
