"""A client for Argo's own API server, for people with a token for it but no access to the Kubernetes API."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from workflows.cluster.errors import ClusterError, ForbiddenError, NoAccessError
from workflows.cluster.kubernetes import refusal, unreachable

TIMEOUT_S = 15.0


class ArgoServer:
    """The workflows of one namespace, through Argo's server."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        verify: bool = True,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise NoAccessError(f"--server {url!r} must be a URL, such as https://argo.example.org")
        self._url = url.rstrip("/")
        self.namespace = namespace
        self._token_file = token_file
        self._environment = environment
        self._client = httpx.Client(verify=_trust(ca_file, verify), timeout=TIMEOUT_S, headers=self._login())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    @property
    def where(self) -> str:
        """The address of the server, for messages."""
        return self._url

    def template(self, name: str) -> dict[str, Any]:
        """The WorkflowTemplate `name`."""
        return self._ask("GET", f"workflow-templates/{self.namespace}/{quote(name)}", f"reading the template {name}")

    def template_names(self) -> list[str]:
        """The names of the templates in the namespace."""
        answer = self._ask("GET", f"workflow-templates/{self.namespace}", "listing the workflow templates")
        return [item["metadata"]["name"] for item in answer.get("items") or []]

    def workflow(self, name: str) -> dict[str, Any]:
        """The Workflow `name`."""
        return self._ask("GET", f"workflows/{self.namespace}/{quote(name)}", f"reading the workflow {name}")

    def create(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Workflow and return it as the server stored it."""
        body = {"namespace": self.namespace, "workflow": workflow}
        return self._ask("POST", f"workflows/{self.namespace}", "creating the workflow", body)

    def settings(self, config_map: str) -> Mapping[str, str]:
        """Raise ForbiddenError: Argo's server does not show ConfigMaps."""
        raise ForbiddenError(f"Argo's server does not show the ConfigMap {config_map}")

    def has_namespace(self) -> bool | None:
        """None: Argo's server does not tell whether the namespace exists."""
        return None

    def _ask(self, method: str, path: str, doing: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        url = f"{self.where}/api/v1/{path}"
        try:
            answer = self._client.request(method, url, json=body)
            if answer.status_code == httpx.codes.UNAUTHORIZED and self._token_file is not None:
                # A mounted token is replaced before it expires.
                self._client.headers.update(self._login())
                answer = self._client.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise unreachable(self.where, error) from error
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            text = content.get("message") if isinstance(content, dict) else None
            raise refusal(answer.status_code, str(text or answer.reason_phrase), doing, self.where)
        if not isinstance(content, dict):
            raise ClusterError(
                f"{doing}: {self.where} answered {answer.status_code} with something that is not Argo's API; "
                "--server must be its address with its base path, without a login page in front"
            )
        return content

    def _login(self) -> dict[str, str]:
        """The header with the token. Empty: there is no token."""
        token = self._environment.get("ARGO_TOKEN", "")
        if self._token_file is not None:
            try:
                token = self._token_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise NoAccessError(f"--token-file {self._token_file} cannot be read: {error}") from error
        token = token.strip().removeprefix("Bearer ").strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise NoAccessError("the token for Argo's server is not one line of text; copy it again")
        return {"Authorization": f"Bearer {token}"} if token else {}


def _trust(ca_file: Path | None, verify: bool) -> ssl.SSLContext | bool:
    if not verify:
        return False
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise NoAccessError(f"--ca-file {ca_file} cannot be used: {error}") from error
