"""The number of threads follows what is fastest, without losing many steps to finding out."""

import torch

from detr_job.training.thread_choice import LONGEST_REST, ThreadChoice, thread_choice


class Machine:
    """Steps take as long as the present number of threads makes them."""

    def __init__(self, most: int, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.used: list[int] = []
        self.present = most
        self.choice = ThreadChoice(most, self.set)

    def set(self, threads: int) -> None:
        self.present = threads

    def run(self, steps: int) -> list[int]:
        for _ in range(steps):
            self.used.append(self.present)
            self.choice.step_took(self.seconds[self.present])
        return self.used[-steps:]


def test_all_threads_are_used_where_they_are_fastest() -> None:
    machine = Machine(4, {4: 0.1, 2: 0.15, 1: 0.3})
    used = machine.run(2000)
    assert machine.choice.threads == 4
    assert used.count(4) > 1950


def test_one_thread_is_used_where_another_program_holds_a_core() -> None:
    machine = Machine(2, {2: 3.0, 1: 0.17})
    machine.run(20)
    assert machine.choice.threads == 1


def test_a_hopeless_candidate_costs_one_step_a_round() -> None:
    machine = Machine(2, {2: 3.0, 1: 0.17})
    machine.run(20)
    later = machine.run(4 * LONGEST_REST)
    assert 1 <= later.count(2) <= 8


def test_the_choice_follows_when_the_machine_becomes_quiet_again() -> None:
    machine = Machine(2, {2: 3.0, 1: 0.17})
    machine.run(20)
    machine.seconds[2] = 0.11
    machine.run(LONGEST_REST)
    assert machine.choice.threads == 2


def test_a_program_that_starts_in_the_middle_is_noticed_at_once() -> None:
    machine = Machine(2, {2: 0.11, 1: 0.17})
    machine.run(3000)
    machine.seconds[2] = 3.0
    assert machine.run(20).count(2) <= 5
    assert machine.choice.threads == 1


def test_one_slow_step_changes_nothing() -> None:
    machine = Machine(2, {2: 0.11, 1: 0.17})
    machine.run(20)
    machine.seconds[2] = 3.0
    machine.run(1)
    machine.seconds[2] = 0.11
    assert machine.run(50).count(1) == 0


def test_runs_that_promise_to_repeat_keep_their_threads() -> None:
    assert thread_choice(torch.device("cpu"), time_budget=False) is None
    assert thread_choice(torch.device("cuda"), time_budget=True) is None
