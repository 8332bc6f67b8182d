"""Wait for processes of a benchmark, and measure their CPU time."""

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx


def processor_s(pid: int) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Wait until `url` responds with status 200. Raises SystemExit: when the process ends before."""
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"what should answer at {url} ended")
