"""As much of a Kubernetes API as the command line uses, on a real socket.

Objects are kept by kind and name. Answers have the shape of the real ones; `tests/cluster` asks those.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
_REQUIREMENT = re.compile(r"(?P<key>[^\s=!]+)\s*(?P<op>!=|=|\bnotin\b|\bin\b)\s*(?:\((?P<set>.*)\)|(?P<value>.*))")
KINDS = {
    "workflowtemplates": "WorkflowTemplate",
    "workflows": "Workflow",
    "configmaps": "ConfigMap",
    "namespaces": "Namespace",
    "serviceaccounts": "ServiceAccount",
    "secrets": "Secret",
    "services": "Service",
    "nodes": "Node",
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "limitranges": "LimitRange",
    "rolebindings": "RoleBinding",
    "roles": "Role",
    "clusterrolebindings": "ClusterRoleBinding",
    "clusterroles": "ClusterRole",
}


def _nothing_happens(_kind: str, _name: str) -> None:
    pass


def _yes(_question: Json) -> bool:
    return True


class FakeKubernetes:
    """One namespace, called `ml`."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {kind: {} for kind in KINDS}
        self.refused: dict[tuple[str, str], tuple[int, str]] = {}
        """(verb, kind) → status and message."""
        self.lost: list[str] = []
        """Verbs whose next answer gets lost, after the work was done."""
        self.on_get: Callable[[str, str], None] = _nothing_happens
        """Called before an object is read: how time passes here."""
        self.allowed: Callable[[Json], bool] = _yes
        self.created: list[Json] = []
        self.asked: Counter[tuple[str, str]] = Counter()
        """(verb, kind) → how often."""
        self.tokens: list[str] = []
        self.url = ""
        self.add("namespaces", "ml")

    def add(self, kind: str, name: str, tree: Json | None = None) -> Json:
        tree = {**(tree or {})}
        tree["metadata"] = {
            "name": name,
            "namespace": "ml",
            "uid": f"uid-{kind}-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **(tree.get("metadata") or {}),
        }
        self.objects[kind][name] = tree
        return tree

    # -- the API

    def answer(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        kind, name = self._place([unquote(part) for part in urlsplit(path).path.strip("/").split("/")])
        if kind.endswith("accessreviews"):
            assert body is not None
            return 201, {**body, "status": {"allowed": self.allowed(body["spec"])}}
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch"}[method]
        self.asked[verb, kind] += 1
        if (verb, kind) in self.refused:
            code, message = self.refused[verb, kind]
            return code, _status(code, message)
        if verb == "list":
            return 200, self._list(kind, parse_qs(urlsplit(path).query))
        if verb == "create":
            assert body is not None
            return self._create(kind, body.get("workflow", body))
        assert name is not None
        self.on_get(kind, name)
        if name not in self.objects[kind]:
            return 404, _status(404, f'{kind} "{name}" not found')
        if verb == "patch":
            assert body is not None
            self.objects[kind][name] = _merged(self.objects[kind][name], body)
        return 200, self.objects[kind][name]

    def _list(self, kind: str, query: Mapping[str, list[str]]) -> Json:
        """All of a kind, or those that the query's selector chooses, or a page of them."""
        selector = query.get("labelSelector", [""])[0]
        chosen = [one for one in self.objects[kind].values() if _fits(one["metadata"].get("labels") or {}, selector)]
        start, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["0"])[0])
        end = start + limit if limit else len(chosen)
        more = {"continue": str(end)} if end < len(chosen) else {}
        return {
            "kind": f"{KINDS[kind]}List",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": "1", **more},
            "items": chosen[start:end],
        }

    @staticmethod
    def _place(parts: list[str]) -> tuple[str, str | None]:
        """What a path names; another namespace than `ml` has nothing in it."""
        if parts[2] in ("workflow-templates", "workflows"):  # Argo's server
            parts = [parts[2].replace("-", ""), *parts[4:]]
        else:
            parts = parts[2:] if parts[0] == "api" else parts[3:]
            if parts[0] == "namespaces" and len(parts) > 2:
                parts = [parts[2], *(parts[3:] if parts[1] == "ml" else [f"{parts[1]}/{part}" for part in parts[3:]])]
        return parts[0], parts[1] if len(parts) > 1 else None

    def _create(self, kind: str, body: Json) -> tuple[int, Json]:
        name = body["metadata"]["name"]
        if name in self.objects[kind]:
            return 409, _status(409, f'{kind} "{name}" already exists')
        added = self.add(kind, name, body)
        self.created.append(body)
        return 201, added

    @contextmanager
    def serving(self) -> Iterator["FakeKubernetes"]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._serve("GET")

            def do_POST(self) -> None:
                self._serve("POST")

            def do_PATCH(self) -> None:
                self._serve("PATCH")

            def _serve(self, method: str) -> None:
                fake.tokens.append(self.headers.get("Authorization", ""))
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                code, tree = fake.answer(method, self.path, body)
                if method in fake.lost:
                    fake.lost.remove(method)
                    self.close_connection = True
                    return
                content = json.dumps(tree).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def kubeconfig(self, path: Path, **user: Any) -> Path:
        """A kubeconfig whose current context is this API and the namespace `ml`."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                    "users": [{"name": "anna", "user": user or {"token": "secret"}}],
                    "contexts": [{"name": "lab", "context": {"cluster": "fake", "user": "anna", "namespace": "ml"}}],
                    "current-context": "lab",
                }
            )
        )
        return path


def _fits(labels: Mapping[str, str], selector: str) -> bool:
    """Whether labels are what a selector of `=`, `!=`, `in` and `notin` asks for; nothing else is understood."""
    for part in filter(None, re.split(r",(?![^(]*\))", selector)):
        match = _REQUIREMENT.fullmatch(part.strip())
        assert match is not None, f"the fake understands no {part!r}"
        values = {match["value"]} if match["set"] is None else {one.strip() for one in match["set"].split(",")}
        if (labels.get(match["key"]) in values) is not (match["op"] in ("=", "in")):
            return False
    return True


def _merged(tree: Json, change: Json) -> Json:
    """A JSON merge patch."""
    merged = {**tree, **{key: value for key, value in change.items() if not isinstance(value, dict)}}
    for key, value in change.items():
        if isinstance(value, dict):
            merged[key] = _merged(tree.get(key) or {}, value)
    return merged


def _status(code: int, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def parameters(**values: str | None) -> Json:
    """spec.arguments of a template; None: required."""
    entries = [
        {"name": name.replace("_", "-")} | ({} if text is None else {"value": text}) for name, text in values.items()
    ]
    return {"arguments": {"parameters": entries}}
