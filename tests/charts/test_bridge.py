"""The bridge to CVAT: nothing of it unless it is asked for, and then with the least rights and no secret in sight."""

import copy
import json
import re
from typing import Any

import pytest
import typer
import yaml

from cvat_bridge.cli import app as program
from cvat_client.settings import BridgeSettings, Event, Exports, parse_settings
from run_config.parameters import BRIDGE_TEMPLATES, TEMPLATES
from tests.charts.chart import BUCKET, CHART, POOLS, Release, patch, refusal, rendered, variables
from workflows.cluster.pod_needs import needs_of

RENDERED = CHART.parents[1] / "workflows" / "rendered"
CVAT = {"url": "http://cvat-backend-service.cvat:8080", "publicOrigin": "https://cvat.example.org"}
CALLERS = {"detr-workflows/calls-cvat": "true"}


IN_CVAT = {"matchLabels": {"kubernetes.io/metadata.name": "cvat"}}


def bridge(**more: Any) -> dict[str, Any]:
    """Values with the bridge."""
    if more.get("models", {}).get("enabled"):
        more["models"] = {"allowFrom": {"namespaceSelector": IN_CVAT}, **more["models"]}
    return {"cvatBridge": {"enabled": True, "cvat": CVAT, **more}}


def settings(release: Release) -> BridgeSettings:
    return parse_settings(release.of("ConfigMap", "detr-workflows-bridge")["data"]["bridge.yaml"], "bridge.yaml")


def pod(release: Release, name: str = "detr-workflows-bridge") -> dict[str, Any]:
    return release.of("Deployment", name)["spec"]["template"]


def test_nothing_of_the_bridge_is_there_unless_it_is_asked_for():
    example = yaml.safe_load((CHART / "ci" / "bridge-values.yaml").read_text())
    example["cvatBridge"]["enabled"] = False
    without = {key: value for key, value in example.items() if key != "cvatBridge"}
    off = rendered(example)
    assert off.text == rendered(without).text
    kinds = {one["kind"] for one in off.objects}
    assert not kinds & {"Deployment", "Service", "Ingress", "ServiceMonitor", "ClusterRole", "ClusterRoleBinding"}
    assert not re.search(r"cvat-bridge|calls-cvat|CVAT_ACCESS_TOKEN", off.text)


def test_with_the_bridge_its_templates_are_there():
    release = rendered(bridge())
    assert release.names("WorkflowTemplate") == set(TEMPLATES)
    for name in BRIDGE_TEMPLATES:
        assert release.template(name)["metadata"]["labels"]["used-by"] == "cvat"


def test_the_default_values_change_nothing_that_a_run_of_the_bridge_does():
    release = rendered(
        {
            "store": {"existingSecret": "detr-workflows-store"},
            "webhook": {"existingSecret": "detr-workflows-webhook"},
            **bridge(),
        }
    )
    for name in BRIDGE_TEMPLATES:
        before = yaml.safe_load((RENDERED / f"{name}.yaml").read_text())["spec"]
        after = copy.deepcopy(release.template(name)["spec"])
        for spec in (before, after):
            spec["arguments"]["parameters"] = [one for one in spec["arguments"]["parameters"] if one["name"] != "store"]
            spec["podSpecPatch"] = yaml.safe_load(spec["podSpecPatch"])
            for step in spec["templates"]:
                step.get("container", {}).pop("imagePullPolicy", None)
                if "podSpecPatch" in step:
                    step["podSpecPatch"] = yaml.safe_load(step["podSpecPatch"])
                if step["name"] == "annotate":
                    # One value for everything that holds a GPU, which is train's.
                    step["retryStrategy"].pop("limit")
        assert after == before


