"""The service, built from settings, secrets and a cluster."""

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


class Service:
    """The objects that routes use. `token`: of CVAT's service account, which runs use for exports."""

    def __init__(
        self,
        settings: BridgeSettings,
        installation: Installation,
        kubernetes: Kubernetes,
        secrets: Secrets,
        *,
        access_for_s: float = KEEP_S,
    ) -> None:
        """`access_for_s`: how long users and permissions are cached."""
        self.settings = settings
        self.metrics = metrics = ServiceMetrics()
        self.token = Token(secrets.access_token, settings.cvat.organization) if secrets.access_token else None
        self.cvat = CvatQuestions(settings.cvat, lambda ended: metrics.cvat.labels(ended).inc())
        self.access = Access(self.cvat, keep_s=access_for_s)
        self.cluster = Cluster(kubernetes, installation, settings.controls)
        self.files = RunFiles(installation)
        self.submitter = Submitter(
            settings, installation, secrets.signing_key, self.cvat, self.access, self.cluster, metrics
        )
        self.views = RunViews(settings, self.access, self.cluster, self.files, self.submitter)
        self.webhooks = Webhooks(
            settings, secrets.webhook_secret, self.token, self.cvat, self.cluster, self.submitter, metrics
        )
