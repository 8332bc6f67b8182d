"""What all command lines of the project share: error messages of one line, and the exit codes.

An exception with the attribute `exit_code` is meant for the user: its message is all that is printed. 2 means that the
input or a parameter is wrong. 75 means a temporary fault: a retry resumes the work. An exception without the attribute
is a bug of ours and keeps its traceback.

`app.callback()(top_options)` adds the options that come before a sub-command.
"""

import contextlib
import itertools
import math
import os
import select
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from run_config.argo_text import without_tags
from run_config.errors import ConfigError
from run_config.exit_codes import INTERRUPTED, READER_GONE, WRONG_INPUT

TERMINATION_LOG = Path("/dev/termination-log")


def code_version() -> str:
    """The installed version, followed by the commit if the image states it: two commits may share a version."""
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
    """Define the options. A callback also makes typer keep sub-commands, even a single one."""


def share(text: str, option: str) -> float | None:
    """Parse a number from 0 to 1. None: the option is empty. Raises ConfigError: when it is anything else."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"{option}: {text[:80]!r} is not allowed; use a number from 0 to 1, or leave it empty")
    return value


PLACES = ("--out", "-o", "--output", "--to", "--report", "--scratch")
"""Options that name a file or folder."""


def _refuse_empty_places(words: Sequence[str]) -> None:
    """Raise ConfigError for an empty place, as of a variable that is not set: it would mean the current folder."""
    for before, word in itertools.pairwise(("", *words)):
        option, equals, value = word.partition("=")
        empty = option if equals and not value else before if not word else ""
        if empty in PLACES or (not word and not before.startswith("-")):
            what = empty if empty in PLACES else "an argument"
            raise ConfigError(f"{what} is empty: name a file or folder ('.' is the current one)")


def run(app: typer.Typer) -> NoReturn:
    """Run a command line and exit with one of the project's exit codes.

    The last line on stderr and the container's termination log say what was wrong.
    """
    command = typer.main.get_command(app)
    try:
        _refuse_empty_places(sys.argv[1:])
        with command.make_context(_program(), sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted; run the same command again to resume", INTERRUPTED)
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        # The reader has closed the pipe (`| head`), so nothing can be printed. Not 0: the work may not be finished.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_GONE)
    except UnicodeEncodeError as error:
        if not "\udc80" <= error.object[error.start] <= "\udcff":  # how Python keeps other bytes of paths and arguments
            raise
        fail(
            f"{error.object[:200]!r} is not valid UTF-8: rename the file or folder, or type the text again", WRONG_INPUT
        )
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            _fail_with_usage(error)
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        fail(str(error), code)
    sys.exit(0)


def called_as() -> str:
    """What the user types to call this program: its name if it is on the PATH, else the path that was typed."""
    called = Path(sys.argv[0])
    found = shutil.which(called.name)
    is_found = found is not None and os.path.realpath(found) == os.path.realpath(called)
    return called.name if is_found else shlex.quote(str(called))


def _program() -> str:
    """The name of the program, as the user called it."""
    called = Path(sys.argv[0])
    return f"python -m {called.parent.name}" if called.name == "__main__.py" else called.name


def _reader_has_gone() -> bool:
    """Whether the closed pipe is our standard output, and not another pipe."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _fail_with_usage(error: Exception) -> NoReturn:
    """Report a wrong option: the message, and the command that shows the help."""
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)  # the help itself; with colours it was printed before
        message = "a command is missing"
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    fail(message + hint, getattr(error, "exit_code", WRONG_INPUT))


def fail(message: str, code: int) -> NoReturn:
    """Print the message as one line, write it to the termination log of Kubernetes, and exit."""
    message = " ".join(message.splitlines())
    with contextlib.suppress(BrokenPipeError):  # print earlier output first
        sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    leave_termination_message(message)
    sys.exit(code)


def leave_termination_message(message: str) -> None:
    """Write the message to the termination log of Kubernetes."""
    # The file exists only in a container, where the kubelet mounts it.
    if TERMINATION_LOG.exists():
        with contextlib.suppress(OSError):
            # Argo shows it as the message of the node. The kubelet reads at most 4096 bytes.
            text = without_tags(message)[:1000]
            TERMINATION_LOG.write_text(text, encoding="utf-8", errors="backslashreplace")
