"""Choose the number of CPU threads for a step by trying it out during training.

A step has thousands of parallel regions, and all threads wait at the end of each. When another program
occupies a core, every region waits for a time slice, and two threads can be ten times slower than one. So a
run with a time budget sometimes tries fewer threads and keeps the fastest number. Other runs do not, because
the number of threads changes the last bits of the weights, and these runs must be repeatable.
"""

import os
import statistics
from collections.abc import Callable

import torch

TRIAL_STEPS = 3
FIRST_REST, LONGEST_REST = 100, 1600
HOPELESS = 1.5  # times the best so far: one step this slow ends a trial
SLOW, SLOW_STEPS = 2.0, 3  # SLOW_STEPS steps in a row that are SLOW times slower than usual end a rest


class ThreadChoice:
    """Chooses the number of threads of the next step from the times of earlier steps.

    A round tries every candidate for a few steps, then rests with the fastest one. Rests get twice as long
    while the same candidate wins, and end early when steps become slow.
    """

    def __init__(self, most: int, apply: Callable[[int], None]) -> None:
        self._candidates = [most]
        while self._candidates[-1] > 1:
            self._candidates.append(self._candidates[-1] // 2)
        self._apply = apply
        self._rest = FIRST_REST
        self._resting = 0
        self._slow = 0
        self._usual_s = 0.0
        self.threads = most
        self._begin_round()

    def _begin_round(self, *, slow: bool = False) -> None:
        # Try the likely winner first, so that slower candidates are dropped after one step. It is the current number,
        # or the smallest when the current one has become slow.
        self._resting = self._slow = 0
        self._waiting = sorted(self._candidates, key=lambda each: each if slow else each != self.threads)
        self._seconds: dict[int, list[float]] = {}
        self._try(self._waiting.pop(0))

    def _try(self, threads: int) -> None:
        self._trying = threads
        self._seconds[threads] = []
        self._apply(threads)

    def step_took(self, seconds: float) -> None:
        """Call this after each step, with its wall time."""
        if self._resting:
            self._resting -= 1
            self._slow = self._slow + 1 if seconds > SLOW * self._usual_s else 0
            if not self._resting or self._slow == SLOW_STEPS:
                self._begin_round(slow=self._slow == SLOW_STEPS)
            return
        trial = self._seconds[self._trying]
        trial.append(seconds)
        others = [min(each) for threads, each in self._seconds.items() if threads != self._trying]
        hopeless = bool(others) and seconds > HOPELESS * min(others)
        if len(trial) < TRIAL_STEPS and not hopeless:
            return
        if self._waiting:
            self._try(self._waiting.pop(0))
        else:
            self._settle()

    def _settle(self) -> None:
        # Medians, because a single step may be slowed down by an upload or by another program.
        best = min(self._seconds, key=lambda threads: statistics.median(self._seconds[threads]))
        self._rest = min(2 * self._rest, LONGEST_REST) if best == self.threads else FIRST_REST
        self.threads, self._resting = best, self._rest
        self._usual_s = statistics.median(self._seconds[best])
        self._apply(best)


def thread_choice(device: torch.device, *, time_budget: bool) -> ThreadChoice | None:
    """Return None when the number is fixed: on a GPU, by OMP_NUM_THREADS, or for a repeatable run."""
    most = torch.get_num_threads()
    if device.type != "cpu" or not time_budget or "OMP_NUM_THREADS" in os.environ or most == 1:
        return None
    return ThreadChoice(most, torch.set_num_threads)
