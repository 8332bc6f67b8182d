"""The command line `cvat-bridge`: the service, the steps that talk to CVAT, and the model server."""

from pathlib import Path
from typing import Annotated

import typer

from run_config.command_line import run, share, top_options
from run_config.cvat_formats import COCO
from run_config.step_parameters import From, ParametersJson, texts_from_json

app = typer.Typer(
    name="cvat-bridge",
    help="Connect CVAT with the training workflows: the button, exports, and predictions as annotations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.callback()(top_options)

Host = Annotated[str, typer.Option(help="Address to listen on.")]


@app.command()
def serve(
    host: Host = "0.0.0.0",  # noqa: S104 - a pod's port
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of pages, API, health and metrics.")] = 8080,
) -> None:
    """Serve the form, runs and reports behind the button in CVAT, and receive CVAT's webhooks.

    Must be reachable at /training-bridge of CVAT's own address. Settings: CVAT_BRIDGE_SETTINGS and
    DETR_WORKFLOWS_SETTINGS.
    Secrets: CVAT_BRIDGE_SIGNING_KEY, and for webhooks CVAT_WEBHOOK_SECRET and CVAT_ACCESS_TOKEN.
    """
    from cvat_bridge.http.serve import serve as answer

    answer(host, port)


@app.command("serve-models")
def serve_models(
    host: Host = "0.0.0.0",  # noqa: S104 - a pod's port
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API of a Nuclio dashboard.")] = 8070,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu. cuda without a GPU is an error.")] = "auto",
    store: Annotated[str, typer.Option(help="Root of the store with the runs. Empty: the installation's store.")] = "",
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Prefix below the store that runs lie under; may be given again. Default: where runs may write."
        ),
    ] = None,
) -> None:
    """Offer trained models in CVAT's Models page and Automatic annotation.

    CVAT uses it as its Nuclio dashboard. Requests are not authenticated, so only CVAT may reach the port.
    """
    from model_server.serve import serve_models as serve

    serve(host, port, device, store, prefix or [])


@app.command()
def annotate(
    store: Annotated[str, typer.Option(help="Root of the store: s3://bucket/prefix or file:///folder."), From("store")],
    subject: Annotated[str, typer.Option(help="What to annotate: task:8,task:9 or project:3."), From("cvat-subject")],
    grant: Annotated[str, typer.Option(help="The grant, signed by the bridge."), From("cvat-grant")],
    model: Annotated[
        str,
        typer.Option(help="model/ folder of a run, or the run's: a URL, or a key below the store."),
        From("trained-model"),
    ],
    threshold: Annotated[
        str,
        typer.Option(
            help="Lowest score of a box that is drawn, 0 to 1. Empty: the installation's, or the model's own."
        ),
        From("threshold"),
    ] = "",
    existing: Annotated[
        str,
        typer.Option(help="What to do with existing shapes: keep, replace-automatic or replace-all."),
        From("existing-shapes"),
    ] = "keep",
    repeated: Annotated[
        str,
        typer.Option(help="Boxes with nearly the place of a better box: remove or keep."),
        From("repeated-boxes"),
    ] = "remove",
    device: Annotated[
        str, typer.Option(help="auto, cuda or cpu. cuda without a GPU is an error."), From("device")
    ] = "cuda",
    parameters_json: ParametersJson = "{}",
    out: Annotated[Path | None, typer.Option(envvar="OUT", help="Folder for outputs/message; a step's $OUT.")] = None,
) -> None:
    """Draw a trained model's boxes into tasks of CVAT. What people drew stays, unless replace-all is asked for."""
    from cvat_steps.annotate import AnnotateRequest
    from cvat_steps.annotate import annotate as annotate_tasks

    request = AnnotateRequest(
        store=store,
        subject=subject,
        grant=grant,
        model=model,
        threshold=share(threshold, "--threshold"),
        existing=existing,
        repeated=repeated,
        device=device,
        out=out,
        parameters=texts_from_json(parameters_json),
    )
    print(annotate_tasks(request))


@app.command("export")
def export_command(
    store: Annotated[
        str, typer.Option("--store", help="Root of the store: s3://bucket/prefix or file:///path."), From("store")
    ],
    subject: Annotated[
        str, typer.Option("--subject", help="What is exported: task:8,task:9 or project:3."), From("cvat-subject")
    ],
    run_name: Annotated[str, typer.Option("--run", help="Name of the run, which is part of where the export goes.")],
    grant: Annotated[
        str, typer.Option("--grant", help="The bridge's signature for the subject."), From("cvat-grant")
    ] = "",
    format_name: Annotated[str, typer.Option("--format", help="One of CVAT's export formats.")] = COCO,
    unpack: Annotated[bool, typer.Option("--unpack", help="Unpack the export below --into as well.")] = False,
    into: Annotated[str, typer.Option("--into", help="Key below the store that the export is unpacked to.")] = "",
    parameters_json: ParametersJson = "{}",
) -> None:
    """Export tasks or a project from CVAT, with images, to the store, and wait until the export is complete.

    Run again, it resumes. Inside a workflow ($OUT is set) the URLs of the exports are written to
    $OUT/outputs/dataset, one per line.
    """
    from cvat_client.errors import BridgeError
    from cvat_steps.export_command import Order, export

    if unpack != bool(into):
        raise BridgeError("--unpack and --into=KEY belong together: use both or neither")
    order = Order(store, subject, grant, run_name, format_name, into, texts_from_json(parameters_json))
    print(*export(order), sep="\n")


def main() -> None:
    """Entry point."""
    run(app)
