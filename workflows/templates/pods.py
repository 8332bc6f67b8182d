"""What every pod of ours has: the least rights, a place to write, and the store's address and keys.

The names are those of the chart's objects under its default name; the chart puts its own in their place.
"""

import json

from hera.workflows import ConfigMapEnv, Env, SecretEnv
from hera.workflows import models as m

from run_config import installation

NAME = "detr-workflows"
"""The ConfigMap, the service account and the prefix of the secrets."""

STORE_SECRET = f"{NAME}-store"
WEBHOOK_SECRET = f"{NAME}-webhook"
CVAT_SECRET = f"{NAME}-cvat"
BRIDGE = f"{NAME}-bridge"
"""The bridge's ConfigMap."""

SETTINGS_FOLDER = "/etc/detr-workflows"
BRIDGE_FOLDER = "/etc/cvat-bridge"
OUT = "/mnt/out"
USER = 10001

LABELS = {"app.kubernetes.io/part-of": NAME}
CALLS_CVAT = {"detr-workflows/calls-cvat": "true"}
"""On the pods that may reach CVAT, for network policies."""

# Optional throughout: a pod whose secret is missing would wait for ever without a word, while `check`
# says in one sentence what is missing.
_SETTINGS = m.Volume(
    name="settings",
    config_map=m.ConfigMapVolumeSource(
        name=NAME, optional=True, items=[m.KeyToPath(key="settings.yaml", path="settings.yaml")]
    ),
)

_BRIDGE = m.Volume(
    name="bridge",
    config_map=m.ConfigMapVolumeSource(
        name=BRIDGE, optional=True, items=[m.KeyToPath(key="bridge.yaml", path="bridge.yaml")]
    ),
)

SECURITY = m.SecurityContext(
    allow_privilege_escalation=False,
    read_only_root_filesystem=True,
    capabilities=m.Capabilities(drop=["ALL"]),
)

POD_SECURITY = m.PodSecurityContext(
    run_as_non_root=True,
    run_as_user=USER,
    run_as_group=USER,
    fs_group=USER,
    seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
)


def settings_volume() -> m.Volume:
    """The installation's settings, read by every step."""
    return _SETTINGS


def settings_mount() -> m.VolumeMount:
    """Where they lie."""
    return m.VolumeMount(name="settings", mount_path=SETTINGS_FOLDER, read_only=True)


def bridge_volume() -> m.Volume:
    """The bridge's settings, read by the steps that talk to CVAT."""
    return _BRIDGE


def bridge_mount() -> m.VolumeMount:
    """Where they lie."""
    return m.VolumeMount(name="bridge", mount_path=BRIDGE_FOLDER, read_only=True)


def environment() -> list[Env | SecretEnv | ConfigMapEnv]:
    """Variables of every step. Secrets come by reference alone."""
    return [
        Env(name=installation.VARIABLE, value=f"{SETTINGS_FOLDER}/settings.yaml"),
        _from_secret("AWS_ACCESS_KEY_ID", STORE_SECRET, "access-key-id"),
        _from_secret("AWS_SECRET_ACCESS_KEY", STORE_SECRET, "secret-access-key"),
        _from_secret("AWS_SESSION_TOKEN", STORE_SECRET, "session-token"),
        ConfigMapEnv(name="AWS_ENDPOINT_URL", config_map_name=NAME, config_map_key="s3-endpoint", optional=True),
        # Beside the settings and not in them: steps of an earlier release read those too, and refuse unknown keys.
        ConfigMapEnv(
            name=installation.EXPORTS_VARIABLE, config_map_name=NAME, config_map_key="exports-prefix", optional=True
        ),
        ConfigMapEnv(name="AWS_REGION", config_map_name=NAME, config_map_key="s3-region", optional=True),
    ]


def _from_secret(variable: str, secret: str, key: str) -> SecretEnv:
    return SecretEnv(name=variable, secret_name=secret, secret_key=key, optional=True)


def webhook_url() -> SecretEnv:
    """Where the end of a run is told, for the exit handler alone. An address of that kind is a secret itself."""
    return _from_secret("WEBHOOK_URL", WEBHOOK_SECRET, "url")


def cvat_environment() -> list[Env | SecretEnv | ConfigMapEnv]:
    """Variables of the steps that talk to CVAT, and of no other: the token, and the key of permissions."""
    return [
        Env(name="CVAT_BRIDGE_SETTINGS", value=f"{BRIDGE_FOLDER}/bridge.yaml"),
        _from_secret("CVAT_ACCESS_TOKEN", CVAT_SECRET, "access-token"),
        _from_secret("CVAT_BRIDGE_SIGNING_KEY", CVAT_SECRET, "signing-key"),
    ]


# From 4.1 on Argo uploads a file above 16 MiB with 4 threads, each with a buffer of 528 MiB.
_UPLOADS_IN_ONE_THREAD = [{"name": "ARTIFACT_S3_UPLOAD_THREADS", "value": "1"}]


def patch_of_every_pod() -> str:
    """What Argo's own containers, `init` and `wait`, need and a workflow cannot say in another place.

    The security that Pod Security `restricted` asks for, and the only token in the pod: of the workflow's
    service account, short-lived, seen by Argo's executor and not by `main`.
    """
    container = {
        "securityContext": SECURITY.model_dump(by_alias=True, exclude_none=True),
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "volumeMounts": [
            {"name": "executor-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
        ],
    }
    token = {
        "name": "executor-token",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
            ]
        },
    }
    patch = {
        # The workflow's own field of that name wants a second service account with a token that never expires.
        "automountServiceAccountToken": False,
        "initContainers": [{"name": "init", **container}],
        "containers": [{"name": "wait", **container, "env": _UPLOADS_IN_ONE_THREAD}],
        "volumes": [token],
    }
    return json.dumps(patch, indent=2)
