"""The JSON schema of the chart's values: parameters and node pools from their own definitions, the rest by hand.

Helm checks values against it before it renders anything, so what is refused is refused with the value's name.
Descriptions are left to values.yaml, where every value is described.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from run_config.installation import LABEL_VALUE, QUALIFIED_NAME
from run_config.parameters import BY_NAME, POOL_NAME, TEMPLATES, Parameter, Role, Type

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
TEXTS: Schema = {"type": "object", "additionalProperties": STRING}

DNS_NAME = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LABEL_NAME = "[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?"
KEY = r"[-._a-zA-Z0-9]{1,253}"
PREFIX = r"[^/\s{}]+(/[^/\s{}]+)*"
BUCKET = r"[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]"
REGISTRY = r"[a-zA-Z0-9][-a-zA-Z0-9.]*(:[0-9]+)?(/[-a-z0-9._]+)*/?"
REPOSITORY = r"[a-z0-9]+([-._]+[a-z0-9]+)*(/[a-z0-9]+([-._]+[a-z0-9]+)*)*"
DURATION = r"[0-9]+(s|m|h)"
QUANTITY = r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"
CIDR = r"[0-9a-fA-F.:]+/[0-9]{1,3}"
URL = r"https?://[^/\s]+/?"


def text() -> str:
    """The schema as it lies in the chart."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Schema:
    """The schema of all values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart detr-workflows",
        **_closed(
            fullnameOverride=_maybe(LABEL_NAME),
            nameOverride=_maybe(LABEL_NAME),
            namespaceOverride=_maybe("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
            commonLabels=_labels(),
            commonAnnotations=TEXTS,
            # Charts above this one put what they like here.
            **{"global": {**_closed(imageRegistry=_maybe(REGISTRY), imagePullSecrets=_names()), **_OPEN}},
            images=_closed(
                registry=_maybe(REGISTRY),
                pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
                pullSecrets=_names(),
                cpuSteps=_image(),
                detrJob=_image(),
            ),
            store=_store(),
            nodePoolLabel=_text(QUALIFIED_NAME),
            nodePools={"type": "array", "items": _pool()},
            parameters=_parameters(),
            argo=_argo(),
            workflow=_workflow(),
            pods=_pods(),
            roles=_roles(),
            webhook=_closed(existingSecret=_maybe(DNS_NAME), key=_text(KEY), trialUrl=_maybe(r"https?://\S+")),
            serviceAccounts=_closed(workflow=_service_account(), client=_service_account()),
            rbac=_closed(create=BOOLEAN, clientSubjects=OBJECTS),
            networkPolicy=_network_policy(),
            test=_closed(
                enabled=BOOLEAN,
                pool=_maybe(POOL_NAME.pattern),
                device={"enum": list(BY_NAME["device"].choices)},
                images={"type": "integer", "minimum": 10, "maximum": 1000},
                timeoutSeconds=POSITIVE,
                parameters=_closed(
                    **{one.name: STRING for one in TEMPLATES["detr-train"] if one.role is not Role.STORE}
                ),
                resources=_resources(),
            ),
            extraObjects={"type": "array", "items": {"type": ["object", "string"]}},
        ),
    }


_OPEN = {"additionalProperties": True}


def _closed(**properties: Schema) -> Schema:
    """A mapping whose keys are ours: another one is a mistake of typing."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$"}


def _maybe(pattern: str) -> Schema:
    """Text that may be left empty."""
    return {"type": "string", "pattern": f"^({pattern})?$"}


def _list(pattern: str) -> Schema:
    return {"type": "array", "items": _text(pattern)}


def _names() -> Schema:
    return _list(DNS_NAME)


def _labels() -> Schema:
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^({QUALIFIED_NAME})$"},
        "additionalProperties": _text(LABEL_VALUE),
    }


def _resources() -> Schema:
    amounts = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number"]}}
    return _closed(requests=amounts, limits=amounts)


def _image() -> Schema:
    return _closed(
        repository=_text(REPOSITORY),
        tag=_maybe(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}"),
        digest=_maybe("sha256:[0-9a-f]{64}"),
    )


def _store() -> Schema:
    location = r"s3://" + BUCKET + r"(/\S*)?"
    return _closed(
        bucket=_maybe(BUCKET),
        prefix=_maybe(PREFIX),
        endpoint=_maybe(URL),
        region=_maybe("[-a-z0-9]+"),
        addressingStyle={"enum": ["", "path", "virtual-hosted"]},
        readable=_list(location),
        writable=_list(PREFIX),
        existingSecret=_maybe(DNS_NAME),
        secretKeys=_closed(accessKeyId=_text(KEY), secretAccessKey=_text(KEY), sessionToken=_text(KEY)),
        useSessionToken=BOOLEAN,
        useSDKCreds=BOOLEAN,
        trialCredentials=_closed(accessKeyId=STRING, secretAccessKey=STRING, sessionToken=STRING),
        caBundle=_closed(configMap=_maybe(DNS_NAME), key=_text(KEY), argoSecret=_maybe(DNS_NAME)),
    )


