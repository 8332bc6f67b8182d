"""Logs of the service: one JSON object per line, without cookies, tokens, bodies or queries."""

import contextvars
import logging
import re
import sys
import uuid

from pythonjsonlogger.json import JsonFormatter

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""Id of the current request. Empty outside of requests."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _WithRequest(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request"):
            record.request = request_id.get()
        return True


def begin_logs(level: int = logging.INFO) -> None:
    """Write all logs of this process to stdout as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )
    )
    handler.addFilter(_WithRequest())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At level INFO, these log the URL of every request.
    for name in ("httpx", "httpcore", "botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


def chosen_id(given: str | None) -> str:
    """The request id from a proxy if it is valid, else a new one."""
    return given if given and _PLAIN.fullmatch(given) else uuid.uuid4().hex
