"""`python -m evaluation report`: metrics and the report page of a run, from its files in the store."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from run_config.command_line import run
from run_config.step_parameters import From, ParametersJson, texts_from_json
from run_config.wording import plural

if TYPE_CHECKING:  # heavy, see below
    from evaluation.metrics import SplitMetrics

app = typer.Typer(help="Evaluate a trained model and write its report.", no_args_is_help=True, add_completion=False)


@app.callback()
def evaluation() -> None:
    """Evaluate a trained model and write its report."""


@app.command()
def report(
    store: Annotated[str, typer.Option(help="The store: s3://bucket/prefix, file:///path or a folder."), From("store")],
    set_id: Annotated[str, typer.Option("--set", help="Id of the prepared set that the run was trained on.")],
    run_prefix: Annotated[str, typer.Option(help="Folder of the run in the store: OUTPUT-PATH/RUN.")],
    out: Annotated[Path, typer.Option(envvar="OUT", help="Folder for metrics.json, report/index.html and outputs/.")],
    *,
    parameters_json: ParametersJson = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare a run's predictions with the annotations: metrics.json and a report page.

    The headline numbers are those of the test split, or of the validation split where there is no test split.
    """
    # Imported here so that --help starts fast.
    from evaluation.report import write_report  # heavy, see above
    from object_store import open_store  # heavy, see above
    from run_config.installation import permitted

    permitted(texts_from_json(parameters_json) | {"store": store, "cvat-output-path": run_prefix})
    with tempfile.TemporaryDirectory(prefix="evaluation-") as scratch:
        written = write_report(open_store(store), set_id, run_prefix, out, Path(scratch))
    metrics = written.metrics
    split = metrics.splits[metrics.headline]
    wide = split.at_max_dets or None
    if as_json:
        answer = {
            "split": metrics.headline,
            "ap": split.coco["ap"],
            "ap50": split.coco["ap50"],
            "threshold": metrics.operating_point.threshold,
            "metrics": str(written.metrics_path),
            "report": str(written.page_path),
        }
        if wide is not None:
            answer |= {"max_dets": wide.max_dets, "ap_max_dets": wide.ap, "ap50_max_dets": wide.ap50}
        typer.echo(json.dumps(answer))
        return
    typer.echo(_headline(metrics.headline, split))
    if wide is not None:
        typer.echo(f"AP {wide.ap:.3f}  AP50 {wide.ap50:.3f}  (maxDets {wide.max_dets})")
        typer.echo(wide.sentence(split.ground_truths))
    repeats = split.repeated_boxes or None
    ap, ap50 = (wide.ap, wide.ap50) if wide else (split.coco["ap"], split.coco["ap50"])
    if repeats is not None and repeats.changes(ap, ap50):
        count = f": {repeats.repeated:,} of {plural(repeats.shown, 'box', 'boxes')}" if repeats.repeated else ""
        typer.echo(f"AP {repeats.ap:.3f}  AP50 {repeats.ap50:.3f}  (without boxes that repeat a better one{count})")
    if "OUT" not in os.environ:  # a workflow step's $OUT is moved into the run's folder, so the path would lead nowhere
        typer.echo(f"report: {written.page_path}")


def _headline(name: str, split: "SplitMetrics") -> str:
    where = f"{name}, {plural(split.images, 'image')}"
    if not split.ground_truths:
        return f"AP not measurable: no boxes  ({where})"
    at = ", maxDets 100" if split.at_max_dets else ""
    return f"AP {split.coco['ap']:.3f}  AP50 {split.coco['ap50']:.3f}  ({where}{at})"


def main() -> NoReturn:
    """Run the command line."""
    run(app)


if __name__ == "__main__":
    main()
