"""Assemble the service from settings, secrets and a cluster."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from cvat_bridge.access import KEEP_S, Access
from cvat_bridge.cluster import Cluster
from cvat_bridge.metrics import ServiceMetrics
from cvat_bridge.runs.run_files import RunFiles
from cvat_bridge.runs.run_views import RunViews
from cvat_bridge.runs.submit_run import Submitter
from cvat_bridge.webhooks.triggered_runs import Webhooks
from cvat_client.connection import Token
from cvat_client.grants import signing_key
from cvat_client.questions import CvatQuestions
from cvat_client.settings import BridgeSettings
from run_config.installation import Installation
from workflows.cluster.kubernetes import Kubernetes


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secrets from the environment. Never printed."""

    signing_key: bytes = field(repr=False)
    access_token: str = field(default="", repr=False)
    webhook_secret: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment. BridgeError: the signing key is missing or too short."""
        return cls(
            signing_key(environment.get("CVAT_BRIDGE_SIGNING_KEY")),
            environment.get("CVAT_ACCESS_TOKEN", "").strip(),
            environment.get("CVAT_WEBHOOK_SECRET", "").strip().encode(),
        )


@dataclass(frozen=True, slots=True)
class Service:
    """The objects that routes use."""

    settings: BridgeSettings
    installation: Installation
    metrics: ServiceMetrics
    cvat: CvatQuestions
    access: Access
    cluster: Cluster
    files: RunFiles
    submitter: Submitter
    views: RunViews
    webhooks: Webhooks
    token: Token | None
    """Token of CVAT's service account, which runs use for exports."""


def assemble(
    settings: BridgeSettings,
    installation: Installation,
    kubernetes: Kubernetes,
    secrets: Secrets,
    *,
    access_for_s: float = KEEP_S,
) -> Service:
    """Create the service. `access_for_s`: how long users and permissions are cached."""
    metrics = ServiceMetrics()
    cvat = CvatQuestions(settings.cvat, lambda ended: metrics.cvat.labels(ended).inc())
    access = Access(cvat, keep_s=access_for_s)
    cluster = Cluster(kubernetes, installation, settings.controls)
    files = RunFiles(installation)
    submitter = Submitter(settings, installation, secrets.signing_key, cvat, access, cluster, metrics)
    token = Token(secrets.access_token, settings.cvat.organization) if secrets.access_token else None
    return Service(
        settings=settings,
        installation=installation,
        metrics=metrics,
        cvat=cvat,
        access=access,
        cluster=cluster,
        files=files,
        submitter=submitter,
        views=RunViews(settings, access, cluster, files, submitter),
        webhooks=Webhooks(settings, secrets.webhook_secret, token, cvat, cluster, submitter, metrics),
        token=token,
    )
