"""What `auto` means, for each machine and each set of weights in the store."""

import pytest

from run_config.errors import ConfigError
from run_config.installation import VARIABLE
from run_config.weights.automatic import automatic_model, automatic_weights

STORE = "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("gpu", "present", "preset", "reason"),
    [
        (True, {"rf-detr-small", "d-fine-nano"}, "rf-detr-small", "a GPU, and the store has the weights"),
        (
            True,
            {"d-fine-nano"},
            "d-fine-nano",
            "`detr-workflows weights pull rf-detr-small --store s3://bucket/prefix`",
        ),
        (False, {"rf-detr-small", "d-fine-nano"}, "d-fine-nano", "no GPU, and the store has the weights"),
        (False, {"rf-detr-small"}, "tiny", "`detr-workflows weights pull d-fine-nano --store s3://bucket/prefix`"),
        (False, set(), "tiny", "the store has no weights of d-fine-nano"),
    ],
)
@pytest.mark.parametrize("laptop", [True, False])
def test_the_model_fits_the_machine_and_the_weights(
    gpu: bool, present: set[str], preset: str, reason: str, laptop: bool
):
    chosen = automatic_model(gpu=gpu, present=present, store=STORE, laptop=laptop)
    assert chosen.preset == preset
    assert reason in chosen.reason


def test_a_gpu_of_a_cluster_without_weights_is_an_error_with_the_command():
    with pytest.raises(ConfigError, match=f"run `detr-workflows weights pull rf-detr-small --store {STORE}`"):
        automatic_model(gpu=True, present={"d-fine-small"}, store=STORE)
    assert automatic_model(gpu=True, present=(), store=STORE, laptop=True).preset == "tiny"


def test_an_installation_has_a_template_that_brings_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "/etc/settings.yaml")
    with pytest.raises(ConfigError, match="run `detr-workflows submit detr-weights -p weights=rf-detr-small`"):
        automatic_model(gpu=True, present=(), store=STORE)


@pytest.mark.parametrize(
    ("preset", "present", "name"),
    [
        ("d-fine-small", {"d-fine-small-obj365", "d-fine-small"}, "d-fine-small"),
        ("d-fine-small", {"d-fine-small-obj365", "d-fine-medium"}, "d-fine-small-obj365"),
        ("rf-detr-nano", {"rf-detr-small"}, ""),
        ("detr-r50", {"detr-r50", "resnet50"}, "detr-r50"),
        ("detr-r50", {"resnet50"}, "resnet50"),
        ("detr-r50", {"resnet18"}, ""),
    ],
)
def test_a_preset_starts_from_its_own_weights_else_from_its_backbone(preset: str, present: set[str], name: str):
    assert automatic_weights(preset, present, "resnet50" if preset == "detr-r50" else "") == name
