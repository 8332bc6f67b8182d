"""The command line `data-prep`: from CVAT exports to prepared sets."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from run_config.argo_text import leave_value, outputs_folder
from run_config.automatic_boxes import AutomaticBoxes
from run_config.command_line import run, top_options
from run_config.cvat_formats import AUTO, COCO, SHORT_NAMES
from run_config.step_parameters import From, ParametersJson, texts_from_json
from run_config.writable import require_writable

if TYPE_CHECKING:
    from data_prep.checks.class_choice import ClassChoice
    from data_prep.export_reader import ReadingRules
    from data_prep.prepare import PrepareRequest

app = typer.Typer(
    name="data-prep",
    help="Turn CVAT exports into prepared sets: checked, split, ready for training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help=f"Exports with images, from CVAT best in the format {COCO!r}: a zip, tar or unpacked folder, local or in "
        "a bucket (s3://bucket/key.zip, s3://bucket/prefix). Several are merged by class name.",
    ),
]
Val = Annotated[
    list[str] | None,
    typer.Option("--val", help="Export for validation; repeatable. Without it, part of the images is held back."),
]
Test = Annotated[
    list[str] | None,
    typer.Option("--test", help="Export for testing; repeatable."),
]
ValFraction = Annotated[
    float,
    typer.Option(
        "--val-fraction",
        min=0.0,
        max=0.9,
        help="Share of images held back for validation if no --val is given.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed for choosing the validation images.")]
IgnoreSubsets = Annotated[
    bool,
    typer.Option("--ignore-subsets", help="Mix all subsets, including those named train, val or test in CVAT."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Share of the data that may be wrong, such as dropped-boxes=0.2; repeatable. An installation has its own.",
    ),
]
Refuse = Annotated[
    list[str] | None,
    typer.Option(
        "--refuse",
        metavar="NAME",
        help="Refuse data with this correction instead of counting it, such as box-empty; repeatable.",
    ),
]
Boxes = Annotated[
    str,
    typer.Option(
        "--boxes",
        help="Form in which the sources write boxes: xywh, corners, centres, shares, shared-centres, shared-corners, "
        f"percent, percent-centres, thousandths, rows-first or rows-first-corners; {AUTO}: that of their format.",
    ),
]
Automatic = Annotated[
    AutomaticBoxes,
    typer.Option(
        "--automatic-boxes",
        help="Boxes that a model drew and nobody has changed since, where the export says so: leave-out or keep.",
    ),
]
ChosenFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"Format of all sources: {', '.join(SHORT_NAMES)}; {AUTO}: each is recognised by its content.",
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        metavar="NAME,...",
        help="Classes to use, by the names that --class-map gives them; repeatable. Empty: all.",
    ),
]
ClassMap = Annotated[
    list[str] | None,
    typer.Option(
        "--class-map",
        metavar="OLD=NEW,...",
        help="New names of classes; classes with the same new name are merged; repeatable.",
    ),
]
Pods = Annotated[
    int,
    typer.Option("--pods", min=1, help="Pods of a workflow that share the work. Above 1, their work is used."),
]
OneShare = Annotated[
    str,
    typer.Option(
        "--share",
        metavar="STAGE:POD",
        help="Do only the share of one pod: images:0 to images:N-1 first, then shards:0 to shards:N-1.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


app.callback()(top_options)


@app.command("prepare")
def prepare_command(
    sources: Annotated[Sources, From("cvat-annotation-path")],
    store: Annotated[
        str,
        typer.Option("--store", help="Store to write the set to: s3://bucket/prefix or file:///path."),
        From("store"),
    ],
    val: Val = None,
    test: Annotated[Test, From("cvat-test-path")] = None,
    val_fraction: Annotated[ValFraction, From("val-fraction")] = 0.15,
    seed: Annotated[Seed, From("seed")] = 0,
    ignore_subsets: IgnoreSubsets = False,
    limit: Limit = None,
    refuse: Refuse = None,
    boxes: Boxes = AUTO,
    automatic_boxes: Annotated[Automatic, From("automatic-boxes")] = AutomaticBoxes.LEAVE_OUT,
    chosen_format: Annotated[ChosenFormat, From("annotation-format")] = AUTO,
    classes: Annotated[Classes, From("classes")] = None,
    class_map: Annotated[ClassMap, From("class-map")] = None,
    pods: Pods = 1,
    share: OneShare = "",
    parameters_json: ParametersJson = "{}",
    as_json: AsJson = False,
) -> None:
    """Check exports, split them, write a prepared set to the store, and print the set's id.

    The same data and options give the same id; an existing set is neither read nor written again. In a
    workflow ($OUT is set) the id is also written to $OUT/outputs/prepared-set.
    """
    from data_prep.prepare import prepare, prepare_share
    from data_prep.progress import Display
    from data_prep.report import summary
    from data_prep.report.page import draw_report
    from data_prep.shared_work import read_share
    from object_store import open_store
    from prepared_set.manifest import REPORT_KEY, set_prefix
    from run_config.installation import permitted
    from run_config.parameters import Type

    given = {
        "store": store,
        "cvat-annotation-path": "\n".join(sources),
        "--val": "\n".join(val or ()),
        "cvat-test-path": "\n".join(test or ()),
    }
    allowed = permitted(texts_from_json(parameters_json) | given, {"--val": Type.LOCATIONS})
    if "OUT" in os.environ:
        require_writable(outputs_folder(Path(os.environ["OUT"])), "$OUT")
    root = open_store(store)
    pool, held_out, tested = ([allowed[name]] for name in ("cvat-annotation-path", "--val", "cvat-test-path"))
    rules, choice = _reading(limit, refuse, boxes, chosen_format, automatic_boxes, classes, class_map)
    request = _request(pool, held_out, tested, val_fraction, seed, ignore_subsets, rules, choice, root.url)
    if share:
        with Display() as display:
            prepare_share(request, root, read_share(share, pods), display)
        print(f"{share} of {pods} is done")
        return
    with Display() as display:
        done = prepare(request, root, draw_report, display, pods=pods)
    manifest = done.manifest
    report = f"{root.url}/{set_prefix(manifest.id)}/{REPORT_KEY}"
    _hand_on("prepared-set", manifest.id)
    if as_json:
        print(summary.as_json(manifest, store=root.url, was_there=done.was_there, report=report))
        return
    print(f"prepared set {manifest.id}{' (was there already)' if done.was_there else ''}")
    print(*summary.as_lines(manifest), f"  report: {report}", sep="\n")


@app.command("inspect")
def inspect_command(
    sources: Sources,
    report: Annotated[
        Path | None, typer.Option("--report", "-o", help="Write the report page (HTML) to this file.")
    ] = None,
    val: Val = None,
    test: Test = None,
    val_fraction: ValFraction = 0.15,
    seed: Seed = 0,
    ignore_subsets: IgnoreSubsets = False,
    limit: Limit = None,
    refuse: Refuse = None,
    boxes: Boxes = AUTO,
    automatic_boxes: Automatic = AutomaticBoxes.LEAVE_OUT,
    chosen_format: ChosenFormat = AUTO,
    classes: Classes = None,
    class_map: ClassMap = None,
    as_json: AsJson = False,
) -> None:
    """Check exports like `prepare` and show the result, without writing a set."""
    from data_prep.errors import DataPrepError
    from data_prep.prepare import inspect
    from data_prep.progress import Display
    from data_prep.report import summary
    from data_prep.report.page import draw_report

    if report is not None:
        if report.is_dir():
            raise DataPrepError(f"--report: {report} is a folder; give the name of a file in it")
        if not report.parent.is_dir():
            raise DataPrepError(f"the report {report} cannot be written: No such file or directory; check the folder")
        require_writable(report.parent, "--report")
    with Display() as display:
        rules, choice = _reading(limit, refuse, boxes, chosen_format, automatic_boxes, classes, class_map)
        request = _request(sources, val, test, val_fraction, seed, ignore_subsets, rules, choice)
        manifest, page = inspect(request, draw_report, display)
    if report is not None:
        try:
            report.write_bytes(page)
        except OSError as error:
            raise DataPrepError(f"the report {report} cannot be written: {error.strerror}; check the folder") from error
    if as_json:
        print(summary.as_json(manifest, report=None if report is None else str(report)))
        return
    print(f"the prepared set would be {manifest.id}")
    print(*summary.as_lines(manifest), *([f"  report: {report}"] if report is not None else []), sep="\n")


@app.command("convert")
def convert_command(
    sources: Sources,
    to: Annotated[Path, typer.Option("--to", help="New folder for the COCO export.")],
    annotations_only: Annotated[
        bool, typer.Option("--annotations-only", help="Write the annotations without the images.")
    ] = False,
    limit: Limit = None,
    refuse: Refuse = None,
    boxes: Boxes = AUTO,
    automatic_boxes: Automatic = AutomaticBoxes.LEAVE_OUT,
    chosen_format: ChosenFormat = AUTO,
    classes: Classes = None,
    class_map: ClassMap = None,
    as_json: AsJson = False,
) -> None:
    """Convert exports to COCO: annotations/instances_<subset>.json and images/<subset>/.

    The boxes are corrected as for a prepared set; every change is counted.
    """
    import msgspec

    from data_prep.convert import convert
    from data_prep.progress import Display
    from run_config.wording import plural, shortened

    require_writable(to.absolute().parent, "--to")
    with Display() as display:
        rules, choice = _reading(limit, refuse, boxes, chosen_format, automatic_boxes, classes, class_map)
        request = _request(sources, None, None, 0.0, 0, False, rules, choice)
        done = convert(request, to, annotations_only=annotations_only, watcher=display)
    if as_json:
        print(msgspec.json.encode(done).decode())
        return
    print(f"{to}: {plural(sum(done.images.values()), 'image')}, {plural(done.boxes, 'box', 'boxes')}")
    for subset, count in done.images.items():
        print(f"  {subset}: {plural(count, 'image')}")
    print(f"  {plural(len(done.classes), 'class', 'classes')}: {shortened(done.classes, 12)}")
    for change in done.changes:
        print(f"  {change.action}: {change.count:,} x {change.sentence}")
    print(*(f"  warning: {warning}" for warning in done.warnings), sep="\n")


@app.command("check")
def check_command(
    run: Annotated[str, typer.Option("--run", help="Name of the run.")],
    template: Annotated[
        str,
        typer.Option(
            "--template", help="Template that the parameters belong to: detr-train, detr-prepare, cvat-train, …"
        ),
    ] = "detr-train",
    workflow_uid: Annotated[
        str,
        typer.Option(
            "--workflow-uid", help="UID of the Argo workflow. The folder of another workflow's run is refused."
        ),
    ] = "",
    parameters_json: ParametersJson = "{}",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="One parameter, name=value; see `detr-workflows parameters`."),
    ] = None,
) -> None:
    """Check a run's parameters, sources, models and store access in seconds.

    In a cluster, also check that the installation permits the node pool, its GPUs and the locations read and written.
    If the model is `auto`, choose it and say why. In a workflow ($OUT is set) the model is written to
    $OUT/outputs/model, and the number of pods that prepare the data to $OUT/outputs/pods.
    """
    from run_check.check import check
    from run_config.installation import load_installation
    from run_config.parameters import pairs

    texts = texts_from_json(parameters_json) | pairs(parameter or ())
    passed = check(texts, run, workflow_uid, template=template, installation=load_installation())
    if passed.model:
        _hand_on("model", passed.model)
    if passed.pods:
        _hand_on("pods", str(passed.pods))
    print(*passed.findings, sep="\n")


@app.command("make-sample")
def make_sample_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the two zips.")],
    images: Annotated[
        int, typer.Option("--images", help="Number of images; a fifth of them is held back for testing.")
    ] = 400,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the images.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw a small sample export in CVAT's layout. Existing files are reused."""
    from data_prep.progress import Display
    from data_prep.sample.make import make_sample

    with Display() as display:
        begun = False

        def drawn(count: int) -> None:
            nonlocal begun
            if not begun:
                display.stage("drawing sample images", images, "images")
            begun = True
            display.advance(count)

        files = make_sample(folder, images=images, seed=seed, progress=drawn)
    if as_json:
        print(json.dumps({"trainval": str(files.trainval), "test": str(files.test), "reused": files.reused}))
        return
    print(f"{files.trainval} and {files.test}{' (were there already)' if files.reused else ''}")


