"""What all command lines of the project share: one line for a user's mistake, and the exit code contract.

An exception that carries `exit_code` is meant for the person who called: its message is the whole
answer. 2 means that the input or a parameter is wrong, 75 that a fault passes and a retry resumes.
Anything without the attribute is our bug and keeps its traceback.

`app.callback()(top_options)` gives a command line the options that stand before its verbs.
"""

import contextlib
import math
import os
import select
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from run_config.argo_text import without_tags
from run_config.errors import ConfigError
from run_config.exit_codes import INTERRUPTED, READER_GONE, WRONG_INPUT

TERMINATION_LOG = Path("/dev/termination-log")


def code_version() -> str:
    """The installed version, and the commit where the image names it: two commits may share a version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("detr-workflows")
    except PackageNotFoundError:
        installed = "unknown"
    revision = os.environ.get("CODE_REVISION", "")
    return f"{installed}+{revision}" if revision else installed


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{_program()} {code_version()}")
        raise typer.Exit


def top_options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show name and version, and exit.")
    ] = False,
) -> None:
    """Also keeps the verbs as sub-commands, however few there are."""


def share(text: str, option: str) -> float | None:
    """The number of an option that takes 0 to 1; None where it was left empty. ConfigError: it is another."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"{option}: {text[:80]!r} is not allowed; use a number from 0 to 1, or leave it empty")
    return value


def run(app: typer.Typer) -> NoReturn:
    """Run a command line and leave the process with the contract's exit code.

    The last line on stderr and the container's termination log say what was wrong.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context(_program(), sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted; the same command goes on where it was", INTERRUPTED)
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        # `| head`: nothing is left to say, and nobody to say it to. Not 0: the work may not be done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_GONE)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            _fail_with_usage(error)
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        fail(str(error), code)
    sys.exit(0)


def _program() -> str:
    """How the person called it."""
    called = Path(sys.argv[0])
    return f"python -m {called.parent.name}" if called.name == "__main__.py" else called.name


def _reader_has_gone() -> bool:
    """Whether it is our own output that nobody reads, and not some other pipe that broke."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _fail_with_usage(error: Exception) -> NoReturn:
    """A wrong option: the message, and where help is."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)  # the help itself; where it is printed in colours, it already was
        message = "a command is missing"
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    fail(message + hint, getattr(error, "exit_code", WRONG_INPUT))


def fail(message: str, code: int) -> NoReturn:
    """Print the sentence in one line, leave it where Kubernetes picks it up, and exit."""
    message = " ".join(message.splitlines())
    with contextlib.suppress(BrokenPipeError):  # what was printed before, in its order
        sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    leave_termination_message(message)
    sys.exit(code)


def leave_termination_message(message: str) -> None:
    """Leave the sentence where Kubernetes picks it up."""
    # Outside a container there is no such file; inside it is a mount that the kubelet made for us.
    if TERMINATION_LOG.exists():
        with contextlib.suppress(OSError):
            # Argo makes it the node's message. The kubelet reads 4096 bytes.
            text = without_tags(message)[:1000]
            TERMINATION_LOG.write_text(text, encoding="utf-8", errors="backslashreplace")
