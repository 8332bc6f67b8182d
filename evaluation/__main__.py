"""`python -m evaluation report`: metrics and the report page of a run, from its files in the store."""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from run_config.command_line import run

app = typer.Typer(help="Measure a trained model and write its report.", no_args_is_help=True, add_completion=False)


@app.callback()
def evaluation() -> None:
    """Measure a trained model and write its report."""


@app.command()
def report(
    store: Annotated[str, typer.Option(help="The store: s3://bucket/prefix, file:///path or a folder.")],
    set_id: Annotated[str, typer.Option("--set", help="Id of the prepared set that the run was trained on.")],
    run_prefix: Annotated[str, typer.Option(help="Where the run lies in the store: OUTPUT-PATH/RUN.")],
    out: Annotated[Path, typer.Option(envvar="OUT", help="Folder for metrics.json, report/index.html and outputs/.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare a run's predictions with the annotations: metrics.json and a report page.

    The headline numbers are those of the test split, or of the validation split where there is no test split.
    """
    # Imported here so that --help answers at once.
    from evaluation.report import write_report  # heavy, see above
    from object_store import open_store  # heavy, see above
    from run_config.installation import permitted

    permitted(store, {}, {"cvat-output-path": run_prefix})
    with tempfile.TemporaryDirectory(prefix="evaluation-") as scratch:
        written = write_report(open_store(store), set_id, run_prefix, out, Path(scratch))
    metrics = written.metrics
    coco = metrics.splits[metrics.headline].coco
    if as_json:
        answer = {
            "split": metrics.headline,
            "ap": coco["ap"],
            "ap50": coco["ap50"],
            "threshold": metrics.operating_point.threshold,
            "metrics": str(written.metrics_path),
            "report": str(written.page_path),
        }
        typer.echo(json.dumps(answer))
        return
    images = metrics.splits[metrics.headline].images
    typer.echo(f"AP {coco['ap']:.3f}  AP50 {coco['ap50']:.3f}  ({metrics.headline}, {images} images)")
    if "OUT" not in os.environ:  # a step's $OUT is emptied into the run's folder: the path would lead nowhere
        typer.echo(f"report: {written.page_path}")


def main() -> NoReturn:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
