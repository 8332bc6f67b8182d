"""The model families. A family is one line here, and files with the same name:

run_config/families/<name>.py    its configuration, a ModelConfig
detr_job/models/<name>/          its network, loss and post-processing, with `build` (detr_job/family.py)
run_config/presets/<any>.yaml    one or more presets with `model: {family: <name>}`
"""

from collections.abc import Mapping
from importlib import import_module

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from run_config.families.model import ModelConfig

_CLASSES = {
    "d_fine": "DFineModel",
    "deformable_detr": "DeformableDetrModel",
    "detr": "DetrModel",
    "faster_rcnn": "FasterRcnnModel",
    "rf_detr": "RfDetrModel",
    "tiny": "TinyModel",
}
FAMILIES: dict[str, type[ModelConfig]] = {
    name: getattr(import_module(f"run_config.families.{name}"), class_name) for name, class_name in _CLASSES.items()
}
"""The configuration class of each family, by the family's name."""
DEFAULT = "detr"
"""The family of a configuration file that names none."""


def model_config(keys: object) -> object:
    """Validate the keys of a model with the configuration class of its family.

    Raises ValidationError: when the family is unknown, or does not accept a key or a value.
    """
    if not isinstance(keys, Mapping):
        return keys  # already validated, or of a wrong type, which the caller rejects
    family = keys.get("family", DEFAULT)
    if not isinstance(family, str) or family not in FAMILIES:
        expected = ", ".join(map(repr, FAMILIES))
        wrong = InitErrorDetails(type="literal_error", loc=("family",), input=family, ctx={"expected": expected})
        raise ValidationError.from_exception_data("model", [wrong])
    return FAMILIES[family].model_validate(keys)
