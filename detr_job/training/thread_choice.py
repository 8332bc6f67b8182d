"""How many threads a step gets on a CPU, tried out while training.

A step has thousands of parallel regions that end together. When another program holds one of the
cores, every region waits for a time slice, and two threads can be ten times slower than one. So a run
under a time budget tries fewer threads now and then and keeps what is fastest. Other runs do not: the
number of threads changes the last bits of the weights, and they promise to repeat.
"""

import os
import statistics
from collections.abc import Callable

import torch

TRIAL_STEPS = 3
FIRST_REST, LONGEST_REST = 100, 1600
HOPELESS = 1.5  # times the best so far: one such step is enough
SLOW, SLOW_STEPS = 2.0, 3  # so many steps in a row, so many times slower than usual, end a rest


class ThreadChoice:
    """Told how long each step took, says how many threads the next one gets.

    A round tries every candidate for a few steps, then rests with the fastest; rests double as long as
    the same one wins, and end when steps become slow.
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
        # The likely winner first, so that what is slower is given up after one step: the present one, or
        # the fewest threads when the present one has become slow.
        self._resting = self._slow = 0
        self._waiting = sorted(self._candidates, key=lambda each: each if slow else each != self.threads)
        self._seconds: dict[int, list[float]] = {}
        self._try(self._waiting.pop(0))

    def _try(self, threads: int) -> None:
        self._trying = threads
        self._seconds[threads] = []
        self._apply(threads)

    def step_took(self, seconds: float) -> None:
        """Call after each step, with its wall time."""
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
        # Medians: a step of several may have met an evaluation's upload or another program's burst.
        best = min(self._seconds, key=lambda threads: statistics.median(self._seconds[threads]))
        self._rest = min(2 * self._rest, LONGEST_REST) if best == self.threads else FIRST_REST
        self.threads, self._resting = best, self._rest
        self._usual_s = statistics.median(self._seconds[best])
        self._apply(best)


def thread_choice(device: torch.device, *, time_budget: bool) -> ThreadChoice | None:
    """None where the number is fixed: on a GPU, by OMP_NUM_THREADS, or by the promise to repeat."""
    most = torch.get_num_threads()
    if device.type != "cpu" or not time_budget or "OMP_NUM_THREADS" in os.environ or most == 1:
        return None
    return ThreadChoice(most, torch.set_num_threads)
