"""Argo shows how far a step is, and shows it as complete only when it is."""

from pathlib import Path

import pytest

from run_config.argo_progress import ArgoProgress


@pytest.mark.parametrize(
    ("parts", "done", "finished", "text"),
    [
        (1, 0.0, False, "0/100\n"),
        (1, 0.29, False, "29/100\n"),
        (1, 1.0, False, "99/100\n"),
        (1, 1.0, True, "100/100\n"),
        (2, 1.5, False, "150/200\n"),
        (2, 2.0, True, "200/200\n"),
    ],
)
def test_a_step_is_complete_only_when_it_is_finished(
    tmp_path: Path, parts: int, done: float, finished: bool, text: str
) -> None:
    path = tmp_path / "progress"
    ArgoProgress({"ARGO_PROGRESS_FILE": str(path)}, parts).tell(done, finished=finished)
    assert path.read_text() == text


def test_attempts_after_a_lost_pod_count_so_much_that_the_sum_of_a_good_run_is_right(tmp_path: Path) -> None:
    def told(attempt: str, done: float, *, finished: bool = False) -> tuple[int, int]:
        path = tmp_path / "progress"
        ArgoProgress({"ARGO_PROGRESS_FILE": str(path), "STEP_ATTEMPT": attempt}).tell(done, finished=finished)
        done_units, total = map(int, path.read_text().split("/"))
        return done_units, total

    others = [(1, 1)] * 4
    lost = [told("0", 0.29), told("1", 0.64)]
    assert lost == [(29, 100), (6400, 10_000)]
    running = [*others, *lost, told("2", 0.7)]
    assert sum(n for n, _ in running) / sum(m for _, m in running) == pytest.approx(0.7, abs=0.01)
    good = [*others, *lost, told("2", 1.0, finished=True)]
    assert sum(n for n, _ in good) / sum(m for _, m in good) > 0.99
    # Argo adds 64-bit numbers, and a step may have many attempts.
    assert told("4", 1.0, finished=True) == told("50", 1.0, finished=True) == (10**10, 10**10)


def test_no_argo_and_a_file_that_cannot_be_written_do_not_matter(tmp_path: Path) -> None:
    ArgoProgress({}).tell(0.5)
    ArgoProgress({"ARGO_PROGRESS_FILE": str(tmp_path / "none" / "progress")}).tell(0.5)
    assert list(tmp_path.iterdir()) == []
