"""The store: what runs and Argo are told of it, and how they get its keys."""

from typing import Any

import pytest

from run_config.data_limits import DataLimits
from tests.charts.chart import rendered, variables

SERVER = {"bucket": "parts", "prefix": "team/a", "endpoint": "http://s3.example.org:9000", "region": "eu-1"}
KEYS = {"accessKeyId": "AKIATRIAL", "secretAccessKey": "very-secret", "sessionToken": "token-of-it"}


def artifact_keys(release: Any) -> list[str]:
    return [one["s3"]["key"] for _, step in release.steps() for one in step.get("outputs", {}).get("artifacts", [])]


def test_the_store_is_the_default_of_its_parameter_in_every_template():
    release = rendered({"store": SERVER})
    for template in release.templates:
        name = template["metadata"]["name"]
        assert (
            release.parameter("store", name)["value"] == release.form("store", name)["default"] == "s3://parts/team/a"
        )


def test_artifacts_lie_below_the_stores_prefix():
    keys = artifact_keys(rendered({"store": SERVER}))
    assert len(keys) == 8
    run = "{{workflow.parameters.cvat-output-path}}/{{workflow.name}}"
    assert all(key.startswith(f"team/a/{run}/") for key in keys)
    assert all(key.startswith(f"{run}/") for key in artifact_keys(rendered()))


def test_argo_keeps_artifacts_where_runs_keep_theirs():
    repository = rendered({"store": {**SERVER, "existingSecret": "keys"}}).artifacts
    assert repository == {
        "s3": {
            "bucket": "parts",
            "endpoint": "s3.example.org:9000",
            "insecure": True,
            "region": "eu-1",
            "keyFormat": "team/a/argo/{{workflow.name}}/{{pod.name}}",
            "accessKeySecret": {"name": "keys", "key": "access-key-id"},
            "secretKeySecret": {"name": "keys", "key": "secret-access-key"},
        },
    }


def test_without_an_endpoint_it_is_aws():
    release = rendered()
    assert release.artifacts["s3"]["endpoint"] == "s3.amazonaws.com"
    assert release.artifacts["s3"]["insecure"] is False
    assert "s3-endpoint" not in release.config


def test_steps_get_endpoint_and_region_from_the_configmap():
    release = rendered({"store": SERVER})
    assert release.config["s3-endpoint"] == "http://s3.example.org:9000"
    assert release.config["s3-region"] == "eu-1"


@pytest.mark.parametrize(("values", "pixels"), [({}, 100_000_000), ({"maxImagePixels": 178_956_970}, 178_956_970)])
def test_the_most_pixels_of_an_image_are_a_setting(installation: Any, values: dict[str, int], pixels: int):
    """Helm would write a number of this size as 1e+08, which is text in YAML."""
    assert installation(rendered(values)).max_image_pixels == pixels


def test_limits_of_data_are_a_setting(installation: Any):
    assert installation(rendered({})).data_limits == DataLimits()
    changed = installation(rendered({"dataLimits": {"droppedBoxes": 0.3}})).data_limits
    assert changed == DataLimits(dropped_boxes=0.3)
    strict = installation(rendered({"dataLimits": {"refuse": ["box-empty"]}})).data_limits
    assert strict == DataLimits(refuse=("box-empty",))


def test_licences_of_published_weights_are_a_setting(installation: Any):
    assert installation(rendered({})).weights.allowed_licences == ()
    allowed = installation(rendered({"weights": {"allowedLicences": ["DINOv3"]}})).weights.allowed_licences
    assert allowed == ("DINOv3",)


def test_steps_read_what_is_allowed_from_the_settings(installation: Any):
    store = {**SERVER, "readable": ["s3://public/exports"], "writable": ["workflow-data"], "existingSecret": "keys"}
    settings = installation(rendered({"store": store}))
    assert settings.store == "s3://parts/team/a"
    assert settings.readable == ("s3://public/exports",)
    assert settings.writable == ("workflow-data",)
    assert settings.store_secret == "keys"


