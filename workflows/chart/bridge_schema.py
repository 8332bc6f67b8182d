"""The JSON schema of the chart's values for the bridge to CVAT."""

from run_config.parameters import POOL_NAME
from workflows.chart.schema_words import (
    BOOLEAN,
    COUNT,
    DNS_NAME,
    DURATION,
    KEY,
    OBJECT,
    OBJECTS,
    PORTS,
    POSITIVE,
    PREFIX,
    STRING,
    TEXTS,
    Schema,
    closed,
    labels,
    maybe,
    plain,
    service_account,
    worded,
)

ORIGIN = r"https?://[^\s/?#@{};]+"
ADDRESS = rf"{ORIGIN}(/[^\s?#{{}};]*)?"
HOST = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
EVENTS = ["task-completed", "export-finished"]
DONE_JOBS = ["completed", "accepted"]


def bridge() -> Schema:
    """The schema of `cvatBridge`."""
    return closed(
        enabled=BOOLEAN,
        replicas=POSITIVE,
        cvat=closed(
            url=maybe(ADDRESS),
            publicOrigin=maybe(ORIGIN),
            organization=maybe("[-_.a-zA-Z0-9]+"),
            cloudStorageId=COUNT,
            doneJobs={"enum": DONE_JOBS},
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
        serviceAccount=service_account(),
        networkPolicy=closed(allowFrom=OBJECTS, cvat=closed(to={**OBJECTS, "minItems": 1}, ports=PORTS)),
        serviceMonitor=closed(enabled=BOOLEAN, labels=labels(), interval=worded(DURATION)),
    )


def _at_least(number: int) -> Schema:
    return {"type": "integer", "minimum": number}


def _trigger() -> Schema:
    """A run that an event starts, as `cvat_client.settings.Trigger` reads it."""
    return {
        **closed(
            event={"enum": EVENTS},
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
        keepRepeated=BOOLEAN,
        most=POSITIVE,
        loaded=POSITIVE,
        nuclio=maybe(ADDRESS),
        storeSecret=maybe(DNS_NAME),
        allowFrom=closed(namespaceSelector=OBJECT, podSelector=OBJECT),
        alsoFrom=OBJECTS,
    )
