"""The JSON schema of the chart's values. Parameters come from their definitions, the rest is written here.

Helm validates the values before it renders anything, and its errors name the value. The schema has no descriptions:
values.yaml describes every value.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from run_config.installation import LABEL_VALUE, MAX_IMAGE_SIDE, QUALIFIED_NAME
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
NOT_PLAIN = r"(^|/)(\.|%2[eE]){1,2}(/|$)"
"""A path part that is `.` or `..`, also percent-encoded."""

BUCKET = r"[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]"
REGISTRY = r"[a-zA-Z0-9][-a-zA-Z0-9.]*(:[0-9]+)?(/[-a-z0-9._]+)*/?"
REPOSITORY = r"[a-z0-9]+([-._]+[a-z0-9]+)*(/[a-z0-9]+([-._]+[a-z0-9]+)*)*"
DURATION = r"[0-9]+(s|m|h)"
QUANTITY = r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?"
CIDR = r"[0-9a-fA-F.:]+/[0-9]{1,3}"
URL = r"https?://[^/\s]+/?"
PORTS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 1, "maximum": 65535},
}

ORIGIN = r"https?://[^\s/?#@{};]+"
ADDRESS = rf"{ORIGIN}(/[^\s?#{{}};]*)?"
HOST = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"


def closed(**properties: Schema) -> Schema:
    """A mapping with known keys only: any other key is a typing error."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def worded(pattern: str) -> Schema:
    """A text that matches the pattern."""
    return {"type": "string", "pattern": f"^({pattern})$"}


def plain(text: Schema) -> Schema:
    """A text with a path without `.` and `..`: the same rule as `run_config.locations.leads_elsewhere`."""
    return {**text, "not": {"pattern": NOT_PLAIN}}


def maybe(pattern: str) -> Schema:
    """A text that matches the pattern or is empty."""
    return {"type": "string", "pattern": f"^({pattern})?$"}


def listed(pattern: str) -> Schema:
    """A list of texts that match the pattern."""
    return {"type": "array", "items": worded(pattern)}


LABELS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": f"^({QUALIFIED_NAME})$"},
    "additionalProperties": worded(LABEL_VALUE),
}
AMOUNTS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number"]}}
RESOURCES = closed(requests=AMOUNTS, limits=AMOUNTS)
SERVICE_ACCOUNT = closed(create=BOOLEAN, name=maybe(DNS_NAME), annotations=TEXTS, labels=LABELS)
IMAGE = closed(
    repository=worded(REPOSITORY),
    tag=maybe(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,127}"),
    digest=maybe("sha256:[0-9a-f]{64}"),
)
PLACEMENT: Schema = {
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
"""The placement values that `pods` and every role have."""


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
            commonLabels=LABELS,
            commonAnnotations=TEXTS,
            # Parent charts may add any key here.
            **{
                "global": {
                    **closed(imageRegistry=maybe(REGISTRY), imagePullSecrets=listed(DNS_NAME)),
                    "additionalProperties": True,
                }
            },
            images=closed(
                registry=maybe(REGISTRY),
                pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
                pullSecrets=listed(DNS_NAME),
                cpuSteps=IMAGE,
                detrJob=IMAGE,
                cvatBridge=IMAGE,
            ),
            store=_store(),
            maxImagePixels={"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_SIDE**2},
            nodePoolLabel=worded(QUALIFIED_NAME),
            nodePools={"type": "array", "items": _pool()},
            parameters=_parameters(),
            argo=_argo(),
            workflow=_workflow(),
            pods=_pods(),
            roles=_roles(),
            cvatBridge=_bridge(),
            webhook=closed(existingSecret=maybe(DNS_NAME), key=worded(KEY), trialUrl=maybe(r"https?://\S+")),
            serviceAccounts=closed(workflow=SERVICE_ACCOUNT, client=SERVICE_ACCOUNT),
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
                resources=RESOURCES,
            ),
            extraObjects={"type": "array", "items": {"type": ["object", "string"]}},
        ),
    }


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
        executor=closed(resources=RESOURCES),
        artifactRepository=closed(existingConfigMap=maybe(DNS_NAME), key=worded(KEY), logPrefix=plain(worded(PREFIX))),
    )


def _workflow() -> Schema:
    return closed(
        labels=LABELS,
        annotations=TEXTS,
        ttl=closed(secondsAfterCompletion=COUNT, secondsAfterSuccess=COUNT, secondsAfterFailure=COUNT),
        podGC=closed(
            strategy={"enum": ["OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess"]},
            deleteDelayDuration=worded(DURATION),
        ),
        archiveLogs=BOOLEAN,
        failureMessage=BOOLEAN,
        terminationGracePeriodSeconds=COUNT,
        parallelism=COUNT,
        priority={"type": "integer"},
        backoff=closed(duration=worded(DURATION), factor=POSITIVE, cap=worded(DURATION)),
    )


