"""The commands that use a cluster. They import their libraries when called, so that `--help` and others start fast."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from run_config.exit_codes import PASSING_FAULT, WRONG_INPUT
from run_config.parameters import pairs
from workflows.cluster.errors import NoAccessError
from workflows.errors import StepError, WorkflowError

if TYPE_CHECKING:
    from run_config.installation import Installation
    from workflows.cluster.argo_server import ArgoServer
    from workflows.cluster.kubernetes import Kubernetes
    from workflows.cluster.submission import Submitted

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace of the installation. Default: that of the context.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.")]
WATCH_PAUSE_S = 5.0
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""The token of the pod's service account. Most containers of runs have none."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout, and everything else to stderr.")]


def submit(
    template: Annotated[str, typer.Argument(help="A workflow template of the namespace.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value; see `detr-workflows parameters`.")
    ] = None,
    namespace: Namespace = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: TEMPLATE-xxxxx.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label of the workflow: key=value.")] = None,
    annotation: Annotated[
        list[str] | None, typer.Option(help="Annotation of the workflow: key=value, any text.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run to its end, and exit with its exit code.")
    ] = False,
    timeout_s: Annotated[
        float | None,
        typer.Option(min=0, help="Stop watching after this many seconds; the run continues. Exit code 75."),
    ] = None,
    context: Context = None,
    server: Annotated[
        str | None, typer.Option(help="URL of Argo's server, to use instead of the Kubernetes API.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Token for Argo's server. Default: the variable ARGO_TOKEN.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificate authority of Argo's server.")] = None,
    insecure_skip_verify: Annotated[
        bool, typer.Option("--insecure-skip-verify", help="Trust any certificate of Argo's server.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run in a cluster."""
    from workflows.cluster.submission import arguments, create, run_folder, tags, workflow
    from workflows.cluster.templates import find_template

    given = pairs(parameter or [])
    labels, annotations = tags("--label", label or ()), tags("--annotation", annotation or ())
    if timeout_s is not None and not watch:
        raise WorkflowError("--timeout-s needs --watch")
    say = _to_stderr if as_json else typer.echo
    with _api(namespace, context, server, token_file, ca_file, verify=not insecure_skip_verify) as api:
        found = find_template(api, template)
        texts = arguments(found, given, _installation(api, found.config_map) if found.ours else None)
        body = workflow(found, texts, name, labels, annotations)
        submitted = create(api, body, run_folder(found, texts, body["metadata"]["name"]))
        _announce(submitted, say, watch=watch)
        if watch:
            _follow(api, submitted, say, timeout_s, as_json=as_json)
        elif as_json:
            typer.echo(json.dumps(_summary(submitted)))


def pools(namespace: Namespace = None, context: Context = None, as_json: AsJson = False) -> None:
    """List the node pools: nodes, free GPUs, runs."""
    from dataclasses import asdict

    with _kubernetes(namespace, context) as cluster:
        from workflows.cluster.pools import find_training_pods, pool_states, table
        from workflows.cluster.templates import find_config_map, find_installation

        config_map = find_config_map(cluster)
        installation = find_installation(cluster, config_map)
        states = pool_states(cluster, installation, cluster.settings(config_map), find_training_pods(cluster))
    if as_json:
        typer.echo(json.dumps({"namespace": cluster.namespace, "nodePools": [_camel(asdict(one)) for one in states]}))
    elif states:
        typer.echo("\n".join(table(states)))
    else:
        typer.echo(f"the installation in {cluster.namespace} has no node pools: training runs on any node with a GPU")


