"""The command line `cvat-bridge`: the service, the steps that talk to CVAT, and the model server."""

import typer

from run_config.command_line import run

app = typer.Typer(
    name="cvat-bridge",
    help="Connect CVAT with the training workflows: the button, exports, and predictions as annotations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _cvat_bridge() -> None:
    """Keeps the verbs as sub-commands, however few there are."""


def main() -> None:
    """Entry point."""
    run(app)
