"""Exit codes and the one line that people read; tried with real processes."""

import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

PROGRAM = '''
import signal
import sys
from typing import Annotated

import typer

from run_config.command_line import run
from run_config.errors import ConfigError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Away(Exception):
    exit_code = 75


@app.callback()
def program() -> None:
    """A program."""


@app.command()
def do(what: str, often: Annotated[int, typer.Option(min=1)] = 1) -> None:
    print("begun", flush=what == "wait")
    match what:
        case "wrong":
            raise ConfigError("batch-size must be\\na whole number,\\r\\nnot 'x'")
        case "away":
            raise Away("the store does not answer")
        case "bug":
            raise KeyError("our mistake")
        case "stop":
            raise typer.Exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "print":
            for number in range(100_000 * often):
                print("line", number)
        case "other pipe":
            raise BrokenPipeError("a socket closed")
        case "wait":
            sys.stdin.read()
    sys.exit(0) if what == "leave" else None


run(app)
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "prog"
    path.write_text(PROGRAM)
    return path


def call(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(program), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("wrong", 2, "error: batch-size must be a whole number, not 'x'\n"),
        ("away", 75, "error: the store does not answer\n"),
        ("interrupt", 130, "error: interrupted; run the same command again to resume\n"),
        ("stop", 3, ""),
        ("leave", 0, ""),
        ("nothing", 0, ""),
    ],
)
def test_a_command_leaves_with_its_code_and_at_most_one_line(program, what: str, code: int, said: str):
    done = call(program, "do", what)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "begun\n")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("data-prep", ["prepare", b"bad\xff/missing.zip", "--store", "store"]),
        ("data-prep", ["prepare", "missing.zip", "--store", b"s3://bucket/\xff"]),
        ("data-prep", ["prepare", b"s3://bucket/\xff.zip", "--store", "store"]),
        ("detr-job", ["predict", b"bad\xff.jpg", "--model", b"bad\xff"]),
    ],
)
def test_an_argument_that_is_not_utf8_is_named_in_one_sentence(command: str, arguments: list[str | bytes], tmp_path):
    program = Path(sys.executable).with_name(command)
    done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1
    assert "\\udcff" in done.stderr or "\N{REPLACEMENT CHARACTER}" in done.stderr


@pytest.mark.parametrize(
    ("words", "empty"), [(("",), "an argument"), (("print", "--out", ""), "--out"), (("print", "--out="), "--out")]
)
def test_an_empty_place_is_not_the_current_folder(program, words: tuple[str, ...], empty: str):
    done = call(program, "do", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {empty} is empty: name a file or folder ('.' is the current one)\n"


@pytest.mark.parametrize("what", ["bug", "other pipe"])
def test_our_own_mistakes_keep_their_traceback(program, what: str):
    done = call(program, "do", what)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert f'{program}", line' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["do"], "error: Missing argument 'what'. (see `prog do --help`)\n"),
        (["do", "x", "--often", "0"], "error: Invalid value for '--often'"),
        (["do", "x", "--nope"], "error: No such option: --nope"),
        (["mend"], "error: No such command 'mend'. (see `prog --help`)\n"),
        ([], "error: a command is missing (see `prog --help`)\n"),
    ],
)
def test_a_wrong_call_is_exit_2_with_the_way_to_the_help(program, arguments: list[str], said: str):
    done = call(program, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert "--help`)" in done.stderr
    assert bool(done.stdout) == (not arguments)


def test_help_is_no_mistake(program):
    done = call(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "A program." in done.stdout


COMMANDS = ("cvat-bridge", "data-prep", "detr-job", "detr-workflows")


def test_these_are_all_commands_of_the_package():
    named = metadata.distribution("detr-workflows").entry_points
    assert sorted(one.name for one in named if one.group == "console_scripts") == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("revision", ["", "1a2b3c4"])
def test_every_command_says_its_version_and_the_commit_where_it_is_known(name: str, revision: str):
    program = Path(sys.executable).parent / name
    environment = os.environ | {"CODE_REVISION": revision}
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env=environment)
    version = metadata.version("detr-workflows") + (f"+{revision}" if revision else "")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} {version}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_is_its_own_and_names_the_version_option(name: str):
    program = Path(sys.executable).parent / name
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--version" in done.stdout
    assert "sub-commands" not in done.stdout


def test_a_reader_that_leaves_gets_no_traceback(program):
    started = subprocess.Popen(
        [sys.executable, str(program), "do", "print"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"begun\n"
    started.stdout.close()
    assert started.stderr is not None
    assert started.stderr.read() == b""
    assert started.wait() == 141
    started.stderr.close()


def test_ctrl_c_ends_with_130_and_no_traceback(program):
    started = subprocess.Popen(
        [sys.executable, str(program), "do", "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "begun\n"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert (started.returncode, said) == (130, "error: interrupted; run the same command again to resume\n")


def test_a_module_is_called_by_its_name():
    done = subprocess.run(
        [sys.executable, "-m", "evaluation", "nothing"], capture_output=True, text=True, check=False, cwd=os.curdir
    )
    assert done.returncode == 2
    assert "(see `python -m evaluation --help`)" in done.stderr


def test_the_termination_log_gets_the_sentence(tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    code = (
        "import sys, run_config.command_line as c; from pathlib import Path; "
        f"c.TERMINATION_LOG = Path({str(log)!r}); c.fail('zu wenig \\u00c4pfel ' + 'x' * 9000, 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 2
    text = log.read_bytes()
    assert text.decode().startswith("zu wenig \u00c4pfel xxx")
    assert len(text) <= 4096
