"""Values that could not work are refused before anything is installed, with their name and a reason."""

from typing import Any

import pytest

from tests.charts.chart import BUCKET, POOLS, refusal, rendered

CASES: list[tuple[dict[str, Any], str]] = [
    ({"store": {"bucket": ""}}, "store.bucket is missing: the name of the bucket"),
    ({"nodePools": [POOLS[0], POOLS[0]]}, "nodePools: the name small is used twice"),
    ({"test": {"pool": "big"}, "nodePools": POOLS}, "test.pool: there is no pool big; nodePools has small, large."),
    ({"test": {"pool": "big"}}, "test.pool: there is no pool big; nodePools has none."),
    (
        {"nodePools": POOLS, "parameters": {"sys-node-pool": {"default": "big"}}},
        'parameters.sys-node-pool.default must be one of its choices (small, large), not "big".',
    ),
    (
        {"nodePools": POOLS, "parameters": {"sys-node-pool": {"enum": ["big"]}}},
        "parameters.sys-node-pool.enum: there is no pool big; nodePools has small, large.",
    ),
    (
        {"parameters": {"sys-node-pool": {"default": "big"}}},
        "parameters.sys-node-pool: nodePools is empty, so there is no pool big.",
    ),
    (
        {"parameters": {"epochs": {"default": "0"}}},
        "parameters.epochs: 0 is out of bounds; it must be at least 1 and at most 10000.",
    ),
    (
        {"parameters": {"learning-rate": {"default": "0"}}},
        "parameters.learning-rate: 0 is out of bounds; it must be above 0 and at most 1.",
    ),
    (
        {"parameters": {"val-fraction": {"default": "0.95"}}},
        "parameters.val-fraction: 0.95 is out of bounds; it must be at least 0 and at most 0.9.",
    ),
    (
        {"nodePools": POOLS, "parameters": {"gpu-count": {"default": "5"}}},
        "parameters.gpu-count: 5 is out of bounds; it must be at least 0 and at most 4.",
    ),
    (
        {"parameters": {"model": {"enum": ["tiny"]}}},
        'parameters.model.default must be one of its choices (tiny), not "detr-r50".',
    ),
    (
        {
            "store": {
                "bucket": "parts",
                "existingSecret": "a",
                "trialCredentials": {"accessKeyId": "b", "secretAccessKey": "c"},
            }
        },
        "store.existingSecret and store.trialCredentials both say where the store's keys are",
    ),
    (
        {"store": {"bucket": "parts", "trialCredentials": {"accessKeyId": "b"}}},
        "needs both accessKeyId and secretAccessKey",
    ),
    (
        {"store": {"bucket": "parts", "existingSecret": "a", "useSDKCreds": True}},
        "store.useSDKCreds is for credentials without a secret",
    ),
    ({"store": {"bucket": "parts", "caBundle": {"configMap": "ca"}}}, "store.caBundle.argoSecret is missing"),
    ({"webhook": {"existingSecret": "a", "trialUrl": "https://x.example.org"}}, "set one of them"),
    (
        {"store": {"bucket": "parts", "writable": ["team-a", "workflow"]}},
        "store.writable: no run could write to the default of cvat-output-path, workflow-data/output: add it, or set",
    ),
    # From here on the schema speaks, which Helm looks at first.
    ({"parameters": {"epoch": {"default": "3"}}}, "at '/parameters': additional properties 'epoch' not allowed"),
    ({"parameters": {"store": {"default": "s3://x"}}}, "at '/parameters': additional properties 'store' not allowed"),
    ({"parameters": {"epochs": {"default": 3}}}, "at '/parameters/epochs/default': got number, want string"),
    ({"parameters": {"seed": {"default": ""}}}, "at '/parameters/seed/default': '' does not match"),
    (
        {"parameters": {"device": {"default": "gpu"}}},
        "at '/parameters/device/default': value must be one of 'cuda', 'auto', 'cpu'",
    ),
    ({"parameters": {"overrides": {"default": "{{workflow.name}}"}}}, "at '/parameters/overrides/default'"),
    ({"parameters": {"model": {"enum": []}}}, "at '/parameters/model/enum': minItems: got 0, want 1"),
    ({"nodePools": [{"name": "x"}]}, "at '/nodePools/0': missing property 'labelValue'"),
    ({"nodePools": [{"name": "a' == '", "labelValue": "x"}]}, "at '/nodePools/0/name'"),
    ({"nodePools": [{"name": "a", "labelValue": "x' : '"}]}, "at '/nodePools/0/labelValue'"),
    ({"nodePools": [{"name": "a", "labelValue": "x", "gpuResource": "a'b"}]}, "at '/nodePools/0/gpuResource'"),
    ({"nodePools": [{"name": "a", "labelValue": "x", "limits": 1}]}, "additional properties 'limits' not allowed"),
    (
        {"nodePools": [{"name": "a", "labelValue": "x", "gpuCount": 17}]},
        "at '/nodePools/0/gpuCount': maximum: got 17, want 16",
    ),
    ({"store": {"bucket": "s3://parts"}}, "at '/store/bucket'"),
    ({"store": {"bucket": "parts", "prefix": "/team/"}}, "at '/store/prefix'"),
    ({"store": {"bucket": "parts", "endpoint": "s3.example.org"}}, "at '/store/endpoint'"),
    ({"store": {"bucket": "parts", "readable": ["exports"]}}, "at '/store/readable/0'"),
    ({"store": {"bucket": "parts", "prefix": "a/../b"}}, "at '/store/prefix'"),
    ({"store": {"bucket": "parts", "prefix": "a/%2e%2E"}}, "at '/store/prefix'"),
    ({"store": {"bucket": "parts", "writable": ["workflow-data", "./runs"]}}, "at '/store/writable/1'"),
    ({"store": {"bucket": "parts", "writable": ["weights/mine"]}}, "at '/store/writable/0'"),
    ({"parameters": {"cvat-output-path": {"default": "weights"}}}, "at '/parameters/cvat-output-path/default'"),
    ({"cvatBridge": {"exports": {"prefix": "weights/a"}}}, "at '/cvatBridge/exports/prefix'"),
    ({"argo": {"artifactRepository": {"logPrefix": "weights"}}}, "at '/argo/artifactRepository/logPrefix'"),
    ({"weights": {"pull": ["rf-detr-smal"]}}, "at '/weights/pull/0': value must be one of 'rf-detr-nano'"),
    ({"weights": {"endpoint": "hf-mirror.example.org"}}, "at '/weights/endpoint'"),
    ({"weights": {"mirror": "file:///mnt"}}, "at '/weights/mirror'"),
    ({"networkPolicy": {"weights": {"to": []}}}, "at '/networkPolicy/weights/to': minItems: got 0, want 1"),
    ({"store": {"bucket": "parts", "readable": ["s3://exports/a/.."]}}, "at '/store/readable/0'"),
    ({"store": {"bucket": "parts", "readable": ["s3://exports//a"]}}, "at '/store/readable/0'"),
    ({"cvatBridge": {"exports": {"prefix": "a/../b"}}}, "at '/cvatBridge/exports/prefix'"),
    ({"argo": {"artifactRepository": {"logPrefix": "../logs"}}}, "at '/argo/artifactRepository/logPrefix'"),
    ({"store": {"buckt": "parts"}}, "at '/store': additional properties 'buckt' not allowed"),
    ({"images": {"detrJob": {"digest": "0123"}}}, "at '/images/detrJob/digest': '0123' does not match"),
    ({"images": {"pullPolicy": "always"}}, "at '/images/pullPolicy': value must be one of"),
    ({"roles": {"trian": {}}}, "at '/roles': additional properties 'trian' not allowed"),
    ({"roles": {"train": {"retryLimit": "ten"}}}, "at '/roles/train/retryLimit': got string, want integer"),
    ({"networkPolicy": {"store": {"cidrs": []}}}, "at '/networkPolicy/store/cidrs': minItems: got 0, want 1"),
    ({"test": {"parameters": {"epoch": "1"}}}, "at '/test/parameters': additional properties 'epoch' not allowed"),
]


@pytest.mark.parametrize(("values", "sentence"), CASES, ids=[sentence[:48] for _, sentence in CASES])
def test_values_that_cannot_work_are_refused_by_name(values: dict[str, Any], sentence: str):
    assert sentence in refusal({**BUCKET, **values})


def test_a_cluster_without_argo_is_told_what_comes_first():
    assert "This cluster has no Argo Workflows (no kind WorkflowTemplate)" in refusal(BUCKET, argo=False)


def test_the_look_for_argo_can_be_left_out():
    release = rendered({"argo": {"required": False}}, argo=False)
    assert len(release.templates) == 4
