"""Published weights: the template, the workflow after an installation, and who may write and reach what."""

from typing import Any

import pytest

from tests.charts.chart import Release, rendered, variables

WEIGHTS = {"weights": {"pull": ["rf-detr-small", "d-fine-nano"]}, "store": {"prefix": "team"}}


def account_of(release: Release, template: str) -> str:
    return release.template(template)["spec"]["serviceAccountName"]


def test_a_workflow_brings_the_listed_weights_after_an_installation_and_an_upgrade():
    hook = rendered(WEIGHTS).of("Workflow", "detr-workflows-weights")
    # Helm waits for hooks that are jobs or pods, and a failed one fails the release. A workflow is only created.
    assert hook["metadata"]["annotations"] == {
        "helm.sh/hook": "post-install,post-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }
    assert hook["spec"] == {
        "workflowTemplateRef": {"name": "detr-weights"},
        "arguments": {
            "parameters": [
                {"name": "weights", "value": "rf-detr-small d-fine-nano"},
                {"name": "store", "value": "s3://parts/team"},
            ]
        },
    }


def test_without_a_list_nothing_is_downloaded():
    assert rendered().names("Workflow") == set()


def test_the_workflow_belongs_to_the_installations_controller_and_has_its_name():
    values = {**WEIGHTS, "argo": {"instanceID": "team-a"}, "fullnameOverride": "vision", "commonLabels": {"a": "b"}}
    labels = rendered(values).of("Workflow", "vision-weights")["metadata"]["labels"]
    assert labels["workflows.argoproj.io/controller-instanceid"] == "team-a"
    assert labels["a"] == "b"


def test_the_one_step_runs_in_the_small_image_without_a_token():
    release = rendered()
    step = release.step("pull", "detr-weights")
    assert step["container"]["image"] == "detr-workflows/cpu-steps:0.1.0"
    assert step["container"]["args"] == ["weights", "pull", "--parameters-json={{workflow.parameters.json}}"]
    assert not any("serviceaccount" in one["mountPath"] for one in step["container"]["volumeMounts"])
    assert "resources" not in str(step.get("podSpecPatch"))
    assert step["retryStrategy"]["limit"] == "5"
    assert "75" in step["retryStrategy"]["expression"]
    # An archived log would need the secret of Argo's repository: a missing one would keep the pod waiting.
    assert step["archiveLocation"] == {"archiveLogs": False}
    assert (
        rendered({"roles": {"weights": {"retryLimit": 9}}}).step("pull", "detr-weights")["retryStrategy"]["limit"]
        == "9"
    )


def test_mirrors_are_the_installations_and_no_parameter():
    release = rendered({"weights": {"endpoint": "https://hf.example.org", "mirror": "s3://mirror/weights"}})
    assert release.config["weights-endpoint"] == "https://hf.example.org"
    assert release.config["weights-mirror"] == "s3://mirror/weights"
    for name, step in release.steps():
        keys = {
            variable: source["configMapKeyRef"]["key"]
            for variable, source in variables(step).items()
            if variable in ("HF_ENDPOINT", "DETR_WORKFLOWS_WEIGHTS_FROM")
        }
        mine = {"HF_ENDPOINT": "weights-endpoint", "DETR_WORKFLOWS_WEIGHTS_FROM": "weights-mirror"}
        assert keys == (mine if name == "detr-weights/pull" else {}), name
    arguments = release.template("detr-weights")["spec"]["arguments"]["parameters"]
    assert [one["name"] for one in arguments] == ["weights", "store"]
    assert not any(key.startswith("weights") for key in rendered().config)


def test_the_settings_have_the_licences_alone(installation: Any):
    """Steps of a run that began before an upgrade refuse settings that they do not know."""
    release = rendered(
        {**WEIGHTS, "weights": {**WEIGHTS["weights"], "allowedLicences": ["DINOv3"], "storeSecret": "w"}}
    )
    assert release.settings["weights"] == {"allowedLicences": ["DINOv3"]}
    assert installation(release).weights.allowed_licences == ("DINOv3",)


@pytest.mark.parametrize("existing", ["", "keys"])
def test_keys_that_may_write_weights_are_for_the_one_step(existing: str):
    release = rendered({"weights": {"storeSecret": "writer"}, "store": {"existingSecret": existing}})
    for name, step in release.steps():
        source = variables(step).get("AWS_SECRET_ACCESS_KEY")
        wanted = "writer" if name == "detr-weights/pull" else existing
        assert (source["secretKeyRef"]["name"] if source else "") == wanted, name
    assert release.settings["storeSecret"] == existing


def test_the_template_uses_the_account_of_runs_unless_it_has_its_own():
    assert account_of(rendered(), "detr-weights") == "detr-workflows"
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/weights"}
    release = rendered({"serviceAccounts": {"weights": {"create": True, "annotations": role}}})
    assert account_of(release, "detr-weights") == "detr-workflows-weights"
    assert account_of(release, "detr-train") == "detr-workflows"
    account = release.of("ServiceAccount", "detr-workflows-weights")
    assert account["metadata"]["annotations"] == role
    assert account["automountServiceAccountToken"] is False
    subjects = [one["name"] for one in release.of("RoleBinding", "detr-workflows")["subjects"]]
    assert subjects == ["detr-workflows", "detr-workflows-weights"]
    named = rendered({"serviceAccounts": {"weights": {"name": "writer"}}})
    assert account_of(named, "detr-weights") == "writer"
    assert "writer" not in named.names("ServiceAccount")


def test_only_the_step_that_downloads_may_reach_the_publishers():
    mirror = [{"ipBlock": {"cidr": "10.3.0.7/32"}}]
    values = {
        "enabled": True,
        "store": {"cidrs": ["10.1.0.0/16"]},
        "kubernetesApi": {"cidrs": ["10.0.0.1/32"]},
        "weights": {"to": mirror, "ports": [3128]},
    }
    release = rendered({"networkPolicy": values})
    policy = release.of("NetworkPolicy", "detr-workflows-weights")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    assert policy["egress"] == [{"to": mirror, "ports": [{"port": 3128, "protocol": "TCP"}]}]
    selected = policy["podSelector"]["matchLabels"]
    reached = [name for name, step in release.steps() if selected.items() <= step["metadata"]["labels"].items()]
    assert reached == ["detr-weights/pull"]
    others = release.of("NetworkPolicy", "detr-workflows-egress")["spec"]["egress"]
    assert mirror[0] not in [peer for rule in others for peer in rule["to"]]
    by_default = rendered({"networkPolicy": {"enabled": True}}).of("NetworkPolicy", "detr-workflows-weights")["spec"]
    assert by_default["egress"][0]["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}]
