"""Mutated exports, weights, webhooks and parameters: each is accepted, or refused in one sentence without traceback.

    python -m benchmarks.hostile_input                                         10,000 formats, 2,500 of the others
    python -m benchmarks.hostile_input --kind exports --seed 17 --count 1      repeat one of them

`tests/hostile` generates each input from its seed. Each process reads 250 inputs of one kind, with a memory limit and a
time limit for each input. The benchmark stops at the first input that raises an exception other than our errors,
exceeds the time or ends its process. Then its seed and its traceback are printed, and the exit code is 1.
"""

import argparse
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.hostile_readers import READERS
from benchmarks.memory import peak_kib

BATCH = 250
"""Number of inputs per process: enough that leaks add up, and that the start costs less than the inputs."""
LIMIT_S = 30
"""Processor time for one input, or a tenth of its longest time in all. Most take milliseconds."""
HEADROOM_MIB = 1024
"""Address space that a process may add after its start."""
TOLD = ("started", "accepted", "refused", "peak")
"""What a process prints to stdout: its progress, the result of each input, and its peak memory in MiB."""


def read_batch(kind: str, seeds: range) -> None:
    """Read these inputs in this process, and print the result of each. Unexpected exceptions are not caught."""
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # prints the traceback; then the process ends
    with READERS[kind]() as read, tempfile.TemporaryDirectory() as scratch:
        limit_memory()
        for seed in seeds:
            print("started", seed, flush=True)
            folder = Path(scratch, str(seed))
            folder.mkdir()
            faulthandler.dump_traceback_later(10 * LIMIT_S, exit=True)
            signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
            taken = read(seed, folder)
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
            print("accepted" if taken else "refused", seed, flush=True)
    print("peak", peak_kib() // 1024, flush=True)


def limit_memory() -> None:
    """Limit the address space to the headroom, so that what would fill a node raises a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def measure(kind: str, seeds: range) -> str:
    """Read all inputs and return a summary. Raises SystemExit: at the first input that causes an unexpected error."""
    told: list[tuple[str, int]] = []
    for first in range(seeds.start, seeds.stop, BATCH):
        told += run_batch(kind, range(first, min(first + BATCH, seeds.stop)))
    endings = [word for word, _ in told]
    peak_mib = max(number for word, number in told if word == "peak")
    return (
        f"{kind}: {endings.count('started'):,} inputs, {endings.count('accepted'):,} accepted, "
        f"{endings.count('refused'):,} refused in one sentence, 0 tracebacks; peak memory {peak_mib:,} MiB"
    )


def run_batch(kind: str, seeds: range) -> list[tuple[str, int]]:
    """Read inputs in a new process, and return its output. Raises SystemExit: when one caused an unexpected error."""
    command = [sys.executable, "-m", "benchmarks.hostile_input", "--kind", kind, "--batch"]
    command += ["--seed", str(seeds.start), "--count", str(len(seeds))]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    told = [(line[0], int(line[1])) for line in lines if len(line) == 2 and line[0] in TOLD]
    if done.returncode == 0 and told and told[-1][0] == "peak":
        return told
    started = [seed for word, seed in told if word == "started"]
    last = f"seed {started[-1]} escaped" if started else "no input was read"
    again = f"--seed {started[-1]} --count 1" if started else f"--seed {seeds.start}"
    raise SystemExit(
        f"{done.stderr[-4000:]}\n{kind}: {last} (exit code {done.returncode}); again: "
        f"python -m benchmarks.hostile_input --kind {kind} {again}"
    )


def main() -> None:
    """Read the inputs that the options select, and print one line for each kind."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kind", choices=READERS, help="only this kind")
    options.add_argument("--seed", type=int, default=0, help="the first seed")
    options.add_argument("--count", type=int, help="inputs of each kind; default: 10,000 formats, 2,500 of the others")
    options.add_argument("--batch", action="store_true", help="read in this process, and raise what escapes")
    chosen = options.parse_args()
    for kind in [chosen.kind] if chosen.kind else READERS:
        count = chosen.count or (10_000 if kind == "formats" else 2500)
        seeds = range(chosen.seed, chosen.seed + count)
        if chosen.batch:
            read_batch(kind, seeds)
        else:
            print(measure(kind, seeds), flush=True)


if __name__ == "__main__":
    main()
