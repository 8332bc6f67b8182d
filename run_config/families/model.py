"""The interface that the configuration of every model family has."""

from typing import ClassVar

from run_config.section import Section


class ModelConfig(Section):
    """The section `model` of a job. Each family subclasses it and adds its own keys."""

    title: ClassVar[str]
    """The name of the family in messages."""
    from_scratch_images: ClassVar[int] = 0
    """With fewer training images than this, random weights learn nothing. 0: any number is enough."""

    normalised_stride: ClassVar[int] = 0
    """Stride of the coarsest map with batch normalisation, which needs more than one value. 0: there is no such map."""

    family: str = ""

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
        """Whether `auto` starts only from published weights, because the model has no others to start from."""
        return bool(self.from_scratch_images)

    @property
    def imagenet_backbone(self) -> str:
        """The name of the backbone that may start from ImageNet weights. Empty: the model has none."""
        return ""

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
