"""Our store against boto3 and s5cmd on the same S3 server in the same run: many small objects, a few large objects.

    .venv/bin/python -m benchmarks.object_store [--small 5000] [--small-kb 100] [--large 1] [--large-mb 1000]

boto3 is used as in a simple program: 16 threads, otherwise the defaults of s3transfer; for small objects also one after
the other. s5cmd runs with its defaults, if it is on the PATH or named by `--s5cmd`. All transfer the same bytes. Ours
also verifies checksums and syncs each file, the others do not. AWS_ENDPOINT_URL names the server. Without it, moto's
server is started, which is slow itself and hides much of the difference. Rounds take turns in who begins. The median of
the rounds' ratios counts. Prints one line per case, and the peak memory of a process that does the four with ours.

ext4 creates files slowly for minutes after many were removed. So downloads come first, and are removed after the last
round: `rounds` x 4 x `small` x `small-kb` on the disk. Begin 5 minutes after anything else that removes many files.
"""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import boto3
import typer
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from benchmarks.memory import peak_kib
from object_store import open_store

THREADS = 16
ONE_AT_A_TIME = "boto3, one at a time"
SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.disable(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """Use the server in AWS_ENDPOINT_URL, or start moto's. Yield its name for the report."""
    if "AWS_ENDPOINT_URL" in os.environ:
        yield os.environ["AWS_ENDPOINT_URL"]
        return
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        os.environ["AWS_ENDPOINT_URL"] = process.stdout.readline().strip()
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
        yield "moto"
        process.kill()


class ByHand:
    """The baseline: boto3 with a thread pool for many files, and with its own parts for large files."""

    def __init__(self, bucket: str) -> None:
        region = os.environ.get("AWS_REGION", "us-east-1")
        self.client = boto3.client("s3", region_name=region, config=Config(max_pool_connections=THREADS))
        self.bucket = bucket

    def put_folder(self, folder: Path, threads: int = THREADS) -> None:
        """Upload all files, 16 in parallel."""
        config = TransferConfig(use_threads=False)

        def put(path: Path) -> None:
            self.client.upload_file(str(path), self.bucket, f"boto3/{path.name}", Config=config)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(put, folder.iterdir()))

    def get_folder(self, folder: Path, threads: int = THREADS) -> None:
        """List and download all files, 16 in parallel."""
        folder.mkdir(parents=True)
        config = TransferConfig(use_threads=False)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="boto3/")

        def get(key: str) -> None:
            self.client.download_file(self.bucket, key, str(folder / Path(key).name), Config=config)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(get, (entry["Key"] for page in pages for entry in page.get("Contents", []))))

    def put_large(self, folder: Path) -> None:
        """Upload the files one after the other, 16 parts in parallel."""
        for path in folder.iterdir():
            config = TransferConfig(max_concurrency=THREADS)
            self.client.upload_file(str(path), self.bucket, f"boto3-large/{path.name}", Config=config)

    def get_large(self, names: list[str], folder: Path) -> None:
        """Download the files one after the other, 16 ranges in parallel."""
        folder.mkdir(parents=True)
        for name in names:
            config = TransferConfig(max_concurrency=THREADS)
            self.client.download_file(self.bucket, f"boto3-large/{name}", str(folder / name), Config=config)


class S5cmd:
    """The program s5cmd, with its defaults."""

    def __init__(self, program: str, bucket: str) -> None:
        self._program = program
        self._url = f"s3://{bucket}/s5cmd"

    def put(self, folder: Path) -> None:
        """Upload all files."""
        self._run("cp", f"{folder}/", f"{self._url}/{folder.name}/")

    def get(self, name: str, folder: Path) -> None:
        """Download all objects that were uploaded from a folder of this name."""
        self._run("cp", f"{self._url}/{name}/*", f"{folder}/")

    def remove(self) -> None:
        """Delete everything."""
        self._run("rm", f"{self._url}/*")

    def _run(self, *arguments: str) -> None:
        command = [self._program, "--endpoint-url", os.environ["AWS_ENDPOINT_URL"], *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_files(folder: Path, count: int, size: int) -> Path:
    """Write files of random bytes."""
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number:05}").open("wb") as file:
            for start in range(0, size, 1_000_000):
                file.write(os.urandom(min(1_000_000, size - start)))
    return folder


def seconds(work: Callable[[Path], object], scratch: Path) -> float:
    """Time one call. It gets a path that does not exist and may create a folder there."""
    start = time.perf_counter()
    work(scratch)
    return time.perf_counter() - start


