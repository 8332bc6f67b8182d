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
from detr_job.errors import PartlyDone
from run_config import command_line
from run_config.step_parameters import From, ParametersJson, texts_from_json, values_from_json
from run_config.wording import plural

app = typer.Typer(
    name="detr-job",
    help="Train a detection transformer on a prepared set, evaluate it, and predict with it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.callback()(command_line.top_options)

Device = Annotated[str, typer.Option(help="auto, cuda or cpu. cuda without a GPU is an error.")]
Out = Annotated[
    Path,
    typer.Option(
        envvar="OUT", help="Folder for model/, checkpoint/ and predictions/. Default in a workflow: the step's $OUT."
    ),
]


@app.command()
def train(
    store: Annotated[str, typer.Option(help="Root of the store: s3://bucket/prefix or file:///folder."), From("store")],
    set_id: Annotated[str, typer.Option("--set", help="Id of the prepared set, as printed by `data-prep prepare`.")],
    output_prefix: Annotated[
        str, typer.Option(help="Prefix in the store for the folders of runs."), From("cvat-output-path")
    ],
    run: Annotated[str, typer.Option(help="Name of the run. An existing name resumes that run.")],
    out: Out,
    model: Annotated[
        str, typer.Option(help="Preset, path of a YAML file with the configuration, or auto."), From("model")
    ] = "auto",
    finetune: Annotated[
        str,
        typer.Option(
            help="Weights to start from: auto (published ones of the model), none (random), weights:NAME, run:NAME, "
            "or a model/ folder or file as URL or key in the store."
        ),
        From("cvat-finetune-checkpoint"),
    ] = "auto",
    epochs: Annotated[
        str, typer.Option(help="Passes over the training images. Empty: the preset's value."), From("epochs")
    ] = "",
    minutes: Annotated[str, typer.Option(help="Training time in minutes, instead of epochs."), From("minutes")] = "",
    batch_size: Annotated[
        str, typer.Option(help="Images per step. Empty: the preset's value."), From("batch-size")
    ] = "",
    learning_rate: Annotated[
        str,
        typer.Option(help="Highest learning rate, except for the backbone. Empty: the preset's value."),
        From("learning-rate"),
    ] = "",
    seed: Annotated[str, typer.Option(help="Random seed. Empty: the preset's value."), From("seed")] = "",
    device: Annotated[Device, From("device")] = "cuda",
    overrides: Annotated[
        str,
        typer.Option(help="Values for any keys of the configuration: 'optimizer.lr=2e-4 model.queries=300'."),
        From("overrides"),
    ] = "",
    workflow_uid: Annotated[
        str, typer.Option(help="UID of the Argo workflow. The folder of another workflow's run is refused.")
    ] = "",
    parameters_json: ParametersJson = "{}",
) -> None:
    """Train, save checkpoints to the store, and write the best weights and their predictions.

    The same command resumes an interrupted run from its newest checkpoint.
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
        Path | None,
        typer.Option(envvar="OUT", help="Folder for predictions/<split>.json. Default in a workflow: the step's $OUT."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per batch. Default: 4, or fewer if memory runs out."),
    ] = None,
    device: Annotated[Device, From("device")] = "auto",
    output_prefix: Annotated[
        str,
        typer.Option(
            help="Prefix of the workflow's artifacts in the store. Refused if the installation does not permit it."
        ),
        From("cvat-output-path"),
    ] = "",
    parameters_json: ParametersJson = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON to stdout.")] = False,
) -> None:
    """Evaluate a model on a split of a prepared set with the same classes."""
    from detr_job.prediction.evaluate_command import measure

    parameters = texts_from_json(parameters_json) | ({"cvat-output-path": output_prefix} if output_prefix else {})
    result = measure(model, store, set_id, split, out, batch_size, device, parameters, _warn)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    for name, value in result.numbers().items():
        print(f"{name:<10} {_digits(value)}")
    for each in result.classes:
        boxes = plural(each.ground_truths, "box", "boxes")
        print(f"  {each.name}: AP {_digits(each.ap)}, AP50 {_digits(each.ap50)}, {boxes}")
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
    out: Annotated[Path, typer.Option(help="Folder for predictions.json and the images with boxes.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        str,
        typer.Option(
            help="Lowest score to show, 0 to 1. Empty: the model's threshold, chosen on its validation images."
        ),
    ] = "",
    keep_repeated: Annotated[
        bool,
        typer.Option(help="Keep a box that has nearly the place of a better box (IoU above 0.9)."),
    ] = False,
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the detections as JSON to stdout, without drawing images.")
    ] = False,
) -> None:
    """Detect objects in images. Write predictions.json and images with the boxes drawn."""
    from detr_job.prediction.predict_command import predict_files

    least = command_line.share(threshold, "--threshold")
    left_out: dict[Path, str] = {}
    if as_json:
        found = predict_files(model, images, None, least, device, _warn, left_out, keep_repeated=keep_repeated)
        json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
        print()
    else:
        said: list[str] = []
        found = predict_files(model, images, out, least, device, said.append, left_out, keep_repeated=keep_repeated)
        for entry in found:
            print(f"{entry['image']}: {plural(len(entry['detections']), 'object')}")
        print(f"{os.fspath(out)}/: predictions.json and {plural(len(found), 'drawn picture')}")
        print(*said, sep="\n")
    for path, reason in left_out.items():
        _warn(f"left out: {path} {reason}")
    if left_out:
        raise PartlyDone(
            f"{len(left_out)} of {len(left_out) + len(found)} files were left out; the others are predicted"
        )


def main() -> NoReturn:
    """Entry point."""
    leaving.run_to_the_end(lambda: command_line.run(app))
