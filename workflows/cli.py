"""`detr-workflows`: render the Argo templates, run one on this machine, list the parameters."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from published_weights.cli import app as weights
from run_config.argo_text import leave_sentence
from run_config.command_line import called_as, run, top_options
from run_config.exit_codes import WRONG_INPUT
from run_config.locations import local_path, store_url
from run_config.parameter_forms import form_json, markdown
from run_config.parameters import BY_NAME, PARAMETERS, Role, Type, pairs
from run_config.weights.automatic import AUTO, NONE, PROGRAM, RUN, WEIGHTS, is_bare
from run_config.writable import require_writable
from workflows import generated_files
from workflows.cluster import cli as cluster
from workflows.errors import StepError, TemplateError, WorkflowError

RENDERED = Path(__file__).parent / "rendered"

app = typer.Typer(
    help="Templates for Argo Workflows: render them, submit runs, or run one on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: rich's boxes take 0.2 s to import, and rich removes text in brackets.
    rich_markup_mode=None,
)
app.callback()(top_options)


@app.command()
def render(
    output: Annotated[
        Path | None, typer.Option(help="Folder for the YAML files. [default: their folders in the source tree]")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is out of date.")] = False,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="settings.yaml of an installation. Writes all manifests for `kubectl apply` without Helm to --output."
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="With --settings: namespace of all objects; required.")] = "",
    registry: Annotated[str, typer.Option(help="With --settings: registry of the images.")] = "",
    image_tag: Annotated[str, typer.Option(help="With --settings: tag of the images. [default: this version]")] = "",
    s3_endpoint: Annotated[str, typer.Option(help="With --settings: URL of the S3 server. [default: AWS]")] = "",
    s3_region: Annotated[str, typer.Option(help="With --settings: region of the store.")] = "",
    bridge: Annotated[
        Path | None,
        typer.Option(help="With --settings: bridge.yaml. Also writes the templates that use CVAT."),
    ] = None,
) -> None:
    """Write the templates as YAML: the files of the source tree, or with --settings those of one installation."""
    from workflows.chart import plain_manifests

    if output is not None and not check:
        require_writable(output, "--output")
    if settings is not None:
        if output is None or not namespace or check:
            raise WorkflowError(
                "--settings needs --output, the folder for the files, and --namespace, the namespace of the objects; "
                "it cannot be combined with --check"
            )
        values = plain_manifests.values(
            plain_manifests.read_settings(settings),
            registry=registry,
            image_tag=image_tag,
            s3_endpoint=s3_endpoint,
            s3_region=s3_region,
        )
        bridge_text = ""
        if bridge is not None:
            bridge_text, values["cvatBridge"] = plain_manifests.read_bridge(bridge)
        rendered = plain_manifests.rendered(values, namespace, bridge_text)
        _write({output / name: text for name, text in rendered.items()})
        return
    if namespace or registry or image_tag or s3_endpoint or s3_region or bridge:
        raise WorkflowError(
            "--namespace, --registry, --image-tag, --s3-endpoint, --s3-region and --bridge need --settings"
        )
    # Hera takes a second to import, and only this command needs it.
    try:
        from workflows import rendering
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "hera":
            raise
        raise WorkflowError(
            "rendering the templates needs Hera, which is not installed: install detr-workflows[workflows], "
            "or give --settings, which uses the templates in the chart"
        ) from error

    act = _compare if check else _write
    act(rendering.in_tree() if output is None else rendering.in_folder(output))
    # These are made from the files of the chart, which are up to date by now.
    if output is None and plain_manifests.CHART.is_dir():
        if shutil.which("helm"):
            act(plain_manifests.in_repository())
        else:
            typer.echo("helm is not on the PATH: manifests/rendered was left out", err=True)


def _write(files: Mapping[Path, str]) -> None:
    for path in generated_files.write(files):
        typer.echo(path)


def _compare(files: Mapping[Path, str]) -> None:
    difference = generated_files.differences(files)
    if difference:
        typer.echo(difference, nl=False)
        folder = os.path.commonpath([path.parent for path in files])
        raise WorkflowError(f"the files in {folder} are out of date; run: detr-workflows render")


@app.command("run-local")
def run_local(
    template: Annotated[
        str, typer.Argument(help="Template: the path of a rendered .yaml file, or the name of one of the package.")
    ] = "detr-train",
    store: Annotated[
        str | None, typer.Option(help="Store for runs and data sets: file:///folder, a folder, or s3://bucket/prefix.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value; see `detr-workflows parameters`.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for temporary files; one run at a time can use a folder. [default: ~/.cache]"),
    ] = None,
) -> None:
    """Run a template's steps on this machine, one after the other. The same command resumes an interrupted run."""
    from workflows.local.announcements import summary
    from workflows.local.next_step import next_step
    from workflows.local.plan import read_plan
    from workflows.local.runner import run_local as run_plan

    given = pairs(parameter or [])
    if store is not None:
        given["store"] = store
    if "store" in given:
        given["store"] = store_url(given["store"])
    os.environ[PROGRAM] = called_as()
    plan = read_plan(_template_text(template), template)
    _refuse_two_meanings({**plan.parameters, **given})
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    unfinished = (scratch or cache / "detr-workflows").absolute()
    require_writable(unfinished, "--scratch")
    folder = local_path(given.get("store", ""))
    if folder is not None:
        require_writable(folder, "--store")
    try:
        finished = run_plan(plan, _absolute(given), unfinished, typer.echo)
    except StepError as error:
        if error.exit_code == WRONG_INPUT:
            # The step has already printed its own error message.
            raise typer.Exit(WRONG_INPUT) from error
        raise
    typer.echo("\n" + summary(finished.url, finished.seconds, finished.results, finished.files))
    if advice := next_step(finished.values, finished.results):
        typer.echo("\n" + advice)


