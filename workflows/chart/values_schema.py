"""The JSON schema of the chart's values. Parameters come from their definitions, the rest is written here.

Helm validates the values before it renders anything, and its errors name the value. The schema has no descriptions:
values.yaml describes every value.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from run_config.data_limits import CHANGES, DataLimits
from run_config.installation import LABEL_VALUE, LICENCE, MAX_IMAGE_SIDE, QUALIFIED_NAME
from run_config.locations import PUBLISHED_WEIGHTS
from run_config.parameters import BY_NAME, POOL_NAME, TEMPLATES, Parameter, Role, Type
from run_config.weights.catalogue import CATALOGUE

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
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
PORTS: Schema = {"type": "array", "minItems": 1, "items": PORT}

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


def written(text: Schema) -> Schema:
    """A prefix to write to, outside the folder of published weights (`run_config.locations.key_to_write`)."""
    return {**text, "not": {"pattern": f"{NOT_PLAIN}|^{PUBLISHED_WEIGHTS}(/|$)"}}


def maybe(pattern: str) -> Schema:
    """A text that matches the pattern or is empty."""
    return {"type": "string", "pattern": f"^({pattern})?$"}


def listed(pattern: str) -> Schema:
    """A list of texts that match the pattern."""
    return {"type": "array", "items": worded(pattern)}


def at_least(number: int) -> Schema:
    """A whole number with a minimum."""
    return {"type": "integer", "minimum": number}


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
        case Type.KEY:
            return written(worded(r"[^{]*"))
        case _:
            pattern = r"[^{]*"
    return worded(pattern) if parameter.required else maybe(pattern)


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

LOCATION = r"s3://" + BUCKET + r"(/[^/\s]+)*/?"
STORE = closed(
    bucket=maybe(BUCKET),
    prefix=plain(maybe(PREFIX)),
    endpoint=maybe(URL),
    region=maybe("[-a-z0-9]+"),
    addressingStyle={"enum": ["", "path", "virtual-hosted"]},
    readable={"type": "array", "items": plain(worded(LOCATION))},
    writable={"type": "array", "items": written(worded(PREFIX))},
    existingSecret=maybe(DNS_NAME),
    secretKeys=closed(accessKeyId=worded(KEY), secretAccessKey=worded(KEY), sessionToken=worded(KEY)),
    useSessionToken=BOOLEAN,
    useSDKCreds=BOOLEAN,
    trialCredentials=closed(accessKeyId=STRING, secretAccessKey=STRING, sessionToken=STRING),
    caBundle=closed(configMap=maybe(DNS_NAME), key=worded(KEY), argoSecret=maybe(DNS_NAME)),
)

TOLERATION = closed(
    key=maybe(QUALIFIED_NAME),
    operator={"enum": ["Exists", "Equal"]},
    value=worded(LABEL_VALUE),
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    tolerationSeconds=COUNT,
)
POOL = {
    **closed(
        name=worded(POOL_NAME.pattern),
        title={"type": "string", "pattern": "^[^\n{}]*$"},
        labelValue=worded(LABEL_VALUE),
        gpuResource=worded(QUALIFIED_NAME),
        gpuCount={"type": "integer", "minimum": 0, "maximum": 16},
        limit=COUNT,
        tolerations={"type": "array", "items": TOLERATION},
    ),
    "required": ["name", "labelValue"],
}
"""A node pool, as `run_config.installation.NodePool` reads it."""

# The store has its default in `store`. The subject of a run and the permission for it have no default.
EACH_TIME = (Role.STORE, Role.SUBJECT, Role.GRANT)
PARAMETERS = closed(**{one.name: _parameter(one) for one in BY_NAME.values() if one.role not in EACH_TIME})
"""Defaults and choices by parameter. The chart itself checks the bounds of numbers."""

ARGO = closed(
    required=BOOLEAN,
    instanceID=maybe(LABEL_VALUE),
    patchExecutor=BOOLEAN,
    executor=closed(resources=RESOURCES),
    artifactRepository=closed(existingConfigMap=maybe(DNS_NAME), key=worded(KEY), logPrefix=written(worded(PREFIX))),
)

WORKFLOW = closed(
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

PODS = closed(
    labels=LABELS,
    annotations=TEXTS,
    podSecurityContext=OBJECT,
    containerSecurityContext=OBJECT,
    **PLACEMENT,
)

OF_ROLES: Mapping[str, dict[str, Schema]] = {
    "check": {},
    "prepare": {"retryLimit": COUNT},
    "train": {"retryLimit": COUNT, "sharedMemory": worded(QUANTITY)},
    "report": {"retryLimit": COUNT},
    "tell": {"retryLimit": COUNT},
    "weights": {"retryLimit": COUNT},
    "export": {"retryLimit": COUNT},
    "bridge": {},
    "models": {},
}
ROLES = closed(**{name: closed(resources=RESOURCES, **PLACEMENT, **more) for name, more in OF_ROLES.items()})

NETWORKS = {**listed(CIDR), "minItems": 1}
NETWORK_POLICY = closed(
    enabled=BOOLEAN,
    dns=closed(podSelector=OBJECT, namespaceSelector=OBJECT, ports=PORTS),
    store=closed(cidrs=NETWORKS, **{"except": listed(CIDR)}, ports=PORTS),
    kubernetesApi=closed(cidrs=NETWORKS, ports=PORTS),
    weights=closed(to={**OBJECTS, "minItems": 1}, ports=PORTS),
    extraEgress=OBJECTS,
)

TRIGGER = {
    **closed(
        event={"enum": ["task-completed", "export-finished"]},
        template=worded(POOL_NAME.pattern),
        projects={"type": "array", "items": POSITIVE, "uniqueItems": True},
        parameters=TEXTS,
    ),
    "required": ["event"],
}
"""A run that an event starts, as `cvat_client.settings.Trigger` reads it."""

MODELS = closed(
    enabled=BOOLEAN,
    replicas=POSITIVE,
    device={"enum": ["cpu", "cuda"]},
    pool=maybe(POOL_NAME.pattern),
    threshold={"type": ["number", "null"], "minimum": 0, "maximum": 1},
    most=POSITIVE,
    keepRepeated=BOOLEAN,
    loaded=POSITIVE,
    nuclio=maybe(ADDRESS),
    storeSecret=maybe(DNS_NAME),
    allowFrom=closed(namespaceSelector=OBJECT, podSelector=OBJECT),
    alsoFrom=OBJECTS,
)

BRIDGE = closed(
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
    exports=closed(prefix=written(worded(PREFIX)), saveForS=at_least(60), longestS=at_least(60)),
    limits=closed(
        runsPerUser=POSITIVE,
        runsOfEvents=POSITIVE,
        requestBytes=at_least(1024),
        submissionsPerMinute=POSITIVE,
    ),
    grants=closed(lifetimeS=at_least(60), acceptExpired=BOOLEAN),
    controls=closed(stop=BOOLEAN, rerun=BOOLEAN, nodes=BOOLEAN),
    triggers={"type": "array", "items": TRIGGER},
    models=MODELS,
    ingress=closed(
        enabled=BOOLEAN,
        className=maybe(DNS_NAME),
        annotations=TEXTS,
        host=maybe(HOST),
        tlsSecret=maybe(DNS_NAME),
    ),
    nginx=closed(
        enabled=BOOLEAN,
        port=PORT,
        namespace=maybe("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
        resolver=maybe(r"[-a-zA-Z0-9.:\[\]]+"),
        clusterDomain=worded(HOST),
        upstream=maybe(ORIGIN),
    ),
    serviceAccount=SERVICE_ACCOUNT,
    networkPolicy=closed(allowFrom=OBJECTS, cvat=closed(to={**OBJECTS, "minItems": 1}, ports=PORTS)),
    serviceMonitor=closed(enabled=BOOLEAN, labels=LABELS, interval=worded(DURATION)),
)
"""The schema of `cvatBridge`."""


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
            store=STORE,
            maxImagePixels={"type": "integer", "minimum": 1, "maximum": MAX_IMAGE_SIDE**2},
            dataLimits=closed(
                **{
                    to_camel(name): {"type": "number", "minimum": 0, "maximum": 1}
                    for name in DataLimits.model_fields
                    if name != "refuse"
                },
                refuse=listed("|".join(CHANGES)),
            ),
            weights=closed(
                pull={"type": "array", "uniqueItems": True, "items": {"enum": [one.name for one in CATALOGUE]}},
                endpoint=maybe(ADDRESS),
                mirror=maybe(f"{ADDRESS}|{LOCATION}"),
                storeSecret=maybe(DNS_NAME),
                allowedLicences=listed(LICENCE),
            ),
            nodePoolLabel=worded(QUALIFIED_NAME),
            nodePools={"type": "array", "items": POOL},
            parameters=PARAMETERS,
            argo=ARGO,
            workflow=WORKFLOW,
            pods=PODS,
            roles=ROLES,
            cvatBridge=BRIDGE,
            webhook=closed(existingSecret=maybe(DNS_NAME), key=worded(KEY), trialUrl=maybe(r"https?://\S+")),
            serviceAccounts=closed(workflow=SERVICE_ACCOUNT, client=SERVICE_ACCOUNT, weights=SERVICE_ACCOUNT),
            rbac=closed(create=BOOLEAN, clientSubjects=OBJECTS),
            networkPolicy=NETWORK_POLICY,
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
