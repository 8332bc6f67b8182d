"""What the report advises besides the warnings of the manifest, most important first."""

from collections.abc import Iterator, Sequence

from data_prep.report.box_numbers import Sight, Suspects
from prepared_set.manifest import Manifest
from run_config.wording import plural, shortened

HIDDEN_MATTERS = 0.02
"""The page warns about a model if more than this share of the boxes is too small for it."""
IMBALANCE = 10
"""The page warns if the most frequent class has this many times the boxes of the rarest."""


def find_advice(manifest: Manifest, seen: Sequence[Sight], suspicious: Sequence[Suspects]) -> tuple[str, ...]:
    """Sentences for the top of the page."""
    return (*_about_sight(seen), *_about_suspects(suspicious), *_about_balance(manifest))


def _about_sight(seen: Sequence[Sight]) -> Iterator[str]:
    blind = [one for one in seen if one.hidden > HIDDEN_MATTERS]
    if not blind:
        return
    best = min(seen, key=lambda one: one.hidden)
    named = shortened([f"{one.preset} ({one.hidden:.0%})" for one in blind], 4)
    better = (
        f"{best.preset} sees most ({best.hidden:.0%} too small)."
        if best.hidden <= HIDDEN_MATTERS
        else "Cut the images into parts, or raise data.eval_size, data.min_sizes and data.max_size."
    )
    yield f"Boxes that are too small for the model at its input size: {named}. {better}"


def _about_suspects(suspicious: Sequence[Suspects]) -> Iterator[str]:
    # Doubled boxes are in the warnings.
    found = [f"{len(one.found):,} {one.kind}" for one in suspicious if one.kind != "doubled"]
    if found:
        yield f"Look at the suspicious boxes below and correct them in CVAT: {', '.join(found)}."


def _about_balance(manifest: Manifest) -> Iterator[str]:
    counts = [count for count in manifest.counts["train"].boxes_per_class if count]
    if len(counts) < 2 or max(counts) < IMBALANCE * min(counts):
        return
    train = manifest.counts["train"].boxes_per_class
    rare = manifest.class_names[train.index(min(counts))]
    common = manifest.class_names[train.index(max(counts))]
    yield (
        f"{common} has {max(counts) // min(counts)} times as many training boxes as {rare} "
        f"({max(counts):,} and {plural(min(counts), 'box', 'boxes')}): label more images with {rare}."
    )
