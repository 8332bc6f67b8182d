"""What all our pods share: minimal rights, a writable folder, and the address and credentials of the store.

The names of objects are the chart's defaults. The chart replaces them.
"""

import json

from hera.workflows import ConfigMapEnv, Env, SecretEnv
from hera.workflows import models as m

from run_config import installation

NAME = "detr-workflows"
"""Name of the ConfigMap and the service account, and prefix of the secrets."""

TELL = f"{NAME}-tell"
"""Name of the exit handler's service account."""

STORE_SECRET = f"{NAME}-store"
WEBHOOK_SECRET = f"{NAME}-webhook"
CVAT_SECRET = f"{NAME}-cvat"
BRIDGE = f"{NAME}-bridge"
"""Name of the bridge's ConfigMap."""

SETTINGS_FOLDER = "/etc/detr-workflows"
BRIDGE_FOLDER = "/etc/cvat-bridge"
OUT = "/mnt/out"
USER = 10001

LABELS = {"app.kubernetes.io/part-of": NAME}
CALLS_CVAT = {"detr-workflows/calls-cvat": "true"}
"""Label of the pods that may reach CVAT, for network policies."""

# All references are optional. A pod with a missing Secret would wait forever without a message, while `check` reports
# in one sentence what is missing.
SETTINGS_VOLUME = m.Volume(
    name="settings",
    config_map=m.ConfigMapVolumeSource(
        name=NAME, optional=True, items=[m.KeyToPath(key="settings.yaml", path="settings.yaml")]
    ),
)

BRIDGE_VOLUME = m.Volume(
    name="bridge",
    config_map=m.ConfigMapVolumeSource(
        name=BRIDGE, optional=True, items=[m.KeyToPath(key="bridge.yaml", path="bridge.yaml")]
    ),
)
SETTINGS_MOUNT = m.VolumeMount(name="settings", mount_path=SETTINGS_FOLDER, read_only=True)
BRIDGE_MOUNT = m.VolumeMount(name="bridge", mount_path=BRIDGE_FOLDER, read_only=True)

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


def environment() -> list[Env | SecretEnv | ConfigMapEnv]:
    """The environment variables of every step. Secrets are only referenced."""
    return [
        Env(name=installation.VARIABLE, value=f"{SETTINGS_FOLDER}/settings.yaml"),
        _from_secret("AWS_ACCESS_KEY_ID", STORE_SECRET, "access-key-id"),
        _from_secret("AWS_SECRET_ACCESS_KEY", STORE_SECRET, "secret-access-key"),
        _from_secret("AWS_SESSION_TOKEN", STORE_SECRET, "session-token"),
        ConfigMapEnv(name="AWS_ENDPOINT_URL", config_map_name=NAME, config_map_key="s3-endpoint", optional=True),
        # Not part of the settings file: steps of an earlier release also read that file, and refuse unknown keys.
        ConfigMapEnv(
            name=installation.EXPORTS_VARIABLE, config_map_name=NAME, config_map_key="exports-prefix", optional=True
        ),
        ConfigMapEnv(name="AWS_REGION", config_map_name=NAME, config_map_key="s3-region", optional=True),
    ]


def _from_secret(variable: str, secret: str, key: str) -> SecretEnv:
    return SecretEnv(name=variable, secret_name=secret, secret_key=key, optional=True)


def webhook_url() -> SecretEnv:
    """The variable with the webhook's URL, only for the exit handler. The URL is itself a secret."""
    return _from_secret("WEBHOOK_URL", WEBHOOK_SECRET, "url")


def weights_environment() -> list[ConfigMapEnv]:
    """The variables of the step that downloads published weights: the mirrors that the installation names."""
    keys = {"HF_ENDPOINT": "weights-endpoint", "DETR_WORKFLOWS_WEIGHTS_FROM": "weights-mirror"}
    return [
        ConfigMapEnv(name=variable, config_map_name=NAME, config_map_key=key, optional=True)
        for variable, key in keys.items()
    ]


def cvat_environment() -> list[Env | SecretEnv | ConfigMapEnv]:
    """The environment variables of the steps that use CVAT: the token, and the key that signs permissions."""
    return [
        Env(name="CVAT_BRIDGE_SETTINGS", value=f"{BRIDGE_FOLDER}/bridge.yaml"),
        _from_secret("CVAT_ACCESS_TOKEN", CVAT_SECRET, "access-token"),
        _from_secret("CVAT_BRIDGE_SIGNING_KEY", CVAT_SECRET, "signing-key"),
    ]


# Since version 4.1, Argo uploads a file above 16 MiB with 4 threads, each with a buffer of 528 MiB.
_UPLOADS_IN_ONE_THREAD = [{"name": "ARTIFACT_S3_UPLOAD_THREADS", "value": "1"}]


_TOKEN_MOUNT = {
    "name": "executor-token",
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    "readOnly": True,
}


def patch_of_the_exit_handler() -> str:
    """The patch that also gives the container `main` the token, with which it changes the message of the workflow."""
    return json.dumps({"containers": [{"name": "main", "volumeMounts": [_TOKEN_MOUNT]}]}, indent=2)


def patch_of_every_pod() -> str:
    """The patch for Argo's own containers, `init` and `wait`, which a workflow cannot configure in another way.

    It sets the security context that Pod Security `restricted` requires. It also mounts the only token in the pod: a
    short-lived token of the workflow's service account, for Argo's executor and not for `main`.
    """
    container = {
        "securityContext": SECURITY.model_dump(by_alias=True, exclude_none=True),
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "volumeMounts": [_TOKEN_MOUNT],
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
        # The workflow's own field of this name would require a second service account with a permanent token.
        "automountServiceAccountToken": False,
        "initContainers": [{"name": "init", **container}],
        "containers": [{"name": "wait", **container, "env": _UPLOADS_IN_ONE_THREAD}],
        "volumes": [token],
    }
    return json.dumps(patch, indent=2)
