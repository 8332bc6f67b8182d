"""Argo's artifact repository: the entry of a ConfigMap that templates point to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class ArtifactRepository:
    """What counts of it here."""

    bucket: str
    """Empty where it names none."""
    archive_logs: bool
    """Argo then keeps the log of every step, whatever the step's template says."""
    secrets: Mapping[str, frozenset[str]]
    """Secret → keys that Argo mounts into each pod that keeps a log or an artifact. It knows none that is optional."""


def repository_reference(tree: Mapping[str, Any]) -> tuple[str, str]:
    """ConfigMap and key that a WorkflowTemplate points to; no ConfigMap: the controller's own repository."""
    reference = (tree.get("spec") or {}).get("artifactRepositoryRef") or {}
    return reference.get("configMap") or "", reference.get("key") or "artifacts"


def read_repository(text: str) -> ArtifactRepository:
    """The entry. What cannot be read has no bucket."""
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
    """accessKeySecret, secretKeySecret, sessionTokenSecret, caSecret, and one among the encryptionOptions."""
    for field, value in part.items():
        if not isinstance(value, dict):
            continue
        if not field.endswith("Secret"):
            yield from _secrets(value)
        elif value.get("name") and value.get("key"):
            yield str(value["name"]), str(value["key"])
