"""Pods of runs: images, resources, places, extras, and what Pod Security `restricted` asks for."""

from typing import Any

import pytest
import yaml

from tests.charts.chart import patch, rendered, variables

DIGEST = "sha256:" + "0123456789abcdef" * 4
ROLES = ("check", "prepare", "train", "report", "weights", "tell")


def images(release: Any) -> set[str]:
    return {step["container"]["image"] for _, step in release.steps()}


def test_images_come_from_the_registry_with_the_charts_version():
    assert images(rendered()) == {"detr-workflows/cpu-steps:0.1.0", "detr-workflows/detr-job:0.1.0"}
    release = rendered({"images": {"registry": "r.example.org:5000/team/", "cpuSteps": {"tag": "2.0"}}})
    assert images(release) == {
        "r.example.org:5000/team/detr-workflows/cpu-steps:2.0",
        "r.example.org:5000/team/detr-workflows/detr-job:0.1.0",
    }


def test_a_global_registry_is_before_the_charts_own():
    release = rendered(
        {
            "global": {"imageRegistry": "mirror.example.org", "imagePullSecrets": ["mirror"]},
            "images": {"registry": "r.example.org", "pullSecrets": ["mirror", "team"], "pullPolicy": "Always"},
        }
    )
    assert all(image.startswith("mirror.example.org/") for image in images(release))
    assert all(step["container"]["imagePullPolicy"] == "Always" for _, step in release.steps())
    for template in release.templates:
        assert template["spec"]["imagePullSecrets"] == [{"name": "mirror"}, {"name": "team"}]


def test_a_digest_wins_and_is_what_a_run_writes_down():
    release = rendered({"images": {"registry": "r.example.org", "detrJob": {"tag": "2.0", "digest": DIGEST}}})
    step = release.step("train")
    assert step["container"]["image"] == f"r.example.org/detr-workflows/detr-job:2.0@{DIGEST}"
    for name, one in release.steps():
        assert variables(one)["IMAGE_DIGEST"] == one["container"]["image"], name


@pytest.mark.parametrize("role", ROLES)
def test_resources_are_set_by_role(role: str):
    release = rendered({"roles": {role: {"resources": {"requests": {"cpu": "7", "memory": "7Gi"}}}}})
    for name, step in release.steps():
        mine = step["metadata"]["labels"]["app.kubernetes.io/component"] == role
        assert (step["container"]["resources"]["requests"]["cpu"] == "7") is mine, name


@pytest.mark.parametrize("role", ROLES)
def test_a_role_goes_where_its_values_say(role: str):
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
    release = rendered(
        {
            "pods": {"nodeSelector": {"all": "x", "zone": "a"}, "priorityClassName": "low", "runtimeClassName": "runc"},
            "roles": {
                role: {
                    "nodeSelector": {"zone": "b"},
                    "tolerations": [{"key": "t", "operator": "Exists"}],
                    "affinity": affinity,
                    "priorityClassName": "high",
                    "runtimeClassName": "nvidia",
                    "topologySpreadConstraints": spread,
                }
            },
        }
    )
    for _, step in release.steps():
        if step["metadata"]["labels"]["app.kubernetes.io/component"] == role:
            assert step["nodeSelector"] == {"all": "x", "zone": "b"}
            assert {"key": "t", "operator": "Exists"} in step["tolerations"]
            assert step["affinity"] == affinity
            assert step["priorityClassName"] == "high"
            assert patch(step)["runtimeClassName"] == "nvidia"
            assert patch(step)["topologySpreadConstraints"] == spread
        else:
            assert step["nodeSelector"] == {"all": "x", "zone": "a"}
            assert step["priorityClassName"] == "low"
            assert patch(step)["runtimeClassName"] == "runc"


