"""What all command lines of the project share: one line for a user's mistake, and the exit code contract.

An exception that carries `exit_code` is meant for the person who called: its message is the whole
answer. 2 means that the input or a parameter is wrong, 75 that a fault passes and a retry resumes.
Anything without the attribute is our bug and keeps its traceback.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import typer

WRONG_INPUT = 2
PASSING_FAULT = 75
INTERRUPTED = 130

TERMINATION_LOG = Path("/dev/termination-log")


def run(app: typer.Typer) -> NoReturn:
    """Run a command line and leave the process with the contract's exit code.

    The last line on stderr and the container's termination log say what was wrong.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on where it was", INTERRUPTED)
    except typer.Abort:
        fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): nothing is left to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            _fail_with_usage(error)
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        fail(str(error), code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail_with_usage(error: Exception) -> NoReturn:
    """A wrong option: the message, and where help is."""
    context = getattr(error, "ctx", None)
    hint = f" (see `{context.command_path} --help`)" if context is not None else ""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    fail(message.replace("\n", " ") + hint, getattr(error, "exit_code", WRONG_INPUT))


def fail(message: str, code: int) -> NoReturn:
    """Print the sentence, leave it where Kubernetes picks it up, and exit."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    # Outside a container there is no such file; inside it is a mount that the kubelet made for us.
    if TERMINATION_LOG.exists():
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_text(message[:4000])
    sys.exit(code)