@app.command()
def outcome(
    run_name: Annotated[str, typer.Option("--run", help="Name of the workflow.")],
    status: Annotated[
        str, typer.Option(help="Status of the workflow, from {{workflow.status}}: Succeeded, Failed or Error.")
    ],
    store: Annotated[str, typer.Option(help="Root of the store.")],
    output_prefix: Annotated[
        str, typer.Option(help="Prefix below the store that contains the run's folder. Empty: it has no folder.")
    ] = "",
    failures: Annotated[
        str,
        typer.Option(
            help="Failed steps: Argo's workflow.failures as JSON or in base64, as from "
            "{{=sprig.b64enc(workflow.failures)}}. Any other text counts as no failures."
        ),
    ] = "",
    template: Annotated[str, typer.Option(help="Name of the template, for the webhook.")] = "",
) -> None:
    """Describe in one sentence how a workflow ended, and report it to the webhook in WEBHOOK_URL.

    The exit handler runs this. It writes the sentence to $OUT/outputs/message, empty if the run succeeded. It never
    fails.
    """
    from workflows import outcome as ending

    message = ending.sentence(run_name, status, failures)
    if os.environ.get("OUT"):
        leave_sentence(Path(os.environ["OUT"]), "message", message)
    typer.echo(f"{run_name}: {status}" + (f": {message}" if message else ""))
    if message and cluster.TOKEN.is_file():
        typer.echo(cluster.show_message(run_name, message))
    if os.environ.get("WEBHOOK_URL"):
        place = store.rstrip("/") + (f"/{output_prefix.strip('/')}/{run_name}" if output_prefix else "")
        report = ending.report_json(run_name, template, status, message, place)
        typer.echo(ending.post(os.environ["WEBHOOK_URL"], report))


@app.command()
def parameters(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="The parameters as the page of the docs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The parameters as JSON, as used by forms.")] = False,
) -> None:
    """List the parameters of a run."""
    if as_json:
        typer.echo(form_json())
    elif as_markdown:
        typer.echo(markdown(), nl=False)
    else:
        for known in PARAMETERS:
            default = "required" if known.default is None else known.default or "empty"
            typer.echo(f"{known.name} [{default}]\n    {' '.join(known.help.split())}")


app.command()(cluster.submit)
app.command()(cluster.runs)
app.command()(cluster.pools)
app.command()(cluster.preflight)
app.add_typer(weights, name="weights")


def _refuse_two_meanings(values: Mapping[str, str | None]) -> None:
    """Raise WorkflowError if a word names both a local file and a run or weights in the store."""
    # Only local runs need the store's client, which takes time to import.
    from object_store import open_store
    from published_weights.start import ambiguous, meanings

    for known in BY_NAME.values():
        word, store = values.get(known.name) or "", values.get("store")
        if known.role is Role.FINETUNE_CHECKPOINT and store and is_bare(word) and Path(word).exists():
            others = meanings(word, open_store(store), values.get("cvat-output-path") or "", "")
            if others:
                raise WorkflowError(f"{known.name}: {ambiguous(word, [*others, f'./{word}'])}")


def _absolute(given: dict[str, str]) -> dict[str, str]:
    """Make local paths absolute: only on a command line does a relative path mean a file, not a key below the store."""
    values = dict(given)
    for name, text in given.items():
        known = BY_NAME.get(name)
        if known is None or known.role is Role.STORE:
            continue
        if known.type in (Type.LOCATION, Type.LOCATIONS) or text.endswith(known.file_suffixes or ("\0",)):
            values[name] = "\n".join(_absolute_path(line) for line in text.splitlines())
    return values


def _absolute_path(line: str) -> str:
    text = os.path.expanduser(line.strip())  # noqa: PTH111 - a Path would spoil s3://
    if text in (AUTO, NONE) or text.startswith((WEIGHTS, RUN)):
        return text
    if "://" not in text and (text.startswith(".") or Path(text).exists()) and text:
        return os.path.abspath(text)  # noqa: PTH100 - links are kept as they are
    return text


def _template_text(template: str) -> str:
    path = Path(template)
    if path.suffix not in (".yaml", ".yml"):
        path = RENDERED / f"{template}.yaml"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        ours = ", ".join(sorted(one.stem for one in RENDERED.glob("*.yaml")))
        raise TemplateError(
            f"there is no template {template}; use one of {ours}, or the path of a .yaml file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{template} cannot be read: {error}") from error


def main() -> NoReturn:
    """Run the `detr-workflows` command."""
    run(app)
