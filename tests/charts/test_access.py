"""Roles, service accounts, network policies, and the objects that people add."""

from typing import Any

import pytest
import yaml

from tests.charts.chart import rendered

PODS = {"matchLabels": {"app.kubernetes.io/part-of": "detr-workflows"}}


def test_pods_of_runs_may_report_results_and_nothing_else():
    release = rendered()
    assert release.of("Role", "detr-workflows")["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    assert subjects(release, "detr-workflows") == ["detr-workflows"]


def test_the_exit_handler_alone_may_change_workflows():
    release = rendered()
    assert release.of("Role", "detr-workflows-tell")["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["patch"]},
    ]
    assert subjects(release, "detr-workflows-tell") == ["detr-workflows-tell"]
    token = {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "executor-token", "readOnly": True}
    for name, step in release.steps():
        if name.endswith("tell"):
            assert step["serviceAccountName"] == "detr-workflows-tell"
            assert yaml.safe_load(step["podSpecPatch"]) == {"containers": [{"name": "main", "volumeMounts": [token]}]}
        else:
            assert step.get("serviceAccountName") in (None, "detr-workflows"), name
            assert "executor-token" not in step.get("podSpecPatch", ""), name


@pytest.mark.parametrize(
    "values",
    [
        {"workflow": {"failureMessage": False}},
        {"rbac": {"create": False}},
        {"serviceAccounts": {"workflow": {"create": False, "name": "runs"}}},
    ],
)
def test_the_exit_handler_has_no_account_of_its_own_where_it_is_not_wanted(values: dict[str, Any]):
    release = rendered(values)
    assert "detr-workflows-tell" not in release.text
    assert not any("podSpecPatch" in step for name, step in release.steps() if name.endswith("tell"))


def test_clients_may_submit_and_follow_runs_and_read_the_settings():
    release = rendered()
    assert release.of("Role", "detr-workflows-client")["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get", "list"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["create", "get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["detr-workflows"], "verbs": ["get"]},
    ]
    assert subjects(release, "detr-workflows-client") == ["detr-workflows-client"]


def test_further_people_may_be_clients():
    group = {"kind": "Group", "name": "annotators", "apiGroup": "rbac.authorization.k8s.io"}
    release = rendered({"rbac": {"clientSubjects": [group]}})
    assert subjects(release, "detr-workflows-client") == ["detr-workflows-client", "annotators"]


def subjects(release: Any, binding: str) -> list[str]:
    return [one["name"] for one in release.of("RoleBinding", binding)["subjects"]]


def test_nothing_is_asked_of_the_whole_cluster():
    kinds = {one["kind"] for one in rendered({"networkPolicy": {"enabled": True}}).objects}
    assert kinds == {
        "ConfigMap", "NetworkPolicy", "Pod", "Role", "RoleBinding", "ServiceAccount", "WorkflowTemplate",
    }  # fmt: skip


def test_service_accounts_and_roles_can_be_somebody_elses():
    release = rendered(
        {
            "serviceAccounts": {"workflow": {"create": False, "name": "runs"}, "client": {"create": False}},
            "rbac": {"create": False},
        }
    )
    assert not release.names("ServiceAccount") | release.names("Role") | release.names("RoleBinding")
    assert all(template["spec"]["serviceAccountName"] == "runs" for template in release.templates)
    assert release.of("Pod", "detr-workflows-test-sample")["spec"]["serviceAccountName"] == "runs"


def test_without_network_policies_there_are_none():
    assert rendered().names("NetworkPolicy") == set()


def test_network_policies_deny_what_is_not_listed():
    release = rendered(
        {
            "networkPolicy": {
                "enabled": True,
                "store": {"cidrs": ["10.1.0.0/16"], "ports": [9000]},
                "kubernetesApi": {"cidrs": ["10.0.0.1/32"], "ports": [6443]},
                "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}]}],
            }
        }
    )
    deny = release.of("NetworkPolicy", "detr-workflows-deny")["spec"]
    assert deny == {"podSelector": PODS, "policyTypes": ["Ingress", "Egress"]}
    allowed = release.of("NetworkPolicy", "detr-workflows-egress")["spec"]
    assert allowed["podSelector"] == PODS
    assert allowed["policyTypes"] == ["Egress"]
    assert allowed["egress"] == [
        {
            "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
        },
        {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 9000, "protocol": "TCP"}]},
        {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 6443, "protocol": "TCP"}]},
        {"to": [{"ipBlock": {"cidr": "10.9.9.9/32"}}]},
    ]


def test_the_clouds_metadata_address_is_out_of_reach_by_default():
    release = rendered({"networkPolicy": {"enabled": True}})
    blocks = [
        peer["ipBlock"]
        for rule in release.of("NetworkPolicy", "detr-workflows-egress")["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    assert len(blocks) == 2
    assert all(block == {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]} for block in blocks)


def test_every_pod_of_a_run_is_one_that_the_policies_select():
    release = rendered()
    for name, step in release.steps():
        assert step["metadata"]["labels"]["app.kubernetes.io/part-of"] == "detr-workflows", name


def test_objects_of_ones_own_are_templates():
    text = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": '{{ include "detr-workflows.fullname" . }}-a'}}
    )
    mapping = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "{{ .Release.Name }}-b"}}
    release = rendered({"extraObjects": [text, mapping]})
    assert "detr-workflows-a" in release.names("ConfigMap")
    assert "release-b" in release.names("ServiceAccount")


def test_the_test_runs_a_tiny_model_on_a_sample_with_the_rights_of_a_client():
    release = rendered(
        {
            "store": {"prefix": "team", "existingSecret": "keys"},
            "nodePools": [{"name": "small", "labelValue": "x"}, {"name": "other", "labelValue": "y"}],
            "test": {"pool": "other", "device": "cpu", "parameters": {"gpu-count": "0", "epochs": "2"}},
        }
    )
    sample = release.of("Pod", "detr-workflows-test-sample")
    submit = release.of("Pod", "detr-workflows-test")
    order = [one["metadata"]["annotations"]["helm.sh/hook-weight"] for one in (sample, submit)]
    assert order == ["0", "1"]
    assert sample["spec"]["containers"][0]["args"][-1] == "s3://parts/team/helm-test/sample"
    assert submit["spec"]["serviceAccountName"] == "detr-workflows-client"
    (container,) = submit["spec"]["containers"]
    assert container["command"] == ["detr-workflows"]
    assert container["args"][:4] == ["submit", "detr-train", "--namespace=ns", "--watch"]
    given = {container["args"][at + 1] for at, one in enumerate(container["args"]) if one == "-p"}
    assert given == {
        "cvat-annotation-path=helm-test/sample/sample_trainval.zip",
        "cvat-test-path=helm-test/sample/sample_test.zip",
        "model=tiny",
        "epochs=2",
        "batch-size=4",
        "device=cpu",
        "gpu-count=0",
        "sys-node-pool=other",
    }
    # The store's keys are where the sample is put, the token is where the run is submitted; neither has both.
    assert "serviceAccountToken" not in str(sample)
    assert "secretKeyRef" not in str(submit)


def test_the_test_can_be_left_out():
    assert rendered({"test": {"enabled": False}}).names("Pod") == set()