def test_extras_of_all_pods_come_before_those_of_a_role():
    def extras(name: str) -> dict[str, Any]:
        return {
            "extraEnv": [{"name": "HTTPS_PROXY", "value": name}],
            "extraEnvFrom": [{"configMapRef": {"name": name}}],
            "extraVolumes": [{"name": name, "emptyDir": {}}],
            "extraVolumeMounts": [{"name": name, "mountPath": f"/mnt/{name}"}],
        }

    release = rendered({"pods": extras("all"), "roles": {"prepare": extras("mine")}})
    for name, step in release.steps():
        container = step["container"]
        role = step["metadata"]["labels"]["app.kubernetes.io/component"]
        expected = ["all", "mine"] if role == "prepare" else ["all"]
        assert [one["value"] for one in container["env"] if one["name"] == "HTTPS_PROXY"] == expected, name
        assert [one["configMapRef"]["name"] for one in container["envFrom"]] == expected
        assert [one["name"] for one in step["volumes"]][-len(expected) :] == expected
        assert [one["name"] for one in container["volumeMounts"]][-len(expected) :] == expected


def test_pod_labels_and_annotations_reach_every_pod():
    release = rendered({"pods": {"labels": {"kueue.x-k8s.io/queue-name": "gpu"}, "annotations": {"a/b": "c"}}})
    for template in release.templates:
        metadata = template["spec"]["podMetadata"]
        assert metadata["labels"] == {
            "app.kubernetes.io/part-of": "detr-workflows",
            "kueue.x-k8s.io/queue-name": "gpu",
        }
        assert metadata["annotations"] == {"a/b": "c"}


def test_shared_memory_has_the_size_of_the_values():
    release = rendered({"roles": {"train": {"sharedMemory": "16Gi"}}})
    for step, template in (("train", "detr-train"), ("evaluate", "detr-evaluate")):
        (volume,) = (one for one in release.step(step, template)["volumes"] if one["name"] == "shm")
        assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_every_container_is_restricted_argos_own_included():
    release = rendered()
    for template in release.templates:
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        executor = yaml.safe_load(template["spec"]["podSpecPatch"])
        assert [one["name"] for one in executor["initContainers"] + executor["containers"]] == ["init", "wait"]
        for container in executor["initContainers"] + executor["containers"]:
            restricted(container)
    for _, step in release.steps():
        restricted(step["container"])
    for pod in ("detr-workflows-test-sample", "detr-workflows-test"):
        spec = release.of("Pod", pod)["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec.get("initContainers", []) + spec["containers"]:
            restricted(container)


def restricted(container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_security_contexts_of_ones_own_reach_every_container():
    """OpenShift chooses users by itself: null takes a default away."""
    release = rendered({"pods": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": 1000650000}}})
    for template in release.templates:
        assert template["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroup": 1000650000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_only_argos_containers_have_a_token():
    release = rendered()
    for template in release.templates:
        executor = yaml.safe_load(template["spec"]["podSpecPatch"])
        assert executor["automountServiceAccountToken"] is False
        assert [one["name"] for one in executor["volumes"]] == ["executor-token"]
    for name, step in release.steps():
        assert "serviceaccount" not in str(step["container"]["volumeMounts"]), name
    for account in ("detr-workflows", "detr-workflows-client"):
        assert release.of("ServiceAccount", account)["automountServiceAccountToken"] is False


def test_argos_containers_have_the_resources_of_the_values():
    resources = {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
    template = rendered({"argo": {"executor": {"resources": resources}}}).template()
    executor = yaml.safe_load(template["spec"]["podSpecPatch"])
    assert [one["resources"] for one in executor["initContainers"] + executor["containers"]] == [resources] * 2


def test_argos_uploads_stay_within_its_memory():
    release = rendered({"argo": {"executor": {"resources": {"limits": {"memory": "1Gi"}}}}})
    for template in release.templates:
        (wait,) = yaml.safe_load(template["spec"]["podSpecPatch"])["containers"]
        assert wait["env"] == [{"name": "ARTIFACT_S3_UPLOAD_THREADS", "value": "1"}]


def test_a_controller_without_init_containers_gets_no_patch_for_them():
    release = rendered({"argo": {"patchExecutor": False}})
    for template in release.templates:
        # The pod's own token, since there is nowhere to put one for Argo's containers alone.
        assert yaml.safe_load(template["spec"]["podSpecPatch"]) == {"automountServiceAccountToken": True}
    assert "terminationGracePeriodSeconds" in release.step("train")["podSpecPatch"]