def own_peak_kib(url: str, folder: Path) -> int:
    """Transfer all files both ways with our store. Return the peak memory of the process."""
    store = open_store(url)
    store.put_folder(folder / "small", "ours")
    store.get_many(store.list("ours"), folder / "own")
    for path in (folder / "large").iterdir():
        store.put_file(path, f"ours-large/{path.name}")
        store.get_file(f"ours-large/{path.name}", folder / "own" / path.name)
    shutil.rmtree(folder / "own")
    return peak_kib()


def main(
    small: Annotated[int, typer.Option(help="number of small objects")] = 5000,
    small_kb: Annotated[int, typer.Option(help="size of a small object in kB")] = 100,
    large: Annotated[int, typer.Option(help="number of large objects")] = 1,
    large_mb: Annotated[int, typer.Option(help="size of a large object in MB")] = 1000,
    rounds: Annotated[int, typer.Option(help="the median of so many counts")] = 7,
    s5cmd: Annotated[str, typer.Option(help="the program s5cmd")] = "s5cmd",
) -> None:
    """Run the four cases."""
    with s3_server() as server, tempfile.TemporaryDirectory() as temporary:
        bucket = f"bench-{uuid.uuid4()}"
        by_hand = ByHand(bucket)
        by_hand.client.create_bucket(Bucket=bucket)
        store = open_store(f"s3://{bucket}")
        folder = Path(temporary)
        many = make_files(folder / "small", small, small_kb * 1000)
        few = make_files(folder / "large", large, large_mb * 1_000_000)
        names = [path.name for path in few.iterdir()]
        ours, ours_large = store.child("ours"), store.child("ours-large")

        def put_large(_: Path) -> None:
            for name in names:
                ours_large.put_file(few / name, name)

        def get_large(scratch: Path) -> None:
            for name in names:
                ours_large.get_file(name, scratch / name)

        small_text = f"{small} x {small_kb} kB"
        large_text = f"{large} x {large_mb} MB"
        other = S5cmd(s5cmd, bucket) if shutil.which(s5cmd) else None
        if other is None:
            print(f"there is no program {s5cmd}: left out")
        gets: dict[str, dict[str, Callable[[Path], object]]] = {
            f"get_many   {small_text}": {
                "ours": lambda to: ours.get_many(ours.list(), to),
                "boto3 with 16 threads": by_hand.get_folder,
                ONE_AT_A_TIME: lambda to: by_hand.get_folder(to, 1),
                "s5cmd": lambda to: other and other.get("small", to),
            },
            f"get_file   {large_text}": {
                "ours": get_large,
                "boto3 with 16 threads": lambda to: by_hand.get_large(names, to),
                "s5cmd": lambda to: other and other.get("large", to),
            },
        }
        puts: dict[str, dict[str, Callable[[Path], object]]] = {
            f"put_folder {small_text}": {
                "ours": lambda _: ours.put_folder(many, ""),
                "boto3 with 16 threads": lambda _: by_hand.put_folder(many),
                ONE_AT_A_TIME: lambda _: by_hand.put_folder(many, 1),
                "s5cmd": lambda _: other and other.put(many),
            },
            f"put_file   {large_text}": {
                "ours": put_large,
                "boto3 with 16 threads": lambda _: by_hand.put_large(few),
                "s5cmd": lambda _: other and other.put(few),
            },
        }
        for ways in puts.values():
            for way in set(ways) - {ONE_AT_A_TIME}:
                ways[way](folder)  # the downloads find these
        for name, ways in (gets | puts).items():
            used = [way for way in ways if other is not None or way != "s5cmd"]
            taken: dict[str, list[float]] = {way: [] for way in used}
            for number in range(rounds):
                first = number % len(used)
                for way in used[first:] + used[:first]:
                    out = folder / "out" / f"{number}-{way}"
                    taken[way].append(seconds(ways[way], out))
                    if name.startswith("get_file"):
                        shutil.rmtree(out)
            shutil.rmtree(folder / "out", ignore_errors=True)
            print(f"{name}: {statistics.median(taken['ours']):.2f} s", end="")
            for way in used[1:]:
                ratio = statistics.median(them / us for us, them in zip(taken["ours"], taken[way], strict=True))
                print(f"; {way} {statistics.median(taken[way]):.2f} s, {ratio:.2f} x as fast", end="")
            print(f" ({server})", flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other_process:
            peak = other_process.submit(own_peak_kib, f"s3://{bucket}", folder).result()
        print(f"peak memory of ours {peak / 1024:.0f} MiB")
        if other is not None:
            other.remove()
        for prefix in ["ours", "ours-large", "boto3", "boto3-large"]:
            store.delete_prefix(prefix)
        by_hand.client.delete_bucket(Bucket=bucket)


if __name__ == "__main__":
    typer.run(main)
