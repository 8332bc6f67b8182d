"""Node pools: where training goes, what it asks for, whose turn it is."""

from typing import Any

import pytest

from tests.charts.chart import POOLS, patch, rendered

GPU_STEPS = (("detr-train", "train"), ("detr-evaluate", "evaluate"))
CHAIN = (
    "{{=workflow.parameters['sys-node-pool'] == 'small' ? '%s' : "
    "workflow.parameters['sys-node-pool'] == 'large' ? '%s' : ''}}"
)
NVIDIA = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@pytest.mark.parametrize(("template", "name"), GPU_STEPS)
def test_the_pool_is_chosen_by_its_name_and_nothing_typed_is_part_of_the_result(template: str, name: str):
    step = rendered({"nodePools": POOLS, "nodePoolLabel": "karpenter.sh/nodepool"}).step(name, template)
    assert step["nodeSelector"] == {"karpenter.sh/nodepool": CHAIN % ("gpu-small", "gpu-large")}
    limits = patch(step)["containers"][0]["resources"]["limits"]
    assert limits == {
        CHAIN % ("nvidia.com/gpu", "nvidia.com/mig-3g.40gb"): "{{=asInt(workflow.parameters['gpu-count'])}}"
    }


def test_no_patch_has_a_tag_that_a_parameter_fills_as_text():
    release = rendered({"nodePools": POOLS})
    patches = [template["spec"]["podSpecPatch"] for template in release.templates]
    patches += [step["podSpecPatch"] for _, step in release.steps() if "podSpecPatch" in step]
    assert len(patches) > 3
    for text in patches:
        # Every tag is an expression: asInt, or a chain over the installation's own names.
        assert text.count("{{") == text.count("{{=asInt(") + text.count("{{=workflow.parameters['sys-node-pool'] == ")
        # Double quotes around them: an expression has single ones, which YAML would double.
        assert "''gpu" not in text


def test_a_pod_tolerates_the_taints_of_all_pools():
    step = rendered({"nodePools": POOLS, "roles": {"train": {"tolerations": [{"operator": "Exists"}]}}}).step("train")
    assert step["tolerations"] == [NVIDIA, POOLS[0]["tolerations"][0], {"operator": "Exists"}]


@pytest.mark.parametrize(("template", "name"), GPU_STEPS)
def test_a_limit_makes_training_pods_of_a_pool_wait_for_each_other(template: str, name: str):
    release = rendered({"nodePools": POOLS})
    assert release.step(name, template)["synchronization"] == {
        "semaphores": [
            {"configMapKeyRef": {"name": "detr-workflows", "key": "pool.{{workflow.parameters.sys-node-pool}}"}}
        ]
    }
    # A key that is missing would fail the run.
    assert release.config["pool.small"] == "1"
    assert int(release.config["pool.large"]) > 1000


def test_a_limit_of_zero_closes_a_pool():
    release = rendered({"nodePools": [{"name": "small", "labelValue": "x", "limit": 0}]})
    assert release.config["pool.small"] == "0"


def test_without_limits_nobody_waits():
    release = rendered({"nodePools": POOLS[1:]})
    assert "synchronization" not in release.step("train")
    assert not [key for key in release.config if key.startswith("pool.")]


def test_the_form_offers_the_pools_with_their_titles_and_the_most_gpus():
    release = rendered({"nodePools": POOLS})
    for template, _ in GPU_STEPS:
        pool = release.parameter("sys-node-pool", template)
        assert (pool["value"], pool["enum"]) == ("small", ["small", "large"])
        assert "- `small`: One small GPU\n- `large`" in pool["description"]
        assert release.form("sys-node-pool", template)["choices"] == ["small", "large"]
        assert release.form("gpu-count", template)["maximum"] == 4


def test_another_pool_can_be_the_default():
    release = rendered({"nodePools": POOLS, "parameters": {"sys-node-pool": {"default": "large"}}})
    assert release.parameter("sys-node-pool")["value"] == "large"


def test_pools_without_gpus_ask_for_none():
    release = rendered({"nodePools": [{"name": "cpu", "labelValue": "cpu", "gpuCount": 0}]})
    assert release.parameter("gpu-count")["value"] == "0"
    assert release.form("gpu-count")["maximum"] == 0


def test_without_pools_training_asks_for_an_nvidia_gpu_wherever_there_is_one():
    release = rendered()
    step = release.step("train")
    limits = patch(step)["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "{{=asInt(workflow.parameters['gpu-count'])}}"}
    assert step["tolerations"] == [NVIDIA]
    assert "nodeSelector" not in step
    assert "synchronization" not in step
    assert "enum" not in release.parameter("sys-node-pool")


@pytest.mark.parametrize("template", ["detr-train", "detr-prepare", "detr-evaluate"])
def test_only_the_steps_that_train_hold_gpus(template: str):
    release = rendered({"nodePools": POOLS})
    for step in release.template(template)["spec"]["templates"]:
        if "container" in step and step["metadata"]["labels"]["app.kubernetes.io/component"] != "train":
            assert "nodeSelector" not in step
            assert "gpu" not in step.get("podSpecPatch", "")
            assert "podSpecPatch" not in step or step["name"] == "tell"  # its patch mounts a token
            assert "gpu" not in str(step["container"]["resources"])


def test_steps_read_the_pools_from_the_settings(installation: Any):
    settings = installation(rendered({"nodePools": POOLS}))
    assert [pool.name for pool in settings.node_pools] == ["small", "large"]
    assert settings.pool("large").gpu_resource == "nvidia.com/mig-3g.40gb"
    assert settings.pool("small").limit == 1
    assert settings.pool("large").limit is None
