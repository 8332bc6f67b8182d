"""The server process: load the settings, run uvicorn, and shut down on SIGTERM."""

import uvicorn

from cvat_bridge.http.app import make_app
from cvat_bridge.http.connections import BoundedConnection
from cvat_bridge.logs import begin_logs
from cvat_bridge.service import Secrets, Service
from cvat_client.errors import BridgeError
from cvat_client.settings import load_settings
from run_config.installation import VARIABLE, load_installation
from workflows.cluster.kubeconfig import find_access
from workflows.cluster.kubernetes import Kubernetes

END_S = 20
"""Seconds that running requests may take after SIGTERM."""

IDLE_S = 120
"""Seconds that an idle connection stays open: longer than in proxies (nginx 60 s, Traefik 90 s) and than the pause
between two polls of a page. If the service closed first, a request that is just arriving would be lost."""


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM. BridgeError: a setting or a secret is missing or invalid."""
    settings = load_settings()
    installation = load_installation()
    if installation is None:
        raise BridgeError(f"{VARIABLE} is not set: it names the installation's settings, settings.yaml")
    secrets = Secrets.of()
    begin_logs()
    with Kubernetes(find_access(), None) as kubernetes:
        app = make_app(Service(settings, installation, kubernetes, secrets))
        uvicorn.run(
            app,
            host=host,
            port=port,
            http=BoundedConnection,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=True,
            timeout_graceful_shutdown=END_S,
            timeout_keep_alive=IDLE_S,
        )
