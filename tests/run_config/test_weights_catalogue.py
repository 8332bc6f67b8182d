"""The catalogue of published weights: complete, permissive by default, and free of licences that forbid use."""

import re
from dataclasses import replace

import pytest

from run_config.errors import ConfigError
from run_config.installation import parse_installation
from run_config.job.preset_files import preset_names
from run_config.weights.catalogue import CATALOGUE, PERMISSIVE, on_offer, published


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: one.name)
def test_every_entry_names_a_preset_and_files_behind_tls(one):
    assert one.preset in preset_names()
    assert one.files
    for file in one.files:
        assert re.fullmatch(r"https://[a-z.]+(/[\w.-]+)*", file.host)
        assert file.path.endswith((".pth", ".safetensors", ".bin"))
        assert re.fullmatch(r"[0-9a-f]{32}|", file.md5)
        assert re.fullmatch(r"[0-9a-f]{8}|", file.sha256)


def test_names_are_unique_and_each_fine_tuning_preset_has_weights_of_its_name():
    assert len(on_offer()) == len(CATALOGUE)
    presets = {name for name in preset_names() if name.startswith(("rf-detr-", "d-fine-", "deformable-detr-"))}
    assert presets <= on_offer().keys()


def test_nothing_is_listed_that_forbids_use():
    for one in CATALOGUE:
        for licence in (one.code_licence, one.weights_licence):
            assert not re.search("AGPL|-NC|PML", licence)


@pytest.mark.parametrize("part", ["code_licence", "weights_licence"])
def test_another_licence_appears_only_when_it_is_allowed_by_name(part: str):
    special = replace(CATALOGUE[0], name="special", **{part: "DINOv3"})
    assert "special" not in on_offer((), [special])
    assert "special" not in on_offer(["SAM"], [special])
    assert "special" in on_offer(["DINOv3"], [special])
    assert {one.weights_licence for one in on_offer().values()} <= PERMISSIVE


def test_a_misspelled_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean rf-detr-small"):
        published("rfdetr-small")


def test_the_installation_lists_licences():
    text = "{version: 1, store: 's3://bucket', weights: {allowedLicences: [DINOv3]}}"
    assert parse_installation(text, "x").weights.allowed_licences == ("DINOv3",)
    with pytest.raises(ConfigError, match=r"weights\.allowedLicences"):
        parse_installation("{version: 1, store: 's3://bucket', weights: {allowedLicences: ['any; thing']}}", "x")
