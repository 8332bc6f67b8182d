"""Large files pass through a bounded amount of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_object

SIZE = 320 << 20
MOST_GROWTH_KB = {"get": 70 << 10, "put": 200 << 10}  # chunks, or 80 MiB of parts, and the allocator's share

MOVER = r"""
import pathlib, re, sys
from object_store import open_store

def most_memory_kb():
    return int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())[1])

verb, url, path = sys.argv[1:]
store = open_store(url)
store.head("x")
before = most_memory_kb()
store.get_file("x", path) if verb == "get" else store.put_file(path, "x")
print(most_memory_kb() - before)
"""


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_large_file_needs_less_memory_than_it_has_bytes(answering_server: AnsweringServer, tmp_path: Path, verb: str):
    zeros = bytes(SIZE)

    def answer(request: Request) -> Reply:
        if request.method == "POST" and "uploadId" not in request.path:
            return Reply(200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        if request.method == "POST":
            return Reply(200, b"<CompleteMultipartUploadResult><ETag>weak</ETag></CompleteMultipartUploadResult>")
        if request.method == "PUT":
            return Reply(200, b"", {"ETag": '"part"'})
        return s3_object(zeros, "weak", request)

    answering_server.answer = answer
    path = tmp_path / "large"
    if verb == "put":
        path.touch()
        with path.open("r+b") as file:
            file.truncate(SIZE)
    command = [sys.executable, "-c", MOVER, verb, "s3://bucket", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert path.stat().st_size == SIZE
    assert int(done.stdout) < MOST_GROWTH_KB[verb]