def test_the_settings_are_what_the_bridge_reads():
    by_default = settings(rendered(bridge()))
    assert by_default == BridgeSettings.model_validate({"cvat": CVAT})
    release = rendered(
        bridge(
            cvat={**CVAT, "organization": "parts", "cloudStorageId": 3, "ca": {"configMap": "authority"}},
            links={"argo": "https://argo.example.org"},
            exports={"prefix": "team/exports", "saveForS": 60, "longestS": 120},
            limits={"runsPerUser": 5, "runsOfEvents": 7, "requestBytes": 1048576, "submissionsPerMinute": 1},
            grants={"lifetimeS": 7200, "acceptExpired": True},
            controls={"stop": True, "rerun": True, "nodes": True},
            triggers=[{"event": "task-completed", "projects": [1000000], "parameters": {"epochs": "5"}}],
            models={"threshold": 0.25, "most": 5, "loaded": 1, "nuclio": "http://nuclio-dashboard.nuclio:8070"},
        )
    )
    found = settings(release)
    assert (found.cvat.organization, found.cvat.cloud_storage_id) == ("parts", 3)
    assert found.cvat.ca_file == "/etc/cvat-ca/ca.crt"
    assert found.links.argo == "https://argo.example.org"
    assert found.exports == Exports(prefix="team/exports", save_for_s=60, longest_s=120)
    assert (found.limits.runs_per_user, found.limits.runs_of_events, found.limits.request_bytes) == (5, 7, 1_048_576)
    assert (found.grants.lifetime_s, found.grants.accept_expired) == (7200, True)
    assert found.controls.stop
    assert found.controls.rerun
    assert found.controls.nodes
    (trigger,) = found.triggers
    assert (trigger.event, trigger.template, trigger.projects) == (Event.TASK_COMPLETED, "cvat-train", (1_000_000,))
    assert (found.models.threshold, found.models.most, found.models.loaded) == (0.25, 5, 1)
    assert found.models.nuclio == "http://nuclio-dashboard.nuclio:8070"


def test_another_file_means_other_pods():
    first, second = rendered(bridge()), rendered(bridge(limits={"runsPerUser": 3}))
    pools = rendered({**bridge(), "nodePools": POOLS})
    sums = [pod(one)["metadata"]["annotations"]["checksum/settings"] for one in (first, second, pools)]
    assert len(set(sums)) == 3


@pytest.fixture
def whole() -> Release:
    """Everything that the bridge has."""
    return rendered(
        {
            "store": {"existingSecret": "keys"},
            "nodePools": POOLS,
            **bridge(models={"enabled": True}, controls={"stop": True, "nodes": True}, ingress={"enabled": True}),
        }
    )


def test_every_pod_is_restricted_and_may_write_to_tmp_alone(whole: Release):
    for name in ("detr-workflows-bridge", "detr-workflows-models"):
        spec = pod(whole, name)["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")] == ["/tmp"]
        assert set(container["resources"]) == {"requests", "limits"}
    for name in BRIDGE_TEMPLATES:
        for step in needs_of(whole.template(name)).pods:
            assert step.unrestricted == (), f"{name}/{step.step}"


def test_the_services_are_called_as_the_program_takes_it(whole: Release):
    commands = typer.main.get_command(program)
    assert isinstance(commands, typer.core.TyperGroup)
    for name in ("detr-workflows-bridge", "detr-workflows-models"):
        (container,) = pod(whole, name)["spec"]["containers"]
        verb, *options = container["args"]
        taken = {option for parameter in commands.commands[verb].params for option in parameter.opts}
        assert container["command"] == ["cvat-bridge"]
        assert {option.partition("=")[0] for option in options} <= taken
        (port,) = (one["containerPort"] for one in container["ports"])
        assert f"--port={port}" in options


