"""A command's process ends in time and with its exit code, whatever still hangs in it."""

import signal
import subprocess
import sys
import time

import pytest

START = """
import atexit, ctypes, sys, threading, time
from detr_job import leaving
from detr_job.errors import Interrupted, JobError
from run_config import command_line
leaving.LEAVE_WITHIN_S = 1.0

def end(error=None):
    if error is not None:
        raise error

def wait():
    print("waiting", flush=True)
    time.sleep(600)

def fails_and_hangs():
    try:
        with leaving.in_time():
            raise Interrupted("a passing fault")
    finally:
        wait()

def ignores_the_request():
    try:
        wait()
    except BaseException:
        wait()

def waits_for_a_lock():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    threading.Timer(0.5, print, ["waiting"], {"flush": True}).start()
    libc.pthread_mutex_lock(mutex)

def leaves_threads_and_handlers():
    threading.Thread(target=time.sleep, args=(600,)).start()
    atexit.register(time.sleep, 600)
    print("done")

def fails():
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise ZeroDivisionError("nobody handles this")
"""


def start(command: str) -> subprocess.Popen[str]:
    program = f"{START}\nleaving.run_to_the_end({command})"
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize(
    ("command", "code"), [("end", 0), ("lambda: end(SystemExit(2))", 2), ("lambda: end(SystemExit())", 0)]
)
def test_the_exit_code_is_the_commands(command: str, code: int):
    assert outcome(start(command)) == (code, "", "")


def test_threads_and_exit_handlers_do_not_hold_the_process():
    assert outcome(start("leaves_threads_and_handlers")) == (0, "done\n", "")


def test_an_exception_that_nobody_handles_keeps_its_traceback_and_ends_the_process():
    code, _, errors = outcome(start("fails"))
    assert code == 1
    assert errors.startswith("Traceback")
    assert errors.endswith("ZeroDivisionError: nobody handles this\n")


def test_sigterm_ends_a_command_that_does_not_handle_it():
    process = start("wait")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert outcome(process) == (75, "", "error: stopped by SIGTERM; start the run again to resume\n")


@pytest.mark.parametrize(
    ("command", "place"),
    [("ignores_the_request", "wait"), ("waits_for_a_lock", "waits_for_a_lock")],
)
def test_a_process_that_hangs_after_sigterm_is_ended_and_says_where_it_hung(command: str, place: str):
    process = start(command)
    assert process.stdout is not None
    process.stdout.readline()
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, _, errors = outcome(process)
    assert code == 75
    assert time.monotonic() - sent < 30
    assert errors.startswith(f"error: the process did not end within 1 s after SIGTERM (busy in {place}, ")
    assert errors.endswith(") and was killed; start the run again to resume\n")


def test_a_cleanup_that_hangs_after_a_failure_is_ended_with_the_failures_code():
    code, _, errors = outcome(start("fails_and_hangs"))
    assert code == 75
    assert "did not end within 1 s after its work failed with Interrupted (busy in wait, " in errors
