"""Sentences about presets that name those of one family together: `rf-detr-*`."""

from collections import defaultdict

from run_config.job.preset_files import presets_on_offer
from run_config.job.presets import load_job_config


def object_limits() -> str:
    """How many objects per image the presets find: `detr-* 100, tiny 60`."""
    return ", ".join(
        f"{group} {most}"
        for group, presets in preset_groups().items()
        for most in sorted({load_job_config(preset).model.most_objects for preset in presets})
    )


def without_stride() -> str:
    """The presets whose finest stride is not known: `deformable-detr-* and faster-rcnn-*`."""
    groups = preset_groups().items()
    return " and ".join(
        group for group, presets in groups if not any(load_job_config(each).model.finest_stride for each in presets)
    )


def preset_groups() -> dict[str, list[str]]:
    """Pattern of a family's presets → their names, in the order of the form."""
    families: defaultdict[str, list[str]] = defaultdict(list)
    for preset in presets_on_offer():
        families[load_job_config(preset).model.family].append(preset)
    return {
        presets[0] if len(presets) == 1 else f"{family.replace('_', '-')}-*": presets
        for family, presets in families.items()
    }
