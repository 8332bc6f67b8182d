"""The families of models. A family is one line here and, under the same name:

run_config/families/<name>.py    its configuration, a ModelConfig
detr_job/models/<name>/          its network, loss and post-processing, with `build` (detr_job/family.py)
run_config/presets/<any>.yaml    a preset or more with `model: {family: <name>}`
"""

from collections.abc import Mapping
from importlib import import_module

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from run_config.families.model import ModelConfig

_CLASSES = {
    "detr": "DetrModel",
    "tiny": "TinyModel",
}
FAMILIES: dict[str, type[ModelConfig]] = {
    name: getattr(import_module(f"run_config.families.{name}"), class_name) for name, class_name in _CLASSES.items()
}
"""Name to configuration."""
DEFAULT = "detr"
"""The family of a file that names none."""


def model_config(keys: object) -> object:
    """The configuration of a model from its keys, by its family.

    Raises ValidationError: an unknown family, or a key or value that it does not take.
    """
    if not isinstance(keys, Mapping):
        return keys  # a model that was read already, or what the caller refuses
    family = keys.get("family", DEFAULT)
    if not isinstance(family, str) or family not in FAMILIES:
        expected = ", ".join(map(repr, FAMILIES))
        wrong = InitErrorDetails(type="literal_error", loc=("family",), input=family, ctx={"expected": expected})
        raise ValidationError.from_exception_data("model", [wrong])
    return FAMILIES[family].model_validate(keys)
