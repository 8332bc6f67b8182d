"""The JSON schema of the chart's values. Parameters and node pools come from their definitions, the rest is written
here.

Helm validates the values before it renders anything, and its errors name the value. The schema has no descriptions:
values.yaml describes every value.
"""

import json
import re
from collections.abc import Mapping

from pydantic.alias_generators import to_camel

from run_config.data_limits import DataLimits
from run_config.installation import LABEL_VALUE, MAX_IMAGE_SIDE, QUALIFIED_NAME
from run_config.parameters import BY_NAME, POOL_NAME, TEMPLATES, Parameter, Role, Type
from workflows.chart import bridge_schema
from workflows.chart.schema_words import (
    BOOLEAN,
    BUCKET,
    CIDR,
    COUNT,
    DNS_NAME,
    DURATION,
    KEY,
    LABEL_NAME,
    OBJECT,
    OBJECTS,
    OPEN,
    PORTS,
    POSITIVE,
    PREFIX,
    QUANTITY,
    REGISTRY,
    REPOSITORY,
    STRING,
    TEXTS,
    URL,
    Schema,
    closed,
    labels,
    listed,
    maybe,
    names,
    plain,
    resources,
    service_account,
    worded,
)


def text() -> str:
    """The text of the schema file in the chart."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Schema:
    """The schema of all values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart detr-workflows",
        **closed(
            fullnameOverride=maybe(LABEL_NAME),
            nameOverride=maybe(LABEL_NAME),
            namespaceOverride=maybe("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
            commonLabels=labels(),
            commonAnnotations=TEXTS,
            # Parent charts may add any key here.
            **{"global": {**closed(imageRegistry=maybe(REGISTRY), imagePullSecrets=names()), **OPEN}},
            images=closed(
                registry=maybe(REGISTRY),
                pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
                pullSecrets=names(),
                cpuSteps=_image(),
                detrJob=_image(),
                cvatBridge=_image(),
            ),
            store=_store(),
            maxImagePixels={"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_SIDE**2},
            dataLimits=closed(
                **{to_camel(name): {"type": "number", "minimum": 0, "maximum": 1} for name in DataLimits.model_fields}
            ),
            nodePoolLabel=worded(QUALIFIED_NAME),
            nodePools={"type": "array", "items": _pool()},
            parameters=_parameters(),
            argo=_argo(),
            workflow=_workflow(),
            pods=_pods(),
            roles=_roles(),
            cvatBridge=bridge_schema.bridge(),
            webhook=closed(existingSecret=maybe(DNS_NAME), key=worded(KEY), trialUrl=maybe(r"https?://\S+")),
            serviceAccounts=closed(workflow=service_account(), client=service_account()),
            rbac=closed(create=BOOLEAN, clientSubjects=OBJECTS),
            networkPolicy=_network_policy(),
            test=closed(
                enabled=BOOLEAN,
                pool=maybe(POOL_NAME.pattern),
                device={"enum": list(BY_NAME["device"].choices)},
                images={"type": "integer", "minimum": 10, "maximum": 1000},
                timeoutSeconds=POSITIVE,
                parameters=closed(
                    **{one.name: STRING for one in TEMPLATES["detr-train"] if one.role is not Role.STORE}
                ),
                resources=resources(),
            ),
            extraObjects={"type": "array", "items": {"type": ["object", "string"]}},
        ),
    }


def _image() -> Schema:
    return closed(
        repository=worded(REPOSITORY),
        tag=maybe(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}"),
        digest=maybe("sha256:[0-9a-f]{64}"),
    )


def _store() -> Schema:
    location = r"s3://" + BUCKET + r"(/[^/\s]+)*/?"
    return closed(
        bucket=maybe(BUCKET),
        prefix=plain(maybe(PREFIX)),
        endpoint=maybe(URL),
        region=maybe("[-a-z0-9]+"),
        addressingStyle={"enum": ["", "path", "virtual-hosted"]},
        readable={"type": "array", "items": plain(worded(location))},
        writable={"type": "array", "items": plain(worded(PREFIX))},
        existingSecret=maybe(DNS_NAME),
        secretKeys=closed(accessKeyId=worded(KEY), secretAccessKey=worded(KEY), sessionToken=worded(KEY)),
        useSessionToken=BOOLEAN,
        useSDKCreds=BOOLEAN,
        trialCredentials=closed(accessKeyId=STRING, secretAccessKey=STRING, sessionToken=STRING),
        caBundle=closed(configMap=maybe(DNS_NAME), key=worded(KEY), argoSecret=maybe(DNS_NAME)),
    )


def _pool() -> Schema:
    """A node pool, as `run_config.installation.NodePool` reads it."""
    toleration = closed(
        key=maybe(QUALIFIED_NAME),
        operator={"enum": ["Exists", "Equal"]},
        value=worded(LABEL_VALUE),
        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        tolerationSeconds=COUNT,
    )
    return {
        **closed(
            name=worded(POOL_NAME.pattern),
            title={"type": "string", "pattern": "^[^\n{}]*$"},
            labelValue=worded(LABEL_VALUE),
            gpuResource=worded(QUALIFIED_NAME),
            gpuCount={"type": "integer", "minimum": 0, "maximum": 16},
            limit=COUNT,
            tolerations={"type": "array", "items": toleration},
        ),
        "required": ["name", "labelValue"],
    }


def _parameters() -> Schema:
    """Defaults and choices by parameter. The chart itself checks the bounds of numbers.

    The store has its default in `store`. The subject of a run and the permission for it have no default.
    """
    each_time = (Role.STORE, Role.SUBJECT, Role.GRANT)
    return closed(**{one.name: _parameter(one) for one in BY_NAME.values() if one.role not in each_time})


def _parameter(parameter: Parameter) -> Schema:
    value = _parameter_value(parameter)
    return closed(default=value, enum={"type": "array", "minItems": 1, "uniqueItems": True, "items": value})


def _parameter_value(parameter: Parameter) -> Schema:
    """A single value. It is always a string, because Argo's parameters are strings."""
    match parameter.type:
        case Type.CHOICE if not parameter.file_suffixes:
            return {"enum": list(parameter.choices)}
        case Type.CHOICE:
            choices = [re.escape(choice).replace("\\-", "-") for choice in parameter.choices]
            files = [rf"[^\n{{}}]+{re.escape(suffix)}" for suffix in parameter.file_suffixes]
            pattern = "|".join((*choices, *files))
        case Type.INTEGER:
            pattern = "[+-]?[0-9]{1,18}"
        case Type.NUMBER:
            pattern = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
        case Type.NODE_POOL:
            pattern = POOL_NAME.pattern
        case _:
            pattern = r"[^{]*"
    return worded(pattern) if parameter.required else maybe(pattern)


def _argo() -> Schema:
    return closed(
        required=BOOLEAN,
        instanceID=maybe(LABEL_VALUE),
        patchExecutor=BOOLEAN,
        executor=closed(resources=resources()),
        artifactRepository=closed(existingConfigMap=maybe(DNS_NAME), key=worded(KEY), logPrefix=plain(worded(PREFIX))),
    )


def _workflow() -> Schema:
    return closed(
        labels=labels(),
        annotations=TEXTS,
        ttl=closed(secondsAfterCompletion=COUNT, secondsAfterSuccess=COUNT, secondsAfterFailure=COUNT),
        podGC=closed(
            strategy={"enum": ["OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"]},
            deleteDelayDuration=worded(DURATION),
        ),
        archiveLogs=BOOLEAN,
        terminationGracePeriodSeconds=COUNT,
        parallelism=COUNT,
        priority={"type": "integer"},
        backoff=closed(duration=worded(DURATION), factor=POSITIVE, cap=worded(DURATION)),
    )


def _placement() -> dict[str, Schema]:
    """The placement values that `pods` and every role have."""
    return {
        "nodeSelector": TEXTS,
        "tolerations": OBJECTS,
        "affinity": OBJECT,
        "topologySpreadConstraints": OBJECTS,
        "priorityClassName": maybe(DNS_NAME),
        "runtimeClassName": maybe(DNS_NAME),
        "extraEnv": OBJECTS,
        "extraEnvFrom": OBJECTS,
        "extraVolumes": OBJECTS,
        "extraVolumeMounts": OBJECTS,
    }


def _pods() -> Schema:
    return closed(
        labels=labels(),
        annotations=TEXTS,
        podSecurityContext=OBJECT,
        containerSecurityContext=OBJECT,
        **_placement(),
    )


def _roles() -> Schema:
    own: Mapping[str, dict[str, Schema]] = {
        "check": {},
        "prepare": {"retryLimit": COUNT},
        "train": {"retryLimit": COUNT, "sharedMemory": worded(QUANTITY)},
        "report": {"retryLimit": COUNT},
        "tell": {"retryLimit": COUNT},
        "export": {"retryLimit": COUNT},
        "bridge": {},
        "models": {},
    }
    return closed(**{name: closed(resources=resources(), **_placement(), **more) for name, more in own.items()})


def _network_policy() -> Schema:
    networks = {**listed(CIDR), "minItems": 1}
    return closed(
        enabled=BOOLEAN,
        dns=closed(podSelector=OBJECT, namespaceSelector=OBJECT, ports=PORTS),
        store=closed(cidrs=networks, **{"except": listed(CIDR)}, ports=PORTS),
        kubernetesApi=closed(cidrs=networks, ports=PORTS),
        extraEgress=OBJECTS,
    )
