"""Read Argo's artifact repository: the entry of a ConfigMap that templates reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class ArtifactRepository:
    """The part of an artifact repository that matters here."""

    bucket: str
    """Empty: no bucket is named."""
    archive_logs: bool
    """If true, Argo stores the log of every step, whatever the step's template says."""
    secrets: Mapping[str, frozenset[str]]
    """Secret → keys that Argo mounts into each pod that stores a log or an artifact. These keys are never optional."""


def repository_reference(tree: Mapping[str, Any]) -> tuple[str, str]:
    """The ConfigMap and the key that a WorkflowTemplate references. No ConfigMap: the controller's own repository."""
    reference = (tree.get("spec") or {}).get("artifactRepositoryRef") or {}
    return reference.get("configMap") or "", reference.get("key") or "artifacts"


def read_repository(text: str) -> ArtifactRepository:
    """Parse the entry. An invalid entry has no bucket."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        tree = None
    tree = tree if isinstance(tree, dict) else {}
    s3 = tree.get("s3")
    s3 = s3 if isinstance(s3, dict) else {}
    secrets: dict[str, frozenset[str]] = {}
    for name, key in _secrets(s3):
        secrets[name] = secrets.get(name, frozenset()) | {key}
    return ArtifactRepository(str(s3.get("bucket") or ""), tree.get("archiveLogs") is True, secrets)


def _secrets(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield accessKeySecret, secretKeySecret, sessionTokenSecret, caSecret and the secret in encryptionOptions."""
    for field, value in part.items():
        if not isinstance(value, dict):
            continue
        if not field.endswith("Secret"):
            yield from _secrets(value)
        elif value.get("name") and value.get("key"):
            yield str(value["name"]), str(value["key"])