def test_only_the_service_has_a_token_of_the_cluster(whole: Release):
    for name in ("detr-workflows-bridge", "detr-workflows-models"):
        assert pod(whole, name)["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountToken" in json.dumps(pod(whole))
    assert "serviceAccountToken" not in json.dumps(pod(whole, "detr-workflows-models"))
    assert pod(whole)["spec"]["serviceAccountName"] == "detr-workflows-bridge"
    assert pod(whole, "detr-workflows-models")["spec"]["serviceAccountName"] == "detr-workflows"
    assert whole.of("ServiceAccount", "detr-workflows-bridge")["automountServiceAccountToken"] is False
    for name, step in whole.steps():
        assert "serviceaccount" not in str(step["container"]["volumeMounts"]), name


def secrets_of(container: dict[str, Any]) -> dict[str, str]:
    """Variable → secret that it comes from."""
    found = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef", {}).get("name") for one in container["env"]}
    return {name: secret for name, secret in found.items() if secret}


def test_secrets_come_by_reference_and_to_those_alone_who_need_them(whole: Release):
    (service,) = pod(whole)["spec"]["containers"]
    (models,) = pod(whole, "detr-workflows-models")["spec"]["containers"]
    of_store = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "keys")
    of_cvat = dict.fromkeys(("CVAT_ACCESS_TOKEN", "CVAT_BRIDGE_SIGNING_KEY"), "detr-workflows-cvat")
    assert secrets_of(service) == of_store | of_cvat | {"CVAT_WEBHOOK_SECRET": "detr-workflows-cvat"}
    assert secrets_of(models) == of_store
    for name, step in whole.steps():
        talks = step["metadata"]["labels"].get("detr-workflows/calls-cvat") == "true"
        found = {key: value for key, value in secrets_of(step["container"]).items() if key.startswith("CVAT_")}
        assert found == (of_cvat if talks else {}), name
    assert whole.names("Secret") == set()


def test_the_model_server_has_keys_of_its_own_where_they_are_named():
    keys = {"existingSecret": "keys", "secretKeys": {"accessKeyId": "id", "secretAccessKey": "secret"}}
    release = rendered({"store": keys, **bridge(models={"enabled": True, "storeSecret": "read-only"})})
    (service,) = pod(release)["spec"]["containers"]
    (models,) = pod(release, "detr-workflows-models")["spec"]["containers"]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    assert secrets_of(models) == dict.fromkeys(names, "read-only")
    assert {name: secrets_of(service)[name] for name in names} == dict.fromkeys(names, "keys")
    found = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef", {}).get("key") for one in models["env"]}
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("id", "secret")


def test_a_secret_of_ones_own_has_keys_of_ones_own():
    keys = {"accessToken": "token", "signingKey": "key", "webhookSecret": "hook"}
    release = rendered(bridge(existingSecret="theirs", secretKeys=keys))
    for container in (
        pod(release)["spec"]["containers"][0],
        release.step("export", "cvat-train")["container"],
        release.step("export-for-others", "cvat-train")["container"],
        release.step("annotate", "detr-annotate")["container"],
    ):
        found = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef") for one in container["env"]}
        assert found["CVAT_ACCESS_TOKEN"] == {"name": "theirs", "key": "token", "optional": True}
        assert found["CVAT_BRIDGE_SIGNING_KEY"] == {"name": "theirs", "key": "key", "optional": True}


def test_values_make_a_secret_for_trials():
    trial = {"accessToken": "abc.def", "signingKey": "k" * 16, "webhookSecret": "hook"}
    release = rendered(bridge(trialSecret=trial))
    secret = release.of("Secret", "detr-workflows-cvat")["stringData"]
    assert secret == {"access-token": "abc.def", "signing-key": "k" * 16, "webhook-secret": "hook"}
    assert release.text.count("abc.def") == 1


