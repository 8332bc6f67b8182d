"""The published weights that `detr-workflows weights` brings into a store.

Addresses, checksums and AP are the authors'. RF-DETR's checksums are in their program `rfdetr` 1.11.2. The names of
DETR's files end with the first digits of a SHA-256, which their program checks. None are published for D-FINE and
Deformable DETR. The authors' own files of Deformable DETR are on Google Drive only. Weights under
the AGPL, for non-commercial use only, or under Roboflow's PML are not listed at all.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from run_config.errors import ConfigError
from run_config.weights.coco_classes import COCO_CLASSES

PERMISSIVE = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT"})
HUGGING_FACE = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that holds the weights. `path` is the same below `host`, below a mirror of it, and in a folder."""

    host: str
    path: str
    md5: str = ""
    """Empty: no MD5 is published."""
    sha256: str = ""
    """The first digits. Empty: no SHA-256 is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """An entry of the catalogue. The files hold the same weights, the authors' first."""

    name: str
    preset: str
    trained_on: str
    classes: tuple[str | None, ...]
    """The class of each row of the heads. None: unused, or its name is not known."""
    parameters_m: float
    """Size: millions of parameters."""
    coco_ap: float | None
    """AP on COCO's validation images in per cent. None: the weights know no classes of COCO."""
    files: tuple[PublishedFile, ...]
    code_licence: str = "Apache-2.0"
    weights_licence: str = "Apache-2.0"


_COCO_80 = tuple(name for name in COCO_CLASSES if name is not None)
_OBJECTS365: tuple[None, ...] = (None,) * 366


def _rf_detr(size: str, parameters_m: float, coco_ap: float, path: str, md5: str) -> PublishedWeights:
    return PublishedWeights(
        name=f"rf-detr-{size}",
        preset=f"rf-detr-{size}",
        trained_on="Objects365, then COCO",
        classes=COCO_CLASSES,
        parameters_m=parameters_m,
        coco_ap=coco_ap,
        files=(
            PublishedFile("https://storage.googleapis.com/rfdetr", path, md5),
            PublishedFile(HUGGING_FACE, f"Roboflow/rf-detr-{size}/resolve/main/model.safetensors"),
        ),
    )


def _d_fine(size: str, parameters_m: float, data: str, coco_ap: float | None) -> PublishedWeights:
    trained_on, classes = {
        "coco": ("COCO", _COCO_80),
        "obj365": ("Objects365", _OBJECTS365),
        "obj2coco": ("Objects365, then COCO", _COCO_80),
    }[data]
    files = [
        PublishedFile("https://github.com/Peterande/storage/releases/download/dfinev1.0", f"dfine_{size[0]}_{data}.pth")
    ]
    if data == "coco":
        files.append(PublishedFile(HUGGING_FACE, f"ustc-community/dfine-{size}-coco/resolve/main/model.safetensors"))
    return PublishedWeights(
        name=f"d-fine-{size}" if data == "coco" else f"d-fine-{size}-{data}",
        preset=f"d-fine-{size}",
        trained_on=trained_on,
        classes=classes,
        parameters_m=parameters_m,
        coco_ap=coco_ap,
        files=tuple(files),
    )


def _detr(size: str, parameters_m: float, coco_ap: float, file: str) -> PublishedWeights:
    return PublishedWeights(
        name=f"detr-{size}",
        preset=f"detr-{size}",
        trained_on="COCO",
        classes=COCO_CLASSES,
        parameters_m=parameters_m,
        coco_ap=coco_ap,
        files=(PublishedFile("https://dl.fbaipublicfiles.com/detr", file, sha256=file[-12:-4]),),
    )


def _deformable_detr(variant: str, parameters_m: float, coco_ap: float, repository: str) -> PublishedWeights:
    return PublishedWeights(
        name=f"deformable-detr-r50{variant}",
        preset=f"deformable-detr-r50{variant}",
        trained_on="COCO",
        classes=COCO_CLASSES,
        parameters_m=parameters_m,
        coco_ap=coco_ap,
        files=tuple(
            PublishedFile(HUGGING_FACE, f"SenseTime/{repository}/resolve/main/{name}")
            for name in ("model.safetensors", "pytorch_model.bin")
        ),
    )


CATALOGUE: tuple[PublishedWeights, ...] = (
    _rf_detr("nano", 30.5, 48.4, "nano_coco/checkpoint_best_regular.pth", "fb6504cce7fbdc783f7a46991f07639f"),
    _rf_detr("small", 32.1, 53.0, "small_coco/checkpoint_best_regular.pth", "fb37061c1af7bace359c91b723a8d5c1"),
    _rf_detr("medium", 33.7, 54.7, "medium_coco/checkpoint_best_regular.pth", "7223f764a87b863f02eb8d52bf0ce2ee"),
    _rf_detr("large", 33.9, 56.5, "rf-detr-large-2026.pth", "5cb72153541cbcb9aa6efa26222acc75"),
    _d_fine("nano", 3.8, "coco", 42.8),
    _d_fine("small", 10.2, "coco", 48.5),
    _d_fine("small", 10.2, "obj365", None),
    _d_fine("small", 10.2, "obj2coco", 50.7),
    _d_fine("medium", 19.2, "coco", 52.3),
    _d_fine("medium", 19.2, "obj365", None),
    _d_fine("medium", 19.2, "obj2coco", 55.1),
    _detr("r50", 41.5, 42.0, "detr-r50-e632da11.pth"),
    _detr("r50-dc5", 41.5, 43.3, "detr-r50-dc5-f0fb7ef5.pth"),
    _detr("r101", 60.5, 43.5, "detr-r101-2c7b67e5.pth"),
    _detr("r101-dc5", 60.5, 44.9, "detr-r101-dc5-a2e86def.pth"),
    _deformable_detr("", 40.1, 44.5, "deformable-detr"),
    _deformable_detr("-refine", 40.8, 46.2, "deformable-detr-with-box-refine"),
    _deformable_detr("-two-stage", 41.2, 46.9, "deformable-detr-with-box-refine-two-stage"),
)


ALL_LICENCES = frozenset(licence for one in CATALOGUE for licence in (one.code_licence, one.weights_licence))


def names_in(text: str) -> list[str]:
    """The names in a text, which are separated by spaces, commas or line breaks."""
    return text.replace(",", " ").split()


def is_allowed(code_licence: str, weights_licence: str, allowed_licences: Iterable[str]) -> bool:
    """Whether both licences are permissive or in `allowed_licences`."""
    return {code_licence, weights_licence} <= PERMISSIVE | set(allowed_licences)


def on_offer(
    allowed_licences: Iterable[str] = (), catalogue: Sequence[PublishedWeights] = CATALOGUE
) -> dict[str, PublishedWeights]:
    """Name → weights whose licences, of code and of weights, are permissive or in `allowed_licences`."""
    allowed = tuple(allowed_licences)
    return {one.name: one for one in catalogue if is_allowed(one.code_licence, one.weights_licence, allowed)}


def published(name: str, allowed_licences: Iterable[str] = ()) -> PublishedWeights:
    """The entry of that name. Raises ConfigError when it is unknown or its licence not allowed."""
    offered = on_offer(allowed_licences)
    if name in offered:
        return offered[name]
    near = difflib.get_close_matches(name, offered, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(offered)}."
    raise ConfigError(f"there are no published weights named {name!r} in the catalogue; {hint}")
