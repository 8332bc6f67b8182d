"""Mutated exports, weights, webhooks and parameters: each is accepted or refused in one sentence, never a traceback.

    python -m benchmarks.hostile_input                                         2,500 of each kind, 10,000 in all
    python -m benchmarks.hostile_input --kind exports --seed 17 --count 1      one of them again

The inputs come from `tests/hostile`, drawn from their seed alone. Each kind is read in processes of 250 inputs, with a
limit of memory and a limit of seconds for one input. The first input that raises anything but an error of ours, takes
too long or ends its process stops everything: its seed and its traceback are printed, and the exit code is 1.
"""

import argparse
import faulthandler
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.hostile_readers import READERS

BATCH = 250
"""Inputs that one process reads: what leaks adds up, and starting costs less than the inputs."""
LIMIT_S = 30
"""For one input, on a busy machine; most take milliseconds."""
HEADROOM_MIB = 1024
"""Address space beyond what a process has when the first input comes."""
TOLD = ("started", "accepted", "refused", "peak")
"""What a process says on stdout: how far it is, how each input ended, and its peak memory in MiB."""


def read_batch(kind: str, seeds: range) -> None:
    """Read these inputs in this process and tell on stdout how each ended; anything unexpected is raised."""
    faulthandler.enable()
    with READERS[kind]() as read, tempfile.TemporaryDirectory() as scratch:
        limit_memory()
        for seed in seeds:
            print("started", seed, flush=True)
            folder = Path(scratch, str(seed))
            folder.mkdir()
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            taken = read(seed, folder)
            faulthandler.cancel_dump_traceback_later()
            print("accepted" if taken else "refused", seed, flush=True)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


def limit_memory() -> None:
    """No allocation beyond the headroom: what would fill a node becomes a MemoryError here."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def measure(kind: str, seeds: range) -> str:
    """Read them all and return the line about it; raises SystemExit at the first that escapes."""
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
    """What a process told that read these inputs; raises SystemExit when one of them escaped."""
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
    """Read what was asked for, one line for each kind."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kind", choices=READERS, help="only this kind")
    options.add_argument("--seed", type=int, default=0, help="the first seed")
    options.add_argument("--count", type=int, default=2500, help="inputs of each kind")
    options.add_argument("--batch", action="store_true", help="read in this process, and raise what escapes")
    chosen = options.parse_args()
    seeds = range(chosen.seed, chosen.seed + chosen.count)
    if chosen.batch:
        read_batch(chosen.kind, seeds)
        return
    for kind in [chosen.kind] if chosen.kind else READERS:
        print(measure(kind, seeds), flush=True)


if __name__ == "__main__":
    main()
