"""The command line `data-prep`: from CVAT exports to prepared sets."""

from typing import Annotated, NoReturn

import typer

from run_config.command_line import run

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
        help="CVAT exports in the format 'COCO 1.0' with images: a zip or an unpacked folder, local or in a "
        "bucket (s3://bucket/key.zip, s3://bucket/prefix). Several are merged by class name.",
    ),
]
Val = Annotated[
    list[str] | None,
    typer.Option("--val", help="An export to validate on; may be given several times. Without it, part is held back."),
]
Test = Annotated[
    list[str] | None,
    typer.Option("--test", help="An export to test on; may be given several times."),
]
ValFraction = Annotated[
    float,
    typer.Option(
        "--val-fraction",
        min=0.0,
        max=0.9,
        help="How much to hold back for validation when no --val is given.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Chooses which images are held back.")]
IgnoreSubsets = Annotated[
    bool,
    typer.Option("--ignore-subsets", help="Mix all subsets, also those that are called train, val or test in CVAT."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


@app.callback()
def _data_prep() -> None:
    """Keeps the verbs as sub-commands, however few there are."""


def _given(sources: list[str] | None) -> tuple[str, ...]:
    """Workflow templates pass an empty text for what was not given."""
    return tuple(source for source in sources or () if source.strip())


@app.command("prepare")
def prepare_command(
    sources: Sources,
    store: Annotated[str, typer.Option("--store", help="Where the set goes: s3://bucket/prefix or file:///path.")],
    val: Val = None,
    test: Test = None,
    val_fraction: ValFraction = 0.15,
    seed: Seed = 0,
    ignore_subsets: IgnoreSubsets = False,
    as_json: AsJson = False,
) -> None:
    """Check exports, split them and write a prepared set; prints the set's id."""
    from data_prep.manifest import Options
    from data_prep.prepare import DEFAULT_SHARD_BYTES, Request, prepare
    from data_prep.report import draw_report
    from object_store import open_store

    options = Options(val_fraction, seed, not ignore_subsets, DEFAULT_SHARD_BYTES)
    request = Request(_given(sources), _given(val), _given(test), options)
    done = prepare(request, open_store(store), draw_report)
    print(done.manifest.id)


def main() -> NoReturn:
    """The entry point."""
    run(app)


if __name__ == "__main__":
    main()
