"""The report step: read a run and its prepared set, measure, and write metrics.json and the page.

$OUT/metrics.json
$OUT/report/index.html
$OUT/outputs/ap, $OUT/outputs/ap50      the headline split's numbers, as Argo output parameters
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from evaluation.gallery import choose, pictures
from evaluation.ground_truth import GroundTruth
from evaluation.metrics import Measured, Metrics, SplitInput, measure
from evaluation.page import PageInput, render
from evaluation.predictions import PredictionsFile, read_predictions, write_atomically
from evaluation.run_files import RunFiles, read_run
from object_store import ObjectStore
from prepared_set.reader import LocalSet, PreparedSet
from run_config.argo_text import leave_value
from run_config.writable import require_writable

FOLDERS = ("report", "outputs")  # folders in --out


@dataclass(frozen=True, slots=True)
class Report:
    """The written files, and the metrics to print."""

    metrics: Metrics
    metrics_path: Path
    page_path: Path


def write_report(store: ObjectStore, set_id: str, run_prefix: str, out: Path, scratch: Path) -> Report:
    """Measure a run and write its report.

    Args:
        store: Root of all keys; it holds both the set and the run.
        set_id: The prepared set that the run was trained on.
        run_prefix: Where the run lies in the store, `<cvat-output-path>/<run>`.
        out: Folder for the results.
        scratch: Folder to download the set's files to, if the store is not on local disk.

    Raises:
        EvaluationError, SetError, ImageError: The run or the set is unusable; the message says why.
        StoreError: The store cannot be read.
        ConfigError: `out` cannot be written; this is tried first.
    """
    for place in FOLDERS:
        require_writable(out / place, "--out")
    run = read_run(store, run_prefix)
    local = PreparedSet.open(store, set_id).pull(scratch, tuple(run.predictions))
    truths = {name: GroundTruth.read(local.split(name).annotations_path) for name in run.predictions}
    predicted = {
        name: read_predictions(
            data, set_id=set_id, split=name, truth=truths[name], name=f"{run.url}/predictions/{name}.json"
        )
        for name, data in run.predictions.items()
    }
    measured = _measure(run, truths, predicted, set_id)
    page = _page(run, measured, local)
    return _write(out, measured.metrics, page)


def _measure(
    run: RunFiles, truths: dict[str, GroundTruth], predicted: dict[str, PredictionsFile], set_id: str
) -> Measured:
    splits = {name: SplitInput(truths[name], predicted[name].predictions) for name in predicted}
    model = next(iter(predicted.values())).model
    return measure(splits, run=run.name, set_id=set_id, model=model)


def _page(run: RunFiles, measured: Measured, local: LocalSet) -> str:
    metrics = measured.metrics
    split = local.split(metrics.headline)
    worst, best = choose(measured.outcomes[metrics.headline])
    return render(
        PageInput(
            metrics=metrics,
            log=run.log,
            run=run.run,
            run_url=run.url,
            worst=pictures(split, worst, metrics.classes, first=1),
            best=pictures(split, best, metrics.classes, first=len(worst) + 1),
        )
    )


def _write(out: Path, metrics: Metrics, page: str) -> Report:
    report = Report(metrics, out / "metrics.json", out / "report" / "index.html")
    headline = metrics.splits[metrics.headline].coco
    files = {
        report.metrics_path: msgspec.json.format(msgspec.json.encode(metrics), indent=1),
        # A lone surrogate in a file name must not prevent the report.
        report.page_path: page.encode(errors="replace"),
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    for name in ("ap", "ap50"):
        leave_value(out, name, f"{headline[name]:.6f}")
    return report
