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


def test_no_argo_and_a_file_that_cannot_be_written_do_not_matter(tmp_path: Path) -> None:
    ArgoProgress({}).tell(0.5)
    ArgoProgress({"ARGO_PROGRESS_FILE": str(tmp_path / "none" / "progress")}).tell(0.5)
    assert list(tmp_path.iterdir()) == []