def runs(
    namespace: Namespace = None,
    context: Context = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only runs in this state: pending, running, succeeded, failed, stopped.")
    ] = None,
    who: Annotated[str, typer.Option(help="Only runs of people whose name contains this text.")] = "",
    model: Annotated[str, typer.Option(help="Only runs whose model contains this text.")] = "",
    data: Annotated[str, typer.Option(help="Only runs whose data contains this text, such as task:7.")] = "",
    most: Annotated[int, typer.Option("--limit", min=1, help="The number of runs, newest first.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", help="Print again after each change, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs: who, model, data, state, AP so far, GPU hours, reason of a failure.

    A dash is a value that cannot be read: the AP of an unfinished run needs credentials for the store.
    """
    from dataclasses import asdict

    with _kubernetes(namespace, context) as cluster:
        from workflows.cluster.errors import ForbiddenError, NotThereError, UnreachableError
        from workflows.cluster.preflight.store import has_credentials, store_variables
        from workflows.cluster.runs import LatestAp, RunRow, read_runs, table
        from workflows.cluster.templates import find_config_map

        def wanted(row: RunRow) -> bool:
            texts = ((who, row.who), (model, row.model), (data, row.data))
            return row.state in (state or [row.state]) and all(a.lower() in (b or "").lower() for a, b in texts)

        with contextlib.suppress(ForbiddenError, NotThereError):
            for variable, text in store_variables(cluster.settings(find_config_map(cluster))).items():
                os.environ.setdefault(variable, text)
        no_access = "" if has_credentials() else "this machine has no credentials for the store"
        shown = noted = ""
        while True:
            note, text = "", shown
            try:
                latest_ap = LatestAp(no_access)
                rows = read_runs(cluster, latest_ap, wanted, most)
                note = f"note: the AP of unfinished runs is unknown: {latest_ap.error}" if latest_ap.error else ""
                records = [_camel(asdict(row)) for row in rows]
                text = "\n".join(table(rows))
                if as_json:
                    text = json.dumps({"namespace": cluster.namespace, "runs": records}, ensure_ascii=False)
            except UnreachableError as error:
                if not watch:
                    raise
                note = f"lost the connection, retrying ({error})"
            if text != shown:
                if shown and not as_json and sys.stdout.isatty():
                    typer.echo("\x1b[H\x1b[2J", nl=False)  # clear the screen
                typer.echo(text)
            if note and note != noted:
                _to_stderr(note)
            shown, noted = text, note
            if not watch:
                return
            time.sleep(WATCH_PAUSE_S)


def preflight(namespace: Namespace = None, context: Context = None, as_json: AsJson = False) -> None:
    """Check whether a run can work in the namespace, and say what to fix. Exit code 2: it cannot."""
    from workflows.cluster.preflight.findings import Finding, Mark, fail, verdict

    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            typer.echo("\n".join(finding.lines()))

    where = namespace or ""
    try:
        cluster = _kubernetes(namespace, context)
    except NoAccessError as error:
        note(fail("API", str(error), "get a kubeconfig with which `kubectl get namespaces` works"))
    else:
        from workflows.cluster.preflight.preflight import preflight as look_at

        where = cluster.namespace
        with cluster:
            for finding in look_at(cluster):
                note(finding)
    works = not any(finding.mark is Mark.FAIL for finding in findings)
    if as_json:
        records = [finding.record() for finding in findings]
        typer.echo(json.dumps({"namespace": where, "works": works, "findings": records}, ensure_ascii=False))
    else:
        typer.echo(verdict(findings))
    if not works:
        raise typer.Exit(WRONG_INPUT)


def show_message(run: str, message: str) -> str:
    """Show a message in Argo's list of workflows, with the service account of this pod. Return how that ended."""
    try:
        with _kubernetes(None, None) as cluster:
            # When the workflow ends, Argo replaces its message by that of its first node, which has the run's name.
            cluster.patch(run, {"status": {"nodes": {run: {"message": message}}}})
    except WorkflowError as error:
        return f"Argo's list of workflows does not show this: {error}"
    return "Argo's list of workflows shows this"


def _camel(record: dict[str, Any]) -> dict[str, Any]:
    """Convert the keys to camel case, as everywhere in a cluster."""
    return {name.partition("_")[0] + name.partition("_")[2].title().replace("_", ""): record[name] for name in record}


def _announce(submitted: "Submitted", say: Callable[[str], None], *, watch: bool) -> None:
    where = f"{submitted.name} -n {submitted.namespace}"
    say(f"{submitted.name} submitted to the namespace {submitted.namespace}")
    if submitted.folder:
        say(f"  results: {submitted.folder}")
    if not watch:
        say(f"  watch:   argo watch {where}")
    say(f"  logs:    argo logs -f {where}")


def _follow(
    api: "Kubernetes | ArgoServer",
    submitted: "Submitted",
    say: Callable[[str], None],
    timeout_s: float | None,
    *,
    as_json: bool,
) -> None:
    """Watch the run, print its results and raise an error if it failed."""
    from datetime import datetime

    from workflows.cluster.watching import Watch, results

    def stamped(text: str) -> None:
        say(f"{datetime.now().astimezone():%H:%M:%S}  {text}")

    status = Watch(api, submitted.name, submitted.uid, stamped, timeout_s=timeout_s).to_the_end()
    failure = None if status.phase == "Succeeded" else status.failure()
    summary = {**_summary(submitted), "phase": status.phase, "results": dict(status.results)}
    if failure is None:
        for line in results(status.results):
            say(line)
        if submitted.folder:
            say(f"results: {submitted.folder}")
    else:
        summary["failure"] = {"step": failure.step, "message": failure.sentence, "exitCode": failure.exit_code}
    if as_json:
        typer.echo(json.dumps(summary))
    if failure is not None:
        where = f"{submitted.name} -n {submitted.namespace}"
        say(f"{failure.step or submitted.name} failed; for more see: argo logs {where}")
        if failure.exit_code == PASSING_FAULT:
            say(f"this is a temporary fault; `argo retry {where}` resumes the run")
        raise StepError(failure.sentence, failure.exit_code)


def _summary(submitted: "Submitted") -> dict[str, Any]:
    return {
        "name": submitted.name,
        "namespace": submitted.namespace,
        "uid": submitted.uid,
        "folder": submitted.folder,
    }


def _api(
    namespace: str | None,
    context: str | None,
    server: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    *,
    verify: bool,
) -> "Kubernetes | ArgoServer":
    """The API client that the options select."""
    if server is None:
        for option, value in (("--token-file", token_file), ("--ca-file", ca_file)):
            if value is not None:
                raise WorkflowError(f"{option} needs --server")
        if not verify:
            raise WorkflowError("--insecure-skip-verify needs --server")
        return _kubernetes(namespace, context)
    if context is not None:
        raise WorkflowError(
            "--context and --server cannot be combined: --context selects the Kubernetes API, --server Argo's server"
        )
    _require_client()
    from workflows.cluster.argo_server import ArgoServer

    namespace = namespace or os.environ.get("ARGO_NAMESPACE")
    if not namespace:
        raise WorkflowError("--server needs --namespace, the namespace of the installation")
    if server.startswith("http://"):
        _to_stderr("warning: --server is http://, so the token is sent unencrypted")
    return ArgoServer(server, namespace, token_file=token_file, ca_file=ca_file, verify=verify)


def _kubernetes(namespace: str | None, context: str | None) -> "Kubernetes":
    _require_client()
    from workflows.cluster.kubeconfig import find_access
    from workflows.cluster.kubernetes import Kubernetes

    return Kubernetes(find_access(context), namespace)


def _require_client() -> None:
    """Raise WorkflowError if the optional libraries for clusters are missing."""
    try:
        import httpx  # noqa: F401
        import kubernetes  # noqa: F401
    except ModuleNotFoundError as error:
        raise WorkflowError(
            f"{error.name} is not installed here: pip install '.[client]' in a checkout, or use the image cpu-steps"
        ) from error


def _installation(api: "Kubernetes | ArgoServer", config_map: str) -> "Installation | None":
    """The installation's settings. None, after a note on stderr: they are missing or may not be read."""
    from workflows.cluster.errors import ForbiddenError, NotThereError
    from workflows.cluster.templates import find_installation

    try:
        return find_installation(api, config_map)
    except (ForbiddenError, NotThereError) as error:
        _to_stderr(f"note: node pool and locations are only checked by the step check ({error})")
        return None


def _to_stderr(text: str) -> None:
    typer.echo(text, err=True)