def _pool() -> Schema:
    """A node pool, as `run_config.installation.NodePool` reads it."""
    toleration = _closed(
        key=_maybe(QUALIFIED_NAME),
        operator={"enum": ["Exists", "Equal"]},
        value=_text(LABEL_VALUE),
        effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        tolerationSeconds=COUNT,
    )
    return {
        **_closed(
            name=_text(POOL_NAME.pattern),
            title={"type": "string", "pattern": "^[^\n{}]*$"},
            labelValue=_text(LABEL_VALUE),
            gpuResource=_text(QUALIFIED_NAME),
            gpuCount={"type": "integer", "minimum": 0, "maximum": 16},
            limit=COUNT,
            tolerations={"type": "array", "items": toleration},
        ),
        "required": ["name", "labelValue"],
    }


def _parameters() -> Schema:
    """Defaults and choices by name. The store's are those of `store`, and bounds are looked at by the chart.

    What a run is about and who permitted it have no default.
    """
    each_time = (Role.STORE, Role.SUBJECT, Role.GRANT)
    return _closed(**{one.name: _parameter(one) for one in BY_NAME.values() if one.role not in each_time})


def _parameter(parameter: Parameter) -> Schema:
    value = _parameter_value(parameter)
    return _closed(default=value, enum={"type": "array", "minItems": 1, "uniqueItems": True, "items": value})


def _parameter_value(parameter: Parameter) -> Schema:
    """One value, always a string: Argo knows no other."""
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
    return _text(pattern) if parameter.required else _maybe(pattern)


def _argo() -> Schema:
    return _closed(
        required=BOOLEAN,
        instanceID=_maybe(LABEL_VALUE),
        patchExecutor=BOOLEAN,
        executor=_closed(resources=_resources()),
        artifactRepository=_closed(existingConfigMap=_maybe(DNS_NAME), key=_text(KEY), logPrefix=_text(PREFIX)),
    )


def _workflow() -> Schema:
    return _closed(
        labels=_labels(),
        annotations=TEXTS,
        ttl=_closed(secondsAfterCompletion=COUNT, secondsAfterSuccess=COUNT, secondsAfterFailure=COUNT),
        podGC=_closed(
            strategy={"enum": ["OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"]},
            deleteDelayDuration=_text(DURATION),
        ),
        archiveLogs=BOOLEAN,
        terminationGracePeriodSeconds=COUNT,
        parallelism=COUNT,
        priority={"type": "integer"},
        backoff=_closed(duration=_text(DURATION), factor=POSITIVE, cap=_text(DURATION)),
    )


def _placement() -> dict[str, Schema]:
    """What `pods` and every role take."""
    return {
        "nodeSelector": TEXTS,
        "tolerations": OBJECTS,
        "affinity": OBJECT,
        "topologySpreadConstraints": OBJECTS,
        "priorityClassName": _maybe(DNS_NAME),
        "runtimeClassName": _maybe(DNS_NAME),
        "extraEnv": OBJECTS,
        "extraEnvFrom": OBJECTS,
        "extraVolumes": OBJECTS,
        "extraVolumeMounts": OBJECTS,
    }


def _pods() -> Schema:
    return _closed(
        labels=_labels(),
        annotations=TEXTS,
        podSecurityContext=OBJECT,
        containerSecurityContext=OBJECT,
        **_placement(),
    )


def _roles() -> Schema:
    own: Mapping[str, dict[str, Schema]] = {
        "check": {},
        "prepare": {"retryLimit": COUNT},
        "train": {"retryLimit": COUNT, "sharedMemory": _text(QUANTITY)},
        "report": {"retryLimit": COUNT},
        "tell": {"retryLimit": COUNT},
    }
    return _closed(**{name: _closed(resources=_resources(), **_placement(), **more) for name, more in own.items()})


def _service_account() -> Schema:
    return _closed(create=BOOLEAN, name=_maybe(DNS_NAME), annotations=TEXTS, labels=_labels())


def _network_policy() -> Schema:
    ports: Schema = {
        "type": "array",
        "minItems": 1,
        "items": {"type": "integer", "minimum": 1, "maximum": 65535},
    }
    networks = {**_list(CIDR), "minItems": 1}
    return _closed(
        enabled=BOOLEAN,
        dns=_closed(podSelector=OBJECT, namespaceSelector=OBJECT, ports=ports),
        store=_closed(cidrs=networks, **{"except": _list(CIDR)}, ports=ports),
        kubernetesApi=_closed(cidrs=networks, ports=ports),
        extraEgress=OBJECTS,
    )