def _pods() -> Schema:
    return closed(
        labels=LABELS,
        annotations=TEXTS,
        podSecurityContext=OBJECT,
        containerSecurityContext=OBJECT,
        **PLACEMENT,
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
    return closed(**{name: closed(resources=RESOURCES, **PLACEMENT, **more) for name, more in own.items()})


def _network_policy() -> Schema:
    networks = {**listed(CIDR), "minItems": 1}
    return closed(
        enabled=BOOLEAN,
        dns=closed(podSelector=OBJECT, namespaceSelector=OBJECT, ports=PORTS),
        store=closed(cidrs=networks, **{"except": listed(CIDR)}, ports=PORTS),
        kubernetesApi=closed(cidrs=networks, ports=PORTS),
        extraEgress=OBJECTS,
    )


def _bridge() -> Schema:
    """The schema of `cvatBridge`."""
    return closed(
        enabled=BOOLEAN,
        replicas=POSITIVE,
        cvat=closed(
            url=maybe(ADDRESS),
            publicOrigin=maybe(ORIGIN),
            organization=maybe("[-_.a-zA-Z0-9]+"),
            cloudStorageId=COUNT,
            doneJobs={"enum": ["completed", "accepted"]},
            ca=closed(configMap=maybe(DNS_NAME), key=worded(KEY)),
        ),
        existingSecret=maybe(DNS_NAME),
        secretKeys=closed(accessToken=worded(KEY), signingKey=worded(KEY), webhookSecret=worded(KEY)),
        trialSecret=closed(accessToken=STRING, signingKey=STRING, webhookSecret=STRING),
        links=closed(argo=maybe(ADDRESS)),
        exports=closed(prefix=plain(worded(PREFIX)), saveForS=_at_least(60), longestS=_at_least(60)),
        limits=closed(
            runsPerUser=POSITIVE,
            runsOfEvents=POSITIVE,
            requestBytes=_at_least(1024),
            submissionsPerMinute=POSITIVE,
        ),
        grants=closed(lifetimeS=_at_least(60), acceptExpired=BOOLEAN),
        controls=closed(stop=BOOLEAN, rerun=BOOLEAN, nodes=BOOLEAN),
        triggers={"type": "array", "items": _trigger()},
        models=_models(),
        ingress=closed(
            enabled=BOOLEAN,
            className=maybe(DNS_NAME),
            annotations=TEXTS,
            host=maybe(HOST),
            tlsSecret=maybe(DNS_NAME),
        ),
        nginx=closed(
            enabled=BOOLEAN,
            port={"type": "integer", "minimum": 1, "maximum": 65535},
            namespace=maybe("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
            resolver=maybe(r"[-a-zA-Z0-9.:\[\]]+"),
            clusterDomain=worded(HOST),
            upstream=maybe(ORIGIN),
        ),
        serviceAccount=SERVICE_ACCOUNT,
        networkPolicy=closed(allowFrom=OBJECTS, cvat=closed(to={**OBJECTS, "minItems": 1}, ports=PORTS)),
        serviceMonitor=closed(enabled=BOOLEAN, labels=LABELS, interval=worded(DURATION)),
    )


def _at_least(number: int) -> Schema:
    return {"type": "integer", "minimum": number}


def _trigger() -> Schema:
    """A run that an event starts, as `cvat_client.settings.Trigger` reads it."""
    return {
        **closed(
            event={"enum": ["task-completed", "export-finished"]},
            template=worded(POOL_NAME.pattern),
            projects={"type": "array", "items": POSITIVE, "uniqueItems": True},
            parameters=TEXTS,
        ),
        "required": ["event"],
    }


def _models() -> Schema:
    return closed(
        enabled=BOOLEAN,
        replicas=POSITIVE,
        device={"enum": ["cpu", "cuda"]},
        pool=maybe(POOL_NAME.pattern),
        threshold={"type": ["number", "null"], "minimum": 0, "maximum": 1},
        most=POSITIVE,
        loaded=POSITIVE,
        nuclio=maybe(ADDRESS),
        storeSecret=maybe(DNS_NAME),
        allowFrom=closed(namespaceSelector=OBJECT, podSelector=OBJECT),
        alsoFrom=OBJECTS,
    )
