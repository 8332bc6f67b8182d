"""Whatever is said of a run, it is taken or refused with a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import DataPrepError
from data_prep.sources.names import source_places
from run_config.errors import ConfigError
from run_config.installation import parse_installation
from run_config.job.presets import load_job_config
from run_config.parameters import TEMPLATES, pairs, parse, split_overrides
from run_config.step_parameters import texts_from_json
from tests.hostile.parameters import hostile_parameters

CASES = 300


def test_parameters_are_taken_or_refused_with_a_sentence(tmp_path: Path):
    taken = 0
    for seed in range(CASES):
        case = hostile_parameters(seed, tmp_path / str(seed))
        readers: list[Callable[[], Any]] = [
            lambda case=case: texts_from_json(case.parameters_json),
            lambda case=case: parse(case.texts, TEMPLATES.get(case.template, TEMPLATES["detr-train"])),
            lambda case=case: pairs(case.overrides),
            lambda case=case: split_overrides("\n".join(case.texts.values())),
            lambda case=case: load_job_config(case.model, case.overrides),
            lambda case=case: (
                parse_installation(Path(case.model).read_text(errors="replace"), "x") if "/" in case.model else None
            ),
            lambda case=case: source_places(case.texts.values()),
        ]
        for number, read in enumerate(readers):
            try:
                read()
                taken += 1
            except (ConfigError, DataPrepError) as error:
                sentence = str(error)
                if len(sentence) < 10:
                    pytest.fail(f"seed {seed}, reader {number}: {sentence!r}")
            except Exception as error:
                raise AssertionError(f"seed {seed}, reader {number}: {error!r}") from error
    assert taken > CASES
