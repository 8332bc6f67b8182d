"""The result of `prepare` and `inspect`: a few lines for people, one JSON object for programs."""

from collections.abc import Iterator
from typing import Any

import msgspec

from prepared_set.manifest import SPLITS, Manifest
from run_config.wording import plural, shortened


def as_lines(manifest: Manifest) -> Iterator[str]:
    """What the set holds, what was changed, and the warnings."""
    for name in SPLITS:
        counts = manifest.counts[name]
        if counts.images:
            empty = f", {counts.images_without_boxes:,} of them without boxes" if counts.images_without_boxes else ""
            images, boxes = plural(counts.images, "image"), plural(counts.boxes, "box", "boxes")
            yield f"  {name:<6} {images}{empty}, {boxes}"
    yield f"  {plural(len(manifest.classes), 'class', 'classes')}: {shortened(manifest.class_names, 12)}"
    for change in manifest.changes:
        yield f"  {change.action}: {change.count:,} x {change.sentence}"
    for warning in manifest.warnings:
        yield f"  warning: {warning}"


def as_json(manifest: Manifest, **more: object) -> str:
    """The same as a JSON object: `set`, `classes`, `counts` by split, `split`, `changes`, `warnings`."""
    content: dict[str, Any] = {
        "set": manifest.id,
        **more,
        "classes": manifest.class_names,
        "counts": manifest.counts,
        "split": manifest.split_method,
        "changes": manifest.changes,
        "warnings": manifest.warnings,
    }
    return msgspec.json.encode(content).decode()
