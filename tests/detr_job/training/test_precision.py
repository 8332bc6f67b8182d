"""The precision of a run: asked for, as it began, known from the hardware, or measured once."""

import json
import math

import pytest
import torch

from detr_job import hardware
from detr_job.prediction.predictor import Predictor
from detr_job.training import precision
from detr_job.training.precision import bf16_speed, with_precision
from object_store import open_store
from prepared_set.reader import LocalSet, PreparedSet
from run_config.job.presets import load_job_config
from tests.detr_job.training_runs import Run, make_set

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalSet:
    folder = tmp_path_factory.mktemp("set")
    store = open_store(f"file://{folder}/store")
    return PreparedSet.open(store, make_set(folder / "made", store, images=12)).pull(folder / "pulled")


def settle(monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, began: str | None, asked: str, speed: float):
    """Precision and reason on a processor that is `speed` times as fast in bf16. NaN: measuring is an error."""

    def measured(*_: object) -> float:
        assert not math.isnan(speed), "this needs no measurement"
        return speed

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(hardware, "hardware_name", lambda _: "the processor")
    monkeypatch.setattr(precision, "bf16_speed", measured)
    config = load_job_config("tiny", [f"training.precision={asked}"])
    config, chosen, reason = with_precision(config, began, None, CPU)  # type: ignore[arg-type]  # the set is only measured on
    assert hardware.use_bf16(config.training, CPU) is (chosen == "bf16")
    return chosen, reason


NO = math.nan


@pytest.mark.parametrize(
    ("amx", "avx512", "began", "asked", "speed", "chosen", "why"),
    [
        (True, True, None, "auto", NO, "bf16", "the hardware computes it fast"),
        (False, False, None, "auto", NO, "fp32", "the hardware has no bf16"),
        (False, True, None, "auto", 1.41, "bf16", "a step in bf16 is 1.41 times as fast as in fp32 on this processor"),
        (
            False,
            True,
            None,
            "auto",
            1.09,
            "fp32",
            "a step in bf16 is 1.09 times as fast as in fp32 on this processor, and 1.1 times would pay",
        ),
        (False, True, "bf16", "auto", NO, "bf16", "in which this run began"),
        (True, True, "fp32", "auto", NO, "fp32", "in which this run began"),
        (False, False, "bf16", "auto", NO, "fp32", "this run began in bf16, which the processor lacks"),
        (False, True, "fp32", "bf16", NO, "bf16", "as the settings say"),
        (True, True, None, "fp32", NO, "fp32", "as the settings say"),
    ],
)
def test_a_run_trains_in_what_was_asked_for_or_began_or_is_faster(
    amx: bool,
    avx512: bool,
    began: str | None,
    asked: str,
    speed: float,
    chosen: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
):
    assert settle(monkeypatch, amx, avx512, began, asked, speed) == (chosen, why)


def test_a_measurement_is_of_the_model_itself_and_changes_no_random_number(local: LocalSet):
    config = load_job_config("tiny", ["data.min_sizes=[32]", "data.max_size=48", "data.eval_size=32"])
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    assert bf16_speed(config, local, CPU) > 0
    assert torch.equal(torch.rand(3), expected)


def test_the_first_start_decides_for_all(run: Run):
    """The second start does not measure, and says that it keeps what the first one chose."""
    run = run.with_options({"schedule.steps": 3, "training.precision": "auto"})
    first = run.ends().says()
    (chosen,) = (line for line in first.splitlines() if "training.precision=" in line)
    written = json.loads(run.stored.get_bytes("run.json"))
    assert written["config"]["training"]["precision"] == "auto"
    stored = written["precision"]
    assert f"training.precision={stored} (" in chosen
    assert Predictor(str(run.out / "model"), CPU).bf16 is (stored == "bf16")
    assert f"training.precision={stored} (in which this run began)" in run.ends().says()