def rules(release: Release, kind: str, name: str) -> set[tuple[str, str]]:
    return {
        (resource, verb)
        for rule in release.of(kind, name)["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_bridge_may_submit_and_look_and_nothing_else():
    release = rendered(bridge(controls={"rerun": True}))
    assert {name for name in release.names("Role") if "bridge" in name} == {"detr-workflows-bridge"}
    assert not release.names("ClusterRole")
    assert rules(release, "Role", "detr-workflows-bridge") == {
        ("workflowtemplates", "get"),
        ("workflowtemplates", "list"),
        ("workflows", "create"),
        ("workflows", "get"),
        ("workflows", "list"),
        ("configmaps", "get"),
    }
    (configmaps,) = (one for one in release.of("Role", "detr-workflows-bridge")["rules"] if "resourceNames" in one)
    assert configmaps["resourceNames"] == ["detr-workflows", "detr-workflows-bridge"]


def test_stopping_and_looking_at_nodes_are_rights_of_their_own(whole: Release):
    assert rules(whole, "Role", "detr-workflows-bridge-stop") == {("workflows", "patch")}
    wide = "ns-detr-workflows-bridge-nodes"
    assert rules(whole, "ClusterRole", wide) == {("nodes", "list"), ("pods", "list")}
    for kind, name in (
        ("RoleBinding", "detr-workflows-bridge"),
        ("RoleBinding", "detr-workflows-bridge-stop"),
        ("ClusterRoleBinding", wide),
    ):
        (subject,) = whole.of(kind, name)["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "detr-workflows-bridge", "namespace": "ns"}
        assert whole.of(kind, name)["roleRef"]["name"] == name


def test_roles_can_be_somebody_elses():
    release = rendered(
        {
            "rbac": {"create": False},
            **bridge(controls={"stop": True, "nodes": True}, serviceAccount={"create": False, "name": "theirs"}),
        }
    )
    assert not release.names("Role") | release.names("ClusterRole") | release.names("ClusterRoleBinding")
    assert "detr-workflows-bridge" not in release.names("ServiceAccount")
    assert pod(release)["spec"]["serviceAccountName"] == "theirs"


def test_services_find_their_pods_and_an_ingress_leads_to_the_one_path_only(whole: Release):
    for name, port in (("detr-workflows-bridge", 8080), ("detr-workflows-models", 8070)):
        service = whole.of("Service", name)["spec"]
        assert service["ports"][0]["port"] == port
        labels = pod(whole, name)["metadata"]["labels"]
        assert service["selector"].items() <= labels.items()
        assert whole.of("Deployment", name)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (rule,) = whole.of("Ingress", "detr-workflows-bridge")["spec"]["rules"]
    assert rule["host"] == "cvat.example.org"
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/training-bridge", "Prefix")
    assert path["backend"]["service"] == {"name": "detr-workflows-bridge", "port": {"name": "http"}}


def test_the_host_of_an_ingress_has_no_port():
    release = rendered(bridge(cvat={**CVAT, "publicOrigin": "http://cvat.local:8080"}, ingress={"enabled": True}))
    assert release.of("Ingress", "detr-workflows-bridge")["spec"]["rules"][0]["host"] == "cvat.local"


def test_only_cvat_reaches_the_models_whatever_other_policies_say(whole: Release):
    policy = whole.of("NetworkPolicy", "detr-workflows-models")["spec"]
    assert (
        policy["podSelector"]["matchLabels"].items()
        <= pod(whole, "detr-workflows-models")["metadata"]["labels"].items()
    )
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [
        {
            "from": [
                {"namespaceSelector": IN_CVAT, "podSelector": {"matchLabels": {"app": "cvat-app", "tier": "backend"}}}
            ],
            "ports": [{"port": 8070, "protocol": "TCP"}],
        }
    ]
    assert whole.names("NetworkPolicy") == {"detr-workflows-models"}


def test_with_policies_the_bridge_is_reached_and_those_who_call_cvat_reach_it():
    peers = [{"namespaceSelector": {"matchLabels": {"name": "cvat"}}}]
    ways = {"allowFrom": peers, "cvat": {"to": peers, "ports": [8080]}}
    release = rendered({"networkPolicy": {"enabled": True}, **bridge(networkPolicy=ways)})
    ingress = release.of("NetworkPolicy", "detr-workflows-bridge")["spec"]
    assert ingress["ingress"] == [{"from": peers, "ports": [{"port": 8080, "protocol": "TCP"}]}]
    egress = release.of("NetworkPolicy", "detr-workflows-bridge-cvat")["spec"]
    assert egress["egress"] == [{"to": peers, "ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert egress["podSelector"]["matchLabels"] == {"app.kubernetes.io/part-of": "detr-workflows", **CALLERS}
    callers = {name for name, step in release.steps() if step["metadata"]["labels"].items() >= CALLERS.items()}
    assert callers == {"cvat-train/export", "cvat-train/export-for-others", "detr-annotate/annotate"}
    assert pod(release)["metadata"]["labels"].items() >= CALLERS.items()


def test_models_on_a_gpu_go_to_their_pool_and_hold_one():
    release = rendered({"nodePools": POOLS, **bridge(models={"enabled": True, "device": "cuda", "pool": "large"})})
    spec = pod(release, "detr-workflows-models")["spec"]
    assert spec["nodeSelector"] == {"node.kubernetes.io/instance-type": "gpu-large"}
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/mig-3g.40gb"] == 1
    assert container["args"][-1] == "--device=cuda"
    assert release.of("Deployment", "detr-workflows-models")["spec"]["strategy"] == {"type": "Recreate"}
    small = rendered({"nodePools": POOLS, **bridge(models={"enabled": True, "device": "cuda", "pool": "small"})})
    tolerations = pod(small, "detr-workflows-models")["spec"]["tolerations"]
    assert {"key": "small", "operator": "Exists", "effect": "NoSchedule"} in tolerations


def test_models_on_a_cpu_ask_for_no_gpu(whole: Release):
    assert "nvidia.com" not in json.dumps(pod(whole, "detr-workflows-models"))


@pytest.mark.parametrize("role", ["bridge", "models"])
def test_a_service_goes_where_its_role_says(role: str):
    release = rendered(
        {
            "pods": {
                "nodeSelector": {"zone": "a"},
                "priorityClassName": "low",
                "extraEnv": [{"name": "A", "value": "1"}],
            },
            "roles": {
                role: {
                    "nodeSelector": {"zone": "b"},
                    "tolerations": [{"key": "t", "operator": "Exists"}],
                    "priorityClassName": "high",
                    "extraEnv": [{"name": "B", "value": "2"}],
                    "extraVolumes": [{"name": "mine", "emptyDir": {}}],
                    "extraVolumeMounts": [{"name": "mine", "mountPath": "/mnt/mine"}],
                }
            },
            **bridge(models={"enabled": True}),
        }
    )
    for one in ("bridge", "models"):
        spec = pod(release, f"detr-workflows-{one}")["spec"]
        (container,) = spec["containers"]
        mine = one == role
        assert spec["nodeSelector"] == {"zone": "b" if mine else "a"}
        assert spec["priorityClassName"] == ("high" if mine else "low")
        assert ({"key": "t", "operator": "Exists"} in spec.get("tolerations", [])) is mine
        own = [variable["name"] for variable in container["env"] if variable["name"] in "AB"]
        assert own == (["A", "B"] if mine else ["A"])
        assert ("mine" in [volume["name"] for volume in spec["volumes"]]) is mine


def test_certificates_of_cvat_reach_those_who_call_it():
    release = rendered(
        bridge(cvat={**CVAT, "ca": {"configMap": "authority", "key": "ca.pem"}}, models={"enabled": True})
    )
    mount = {"name": "cvat-ca", "mountPath": "/etc/cvat-ca", "readOnly": True}
    volume = {"name": "cvat-ca", "configMap": {"name": "authority", "items": [{"key": "ca.pem", "path": "ca.pem"}]}}
    for name, step in release.steps():
        talks = step["metadata"]["labels"].items() >= CALLERS.items()
        assert (mount in step["container"]["volumeMounts"]) is talks, name
        assert (volume in step["volumes"]) is talks, name
    assert mount in pod(release)["spec"]["containers"][0]["volumeMounts"]
    assert volume in pod(release)["spec"]["volumes"]
    assert "cvat-ca" not in json.dumps(pod(release, "detr-workflows-models"))


def test_a_name_of_ones_own_reaches_every_part_of_the_bridge():
    release = rendered({"fullnameOverride": "vision", **bridge(models={"enabled": True}, controls={"stop": True})})
    assert release.names("Deployment") == release.names("Service") == {"vision-bridge", "vision-models"}
    assert {"vision", "vision-bridge", "vision-cvat-nginx"} == release.names("ConfigMap")
    for template, step in (
        ("cvat-train", "export"),
        ("cvat-train", "export-for-others"),
        ("detr-annotate", "annotate"),
    ):
        one = release.step(step, template)
        assert variables(one)["CVAT_ACCESS_TOKEN"]["secretKeyRef"]["name"] == "vision-cvat"
        names = {volume["name"]: volume["configMap"]["name"] for volume in one["volumes"] if "configMap" in volume}
        assert names == {"settings": "vision", "bridge": "vision-bridge"}
    assert release.step("export-for-others", "cvat-train")["serviceAccountName"] == "vision"


def test_the_export_for_others_has_what_the_values_say_of_every_pod():
    security = {"runAsUser": None, "runAsGroup": None, "fsGroup": 1000650000}
    resources = {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
    values = {"pods": {"podSecurityContext": security}, "argo": {"executor": {"resources": resources}}, **bridge()}
    step = rendered(values).step("export-for-others", "cvat-train")
    assert step["securityContext"]["fsGroup"] == 1000650000
    assert "runAsUser" not in step["securityContext"]
    assert [one["resources"] for one in patch(step)["initContainers"] + patch(step)["containers"]] == [resources] * 2
    without = rendered({"argo": {"patchExecutor": False}, **bridge()}).step("export-for-others", "cvat-train")
    assert patch(without) == {"automountServiceAccountToken": True}


def test_annotate_goes_to_the_pool_that_the_run_names():
    release = rendered({"nodePools": POOLS, **bridge()})
    train, annotate = release.step("train", "cvat-train"), release.step("annotate", "detr-annotate")
    for key in ("nodeSelector", "tolerations", "synchronization"):
        assert annotate[key] == train[key]
    assert "gpu-small" in json.dumps(annotate["nodeSelector"])


def test_a_service_monitor_asks_inside():
    release = rendered(bridge(serviceMonitor={"enabled": True, "labels": {"release": "prometheus"}, "interval": "1m"}))
    monitor = release.of("ServiceMonitor", "detr-workflows-bridge")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"] == [{"port": "http", "path": "/metrics", "interval": "1m"}]
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= release.of("Service", "detr-workflows-bridge")["metadata"]["labels"].items()
    assert "detr-workflows-models" not in release.names("ServiceMonitor")


def test_prometheus_may_read_the_model_server_where_it_is_named():
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    models = {"enabled": True, "alsoFrom": [prometheus]}
    release = rendered(bridge(models=models, serviceMonitor={"enabled": True}))
    monitor = release.of("ServiceMonitor", "detr-workflows-models")
    selected = monitor["spec"]["selector"]["matchLabels"]
    service = release.of("Service", "detr-workflows-models")
    assert selected.items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    (rule,) = release.of("NetworkPolicy", "detr-workflows-models")["spec"]["ingress"]
    assert rule["from"][1:] == [prometheus]


def test_what_is_for_pods_of_runs_is_not_for_services():
    queue = {"kueue.x-k8s.io/queue-name": "training"}
    pods = {"labels": queue, "annotations": {"karpenter.sh/do-not-disrupt": "true"}}
    release = rendered({"pods": pods, **bridge(models={"enabled": True})})
    for name in ("detr-workflows-bridge", "detr-workflows-models"):
        metadata = release.of("Deployment", name)["spec"]["template"]["metadata"]
        assert not metadata["labels"].keys() & queue.keys()
        assert not metadata["annotations"].keys() & pods["annotations"].keys()


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"cvat": {"publicOrigin": CVAT["publicOrigin"]}},
        "cvatBridge.cvat.url is missing: the URL of CVAT's server for pods",
    ),
    (
        {"cvat": {"url": CVAT["url"]}},
        "cvatBridge.cvat.publicOrigin is missing: the origin of CVAT in the browser",
    ),
    (
        {"existingSecret": "a", "trialSecret": {"accessToken": "b"}},
        "cvatBridge.existingSecret and cvatBridge.trialSecret both say where the token and the keys are",
    ),
    ({"trialSecret": {"accessToken": "b"}}, "cvatBridge.trialSecret needs both accessToken and signingKey."),
    (
        {"trialSecret": {"accessToken": "b", "signingKey": "short"}},
        "cvatBridge.trialSecret.signingKey must have 16 characters or more",
    ),
    (
        {"trialSecret": {"accessToken": "b", "signingKey": "k" * 16}, "triggers": [{"event": "task-completed"}]},
        "cvatBridge.triggers need cvatBridge.trialSecret.webhookSecret",
    ),
    (
        {"triggers": [{"event": "task-completed", "projects": [3, 4]}, {"event": "task-completed", "projects": [4]}]},
        "cvatBridge.triggers: task-completed starts cvat-train for project 4 twice",
    ),
    ({"models": {"enabled": True, "pool": "big"}}, "cvatBridge.models.pool: there is no pool big; nodePools has small"),
    (
        {"models": {"enabled": True, "allowFrom": {"namespaceSelector": {}}}},
        "cvatBridge.models.allowFrom.namespaceSelector is missing: the namespace of CVAT's pods",
    ),
    (
        {"models": {"enabled": True, "device": "cuda"}},
        "cvatBridge.models.pool is missing: device cuda needs one of small",
    ),
    (
        {"models": {"enabled": True, "device": "cuda", "pool": "none"}},
        "cvatBridge.models.device is cuda, and the pool none has no GPU",
    ),
    # From here on the schema speaks.
    ({"cvat": {**CVAT, "publicOrigin": "https://cvat.example.org/"}}, "at '/cvatBridge/cvat/publicOrigin'"),
    ({"cvat": {**CVAT, "url": "cvat:8080"}}, "at '/cvatBridge/cvat/url'"),
    ({"cvat": {**CVAT, "cloudStorage": 3}}, "at '/cvatBridge/cvat': additional properties 'cloudStorage' not allowed"),
    ({"triggers": [{"event": "export"}]}, "at '/cvatBridge/triggers/0/event': value must be one of 'task-completed'"),
    ({"models": {"device": "auto"}}, "at '/cvatBridge/models/device': value must be one of 'cpu', 'cuda'"),
    ({"models": {"threshold": 2}}, "at '/cvatBridge/models/threshold': maximum: got 2, want 1"),
    ({"grants": {"lifetimeS": 1}}, "at '/cvatBridge/grants/lifetimeS': minimum: got 1, want 60"),
    ({"nginx": {"upstream": "http://a; } server { listen 1"}}, "at '/cvatBridge/nginx/upstream'"),
    ({"nginx": {"resolver": "a; return 200"}}, "at '/cvatBridge/nginx/resolver'"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=[sentence[:60] for _, sentence in REFUSED])
def test_values_of_the_bridge_that_cannot_work_are_refused_by_name(values: dict[str, Any], sentence: str):
    pools = [*POOLS, {"name": "none", "labelValue": "cpu", "gpuCount": 0}]
    assert sentence in refusal({**BUCKET, "nodePools": pools, **bridge(**{"cvat": CVAT, **values})})
