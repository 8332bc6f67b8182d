"""What the configuration of every family of models can tell the rest of the program."""

from typing import ClassVar

from run_config.section import Section


class ModelConfig(Section):
    """The section `model` of a job. A family derives from it and adds its keys."""

    title: ClassVar[str]
    """The name of the family in messages."""
    from_scratch_images: ClassVar[int] = 0
    """Training images below which random weights learn nothing; 0: any number will do."""

    family: str = ""

    @property
    def most_objects(self) -> int:
        """How many objects of an image can be learned."""
        raise NotImplementedError

    @property
    def depths(self) -> dict[str, int]:
        """Key to number, for each key that says how many layers with weights of their own there are."""
        raise NotImplementedError

    @property
    def untrained(self) -> str:
        """What begins at random where training does not start from a checkpoint."""
        return "random weights"

    def check_image_size(self, longest: int) -> None:
        """Raise ValueError where images with a long side of so many pixels are too large for the model."""
