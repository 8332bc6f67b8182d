"""The configuration of Faster R-CNN."""

from typing import Literal

from pydantic import Field

from run_config.families.model import ModelConfig, Recipe
from run_config.section import MAY_BE_AUTO, Fraction, Width, added_later


class FasterRcnnModel(ModelConfig):
    """Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144), from torchvision."""

    title = "Faster R-CNN"
    from_scratch_images = 10_000
    normalised_stride = 32
    recipe = Recipe(backbone_share=1.0, frozen_norms=True)
    beside_weights = frozenset({"queries", "score_threshold", "nms_threshold", "freeze_norms"})

    family: Literal["faster_rcnn"] = Field("faster_rcnn", description="Model family.")
    backbone: Literal["resnet50", "mobilenet_v3"] = Field(
        "resnet50", description="Convolutional network that computes the features. mobilenet_v3: the large one."
    )
    hidden_dim: Width = Field(1024, description="Width of the two layers on the features of a proposal.")
    freeze_norms: bool = Field(
        True,
        description="Keep the batch norms and the first layers of the backbone as they were loaded, as torchvision "
        "does. auto: only with a checkpoint.",
        json_schema_extra=added_later(True) | MAY_BE_AUTO,
    )
    queries: Width = Field(
        100,
        description="Largest number of boxes per image, up to 5000. It is not part of the weights.",
    )
    score_threshold: Fraction = Field(0.05, description="Boxes with a lower score are left out.")
    nms_threshold: Fraction = Field(
        0.5, description="Of two boxes of a class whose IoU is higher, the one with the better score is kept."
    )

    @property
    def most_objects(self) -> int:
        """The number of boxes that are kept."""
        return self.queries

    @property
    def depths(self) -> dict[str, int]:
        """None: the number of layers is fixed."""
        return {}