@app.command("rewrite-paths")
def rewrite_paths_command(
    annotations: Annotated[Path, typer.Argument(metavar="IN", help="A COCO annotation file.")],
    image_dir: Annotated[str, typer.Option("--image-dir", help="Folder to put before the file names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Path of the new file; may be IN itself.")],
) -> None:
    """Put a folder before every file_name of a COCO annotation file. Nothing else changes."""
    from data_prep.rewrite_paths import rewrite_paths

    require_writable(output.parent, "--output")
    count = rewrite_paths(annotations, image_dir, output, lambda text: print(f"warning: {text}", file=sys.stderr))
    print(f"{output}: {count:,} images")


def _request(
    sources: list[str],
    val: list[str] | None,
    test: list[str] | None,
    val_fraction: float,
    seed: int,
    ignore_subsets: bool,
    rules: "ReadingRules",
    choice: "ClassChoice",
    store: str | None = None,
) -> "PrepareRequest":
    from data_prep.errors import DataPrepError
    from data_prep.prepare import PrepareRequest
    from data_prep.sources.names import source_places
    from prepared_set.manifest import Options

    pool, held_out, tested = (source_places(texts or (), store) for texts in (sources, val, test))
    if not pool:
        raise DataPrepError("no source is given; give at least one export")
    return PrepareRequest(pool, held_out, tested, Options(val_fraction, seed, not ignore_subsets), rules, choice)