def test_names_and_keys_of_a_secret_of_ones_own_reach_every_step():
    keys = {"accessKeyId": "id", "secretAccessKey": "key", "sessionToken": "token"}
    release = rendered({"store": {"existingSecret": "mine", "secretKeys": keys, "useSessionToken": True}})
    assert release.names("Secret") == set()
    for name, step in release.steps():
        environment = variables(step)
        assert environment["AWS_ACCESS_KEY_ID"]["secretKeyRef"] == {"name": "mine", "key": "id", "optional": True}, name
        assert environment["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["key"] == "key"
        assert environment["AWS_SESSION_TOKEN"]["secretKeyRef"]["key"] == "token"
    assert release.artifacts["s3"]["sessionTokenSecret"] == {"name": "mine", "key": "token"}


def test_where_credentials_come_from_the_service_account_no_variable_hides_them():
    release = rendered(
        {
            "store": {"useSDKCreds": True},
            "serviceAccounts": {"workflow": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}},
        }
    )
    for name, step in release.steps():
        assert not [
            one for one in variables(step) if one.startswith("AWS_") and "ENDPOINT" not in one and "REGION" not in one
        ], name
    assert release.settings["storeSecret"] == ""
    assert release.artifacts["s3"]["useSDKCreds"] is True
    assert "accessKeySecret" not in release.artifacts["s3"]
    account = release.of("ServiceAccount", "detr-workflows")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}


def test_keys_in_values_become_a_secret_and_are_nowhere_else():
    release = rendered({"store": {"trialCredentials": KEYS}, "webhook": {"trialUrl": "https://hooks.example.org/abc"}})
    assert release.of("Secret", "detr-workflows-store")["stringData"] == {
        "access-key-id": "AKIATRIAL",
        "secret-access-key": "very-secret",
        "session-token": "token-of-it",
    }
    assert release.of("Secret", "detr-workflows-webhook")["stringData"] == {"url": "https://hooks.example.org/abc"}
    assert release.settings["storeSecret"] == "detr-workflows-store"
    others = [one for one in release.objects if one["kind"] != "Secret"]
    for secret in (*KEYS.values(), "https://hooks.example.org/abc"):
        assert secret not in str(others)


def test_the_webhook_is_known_to_the_exit_handler_alone():
    release = rendered({"webhook": {"existingSecret": "hook", "key": "address"}})
    for name, step in release.steps():
        known = variables(step).get("WEBHOOK_URL")
        if name.endswith("/tell"):
            assert known == {"secretKeyRef": {"name": "hook", "key": "address", "optional": True}}
        else:
            assert known is None, name
    assert "WEBHOOK_URL" not in variables(rendered().step("tell"))


def test_certificates_of_ones_own_reach_steps_and_argo():
    bundle = {"configMap": "store-ca", "key": "ca.pem", "argoSecret": "store-ca"}
    release = rendered({"store": {"caBundle": bundle}})
    for name, step in release.steps():
        assert variables(step)["AWS_CA_BUNDLE"] == "/etc/detr-workflows-ca/ca.pem", name
        (volume,) = (one for one in step["volumes"] if one["name"] == "store-ca")
        assert volume["configMap"] == {"name": "store-ca", "items": [{"key": "ca.pem", "path": "ca.pem"}]}
        mount = {"name": "store-ca", "mountPath": "/etc/detr-workflows-ca", "readOnly": True}
        assert mount in step["container"]["volumeMounts"]
    assert release.artifacts["s3"]["caSecret"] == {"name": "store-ca", "key": "ca.pem"}


def test_an_artifact_repository_that_is_there_is_used():
    release = rendered({"argo": {"artifactRepository": {"existingConfigMap": "artifact-repositories", "key": "s3"}}})
    for template in release.templates:
        reference = template["spec"]["artifactRepositoryRef"]
        assert reference == {"configMap": "artifact-repositories", "key": "s3"}
    assert set(release.config) == {"settings.yaml"}
