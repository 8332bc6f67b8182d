"""How a step gets its options out of the parameters of the workflow."""

import json
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from run_config.errors import ConfigError
from run_config.step_parameters import From, ParametersJson, options, texts_from_json

app = typer.Typer()


@app.command()
def step(
    sources: Annotated[list[str], typer.Argument(), From("dataset")],
    store: Annotated[str, typer.Option(), From("store")],
    test: Annotated[list[str] | None, typer.Option("--test"), From("test-dataset")] = None,
    part: Annotated[float, typer.Option(max=0.9), From("val-fraction")] = 0.15,
    seed: Annotated[str, typer.Option(), From("seed")] = "",
    run: Annotated[str, typer.Option()] = "none",
    parameters_json: ParametersJson = "{}",
) -> None:
    print(json.dumps([sources, store, test, part, seed, run, texts_from_json(parameters_json)]))


ALL = {"dataset": "a\nb", "store": "s3://x", "test-dataset": "c", "val-fraction": "0.25", "seed": "7", "more": "m"}


def ends(*arguments: str) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    if done.exit_code:
        return done.output if done.exception is None or isinstance(done.exception, SystemExit) else done.exception
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "content", [json.dumps(ALL), json.dumps([{"name": name, "value": text} for name, text in ALL.items()])]
)
def test_a_step_takes_its_options_from_the_parameters(content: str):
    assert ends("--parameters-json", content) == [["a\nb"], "s3://x", ["c"], 0.25, "7", "none", ALL]


@pytest.mark.parametrize("first", [True, False])
def test_an_option_that_is_given_wins_also_an_empty_one(first: bool):
    json_option = ["--parameters-json", json.dumps(ALL)]
    given = ["--store=s3://y", "--test=", "--part=0.5", "--seed=", "--run=r"]
    arguments = [*json_option, *given] if first else [*given, *json_option]
    assert ends(*arguments, "--", "d", "e") == [["d", "e"], "s3://y", [""], 0.5, "", "r", ALL]


def test_without_parameters_the_defaults_stay():
    assert ends("--store=s3://y", "d") == [["d"], "s3://y", None, 0.15, "", "none", {}]
    assert "Missing option '--store'" in ends("d")


def test_a_parameter_without_a_value_leaves_the_default():
    given = [{"name": "store", "value": "s3://x"}, {"name": "seed"}, {"name": "val-fraction", "value": None}]
    assert ends("--parameters-json", json.dumps(given), "d")[3:5] == [0.15, ""]
    assert "Missing option '--store'" in ends("--parameters-json", '{"store": null}', "d")


def test_a_value_of_the_parameters_is_checked_as_that_of_the_option():
    assert "equal to 0.9" in ends("--parameters-json", json.dumps(ALL | {"val-fraction": "2"}))


@pytest.mark.parametrize("content", ["{", "[1]", '"a"', '[{"name": "a"}, {"name": "a"}]', '[{"value": "a"}]'])
def test_what_is_no_list_of_parameters_is_refused(content: str):
    error = ends("--parameters-json", content, "--store=s3://y", "d")
    assert isinstance(error, ConfigError)
    assert str(error).startswith("--parameters-json")


def test_options_name_their_parameters():
    names = {"sources": "dataset", "store": "store", "test": "test-dataset", "part": "val-fraction", "seed": "seed"}
    assert options(step) == names