def _reading(
    limits: list[str] | None,
    refuse: list[str] | None,
    boxes: str,
    chosen_format: str,
    automatic: AutomaticBoxes,
    classes: list[str] | None,
    class_map: list[str] | None,
) -> tuple["ReadingRules", "ClassChoice"]:
    """How boxes are read, with the installation's limits or else the given ones, and the chosen classes."""
    from data_prep.box_form import BoxForm
    from data_prep.checks.class_choice import class_choice
    from data_prep.errors import DataPrepError
    from data_prep.export_reader import ReadingRules
    from run_config.data_limits import data_limits
    from run_config.installation import load_installation

    if boxes not in (AUTO, *BoxForm):
        raise DataPrepError(f"--boxes {boxes!r} is not allowed; use {', '.join((AUTO, *BoxForm))}")
    if chosen_format not in (AUTO, *SHORT_NAMES):
        raise DataPrepError(f"--format {chosen_format!r} is not allowed; use {', '.join((AUTO, *SHORT_NAMES))}")
    installation = load_installation()
    if installation is not None and limits:
        raise DataPrepError("--limit is not allowed here: this installation sets its limits (dataLimits)")
    own = data_limits(limits or ()) if installation is None else installation.data_limits
    form = None if boxes == AUTO else BoxForm(boxes)
    rules = ReadingRules(own.refusing(refuse or ()), form, chosen_format, automatic)
    return rules, class_choice(classes or (), class_map or ())


def _hand_on(name: str, value: str) -> None:
    """Write an output parameter for the next workflow step, if $OUT is set."""
    out = os.environ.get("OUT")
    if out:
        leave_value(Path(out), name, value)


def main() -> NoReturn:
    """Run `data-prep` and exit with its exit code."""
    run(app)


if __name__ == "__main__":
    main()
