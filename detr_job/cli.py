"""The command line `detr-job`: train, evaluate, predict.

detr-job train --store file:///data/store --set ID --output-prefix output --run first --model tiny --device auto
detr-job evaluate --model file:///data/store/output/first/model --store file:///data/store --set ID
detr-job predict --model runs/store/output/first/model photo.jpg
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from detr_job import leaving
from run_config import command_line
from run_config.step_parameters import From, ParametersJson, texts_from_json, values_from_json

app = typer.Typer(
    name="detr-job",
    help="Train a detection transformer on a prepared set, measure it, and use it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.callback()(command_line.top_options)

Device = Annotated[str, typer.Option(help="auto, cuda or cpu. cuda without a GPU is an error.")]
Out = Annotated[
    Path, typer.Option(envvar="OUT", help="Folder for model/, checkpoint/ and predictions/; a step's $OUT.")
]


@app.command()
def train(
    store: Annotated[str, typer.Option(help="Root of the store: s3://bucket/prefix or file:///folder."), From("store")],
    set_id: Annotated[str, typer.Option("--set", help="Id of the prepared set, as data-prep prepare printed it.")],
    output_prefix: Annotated[
        str, typer.Option(help="Prefix below the store under which runs lie."), From("cvat-output-path")
    ],
    run: Annotated[str, typer.Option(help="Name of this run. The same name goes on where it was.")],
    out: Out,
    model: Annotated[
        str, typer.Option(help="Preset, or path of a YAML file with the configuration."), From("model")
    ] = "detr-r50",
    finetune: Annotated[
        str,
        typer.Option(help="model/ folder or .pth to start from: a URL, or a key below the store."),
        From("cvat-finetune-checkpoint"),
    ] = "",
    epochs: Annotated[str, typer.Option(help="Length of the run; empty: the preset's."), From("epochs")] = "",
    minutes: Annotated[
        str, typer.Option(help="Length of the run in wall time, instead of epochs."), From("minutes")
    ] = "",
    batch_size: Annotated[
        str, typer.Option(help="Images per batch. Empty: the preset's value."), From("batch-size")
    ] = "",
    learning_rate: Annotated[
        str, typer.Option(help="Peak rate of all but the backbone; empty: the preset's."), From("learning-rate")
    ] = "",
    seed: Annotated[str, typer.Option(help="Empty: the preset's."), From("seed")] = "",
    device: Annotated[Device, From("device")] = "cuda",
    overrides: Annotated[
        str,
        typer.Option(help="Any key of the configuration: 'optimizer.lr=2e-4 model.queries=300'."),
        From("overrides"),
    ] = "",
    workflow_uid: Annotated[str, typer.Option(help="Of the Argo workflow; guards the run's folder.")] = "",
    parameters_json: ParametersJson = "{}",
) -> None:
    """Train, keep checkpoints in the store, and leave the best weights and their predictions.

    A run that was stopped or lost goes on from its newest checkpoint when the same command runs again.
    """
    from detr_job.training.training_job import TrainRequest
    from detr_job.training.training_job import train as run_training

    options = {
        "store": store,
        "cvat-output-path": output_prefix,
        "cvat-finetune-checkpoint": finetune,
        "epochs": epochs,
        "minutes": minutes,
        "batch-size": batch_size,
        "learning-rate": learning_rate,
        "seed": seed,
        "overrides": overrides,
    }
    recorded = {name: "" if value is None else value for name, value in values_from_json(parameters_json).items()}
    run_training(
        TrainRequest(
            store=store,
            set_id=set_id,
            output_prefix=output_prefix,
            run=run,
            out=out,
            model=model,
            finetune=finetune,
            device=device,
            workflow_uid=workflow_uid,
            settings=texts_from_json(parameters_json) | options,
            recorded=recorded,
        )
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="model/ folder of a run: path or URL."), From("trained-model")],
    store: Annotated[str, typer.Option(help="Root of the store that holds the prepared set."), From("store")],
    set_id: Annotated[str, typer.Option("--set", help="Id of the prepared set."), From("prepared-set")],
    split: Annotated[str, typer.Option(help="train, val or test."), From("split")] = "test",
    out: Annotated[
        Path | None, typer.Option(envvar="OUT", help="Also write predictions/<split>.json here; a step's $OUT.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images of equal shape predicted at once; empty: 4, or fewer where memory is short."),
    ] = None,
    device: Annotated[Device, From("device")] = "auto",
    output_prefix: Annotated[
        str,
        typer.Option(help="Of a workflow: where its artifacts go below the store, refused where not allowed."),
        From("cvat-output-path"),
    ] = "",
    parameters_json: ParametersJson = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as JSON on stdout.")] = False,
) -> None:
    """Measure any model on a split of any prepared set with the same classes."""
    from detr_job.prediction.evaluate_command import measure

    parameters = texts_from_json(parameters_json) | ({"cvat-output-path": output_prefix} if output_prefix else {})
    result = measure(model, store, set_id, split, out, batch_size, device, parameters, _warn)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    for name, value in result.numbers().items():
        print(f"{name:<10} {_digits(value)}")
    for each in result.classes:
        print(f"  {each.name}: AP {_digits(each.ap)}, AP50 {_digits(each.ap50)}, {each.ground_truths} boxes")
    if result.at_max_dets is not None:
        wide = result.at_max_dets
        print(f"at maxDets {wide.max_dets}: AP {_digits(wide.ap)}, AP50 {_digits(wide.ap50)}, AR {_digits(wide.ar)}")
        print(wide.sentence(sum(each.ground_truths for each in result.classes)))


def _warn(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _digits(value: float) -> str:
    """COCO's -1 (undefined) as a dash."""
    return f"{value:.3f}" if value >= 0 else "-"


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Annotated[str, typer.Option(help="model/ folder of a run: path or URL.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.json and the drawn pictures.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        str,
        typer.Option(help="Lowest score that is shown, 0 to 1. Empty: the model's own, best on its validation images."),
    ] = "",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The detections as JSON on stdout; no pictures.")] = False,
) -> None:
    """Find objects in images: JSON, and pictures with the boxes drawn."""
    from detr_job.prediction.predict_command import predict_files

    least = command_line.share(threshold, "--threshold")
    if as_json:
        found = predict_files(model, images, None, least, device, _warn)
        json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return
    said: list[str] = []
    found = predict_files(model, images, out, least, device, said.append)
    for entry in found:
        print(f"{entry['image']}: {len(entry['detections'])} objects")
    print(f"{os.fspath(out)}/: predictions.json and {len(found)} drawn pictures")
    print(*said, sep="\n")


def main() -> NoReturn:
    """Entry point."""
    leaving.run_to_the_end(lambda: command_line.run(app))
