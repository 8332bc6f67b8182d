"""The report as one HTML page: no scripts, no requests, and the template engine escapes every label.

It can be opened from a bucket, in a mail or in Argo's viewer. All texts that explain numbers are in the
template; this module prepares values.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.charts import COLOURS, GREY, Chart, Series, line_chart
from evaluation.coco import AtMaxDets
from evaluation.gallery import Picture
from evaluation.metrics import Metrics, SplitMetrics
from evaluation.run_files import MetricsLog
from run_config.model_quality import threshold_text
from run_config.wording import cut, plural

MAX_CONFUSION_CLASSES = 24
UNDEFINED_SIGN = "\N{EN DASH}"
LOSS_NAMES = {
    "loss": "total",
    "loss_ce": "class",
    "loss_bbox": "box (L1)",
    "loss_giou": "overlap (GIoU)",
    "loss_fgl": "edges (FGL)",
    "loss_ddf": "distillation (DDF)",
}
LOSS_SOURCES = {
    "_dense": "dense targets",
    "_enc": "encoder",
    "_dn": "denoising",
    "_rpn": "region proposals",
}
"""Part of a loss's name → which boxes it is about. Names without such a part are about the model's predictions."""
TABLE_TITLES = {
    "parameters": "Parameters of the run, as given",
    "config": "Configuration: all values in use",
    "auto": "Values chosen automatically, and why",
}
AP_NAMES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_max_dets": "AP at maxDets",
    "ap50_max_dets": "AP50 at maxDets",
}


@dataclass(frozen=True, slots=True)
class Confusion:
    """The visible part of the confusion matrix. `names` excludes background, `rows` and columns include it."""

    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class PageInput:
    """Everything that the page shows."""

    metrics: Metrics
    log: MetricsLog
    run: Mapping[str, Any]
    run_url: str
    worst: Sequence[Picture]
    best: Sequence[Picture]


def render(content: PageInput) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": share,
        "percent": percent,
        "of_hundred": of_hundred,
        "count": lambda value: f"{value:,}",
        "short": cut,
        "plural": plural,
        "breakable": breakable,
    }
    metrics = content.metrics
    split = metrics.splits[metrics.headline]
    return environment.get_template("report.html.j2").render(
        metrics=metrics,
        split=split,
        wide=split.at_max_dets or None,
        repeats=split.repeated_boxes or None,
        repeats_change=repeats_change(split),
        wide_names=wide_names(metrics),
        point_words=threshold_text(metrics.operating_point.threshold, metrics.operating_point.classes),
        run_url=content.run_url,
        worst=content.worst,
        best=content.best,
        confusion=confusion_view(metrics.classes, split.confusion),
        threshold_charts=threshold_charts(metrics, split),
        training_charts=training_charts(content.log),
        unreadable_lines=content.log.unreadable,
        glance=at_a_glance(content),
        facts=list(run_facts(content.run)),
        details=run_details(content.run),
        class_colours=class_colours(split),
    )


def wide_names(metrics: Metrics) -> list[str]:
    """Names of the numbers at `max_dets` for the table of all splits; empty when no split has them."""
    names = [field.name for field in fields(AtMaxDets) if field.name not in {"max_dets", "beyond_100"}]
    return names if any(split.at_max_dets for split in metrics.splits.values()) else []


def repeats_change(split: SplitMetrics) -> str:
    """What leaving out repeated boxes does to AP and AP50, as the end of a sentence. Empty: nothing."""
    if not split.repeated_boxes:
        return ""
    wide = split.at_max_dets or None
    ap, ap50 = (wide.ap, wide.ap50) if wide else (split.coco["ap"], split.coco["ap50"])
    return " and ".join(split.repeated_boxes.changes(ap, ap50))


def breakable(name: str) -> Markup:
    """A dotted name that may be broken into lines after each dot."""
    return Markup(".<wbr>").join(name.split("."))


def share(value: float) -> str:
    """A number in 0...1 with three digits; a dash when undefined."""
    return UNDEFINED_SIGN if value < 0 else f"{value:.3f}"


def percent(value: float) -> str:
    """A number in 0...1 as per cent; a dash when undefined."""
    return UNDEFINED_SIGN if value < 0 else f"{100 * value:.1f} %"


def of_hundred(value: float) -> str:
    """A share as words: "93 of 100". "100 of 100" and "0 of 100" are used only when exact."""
    rounded = round(100 * value)
    if rounded == 100 and value < 1:
        return "more than 99 of 100"
    if rounded == 0 and value > 0:
        return "less than 1 of 100"
    return f"{rounded} of 100"


def class_colours(split: SplitMetrics) -> list[str]:
    """One colour per class: the most frequent classes get their own, the others are grey."""
    order = sorted(range(len(split.classes)), key=lambda label: -split.classes[label].ground_truths)
    colours = [GREY] * len(split.classes)
    for label, colour in zip(order, COLOURS, strict=False):
        colours[label] = colour
    return colours


def confusion_view(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> Confusion:
    """The matrix of all classes, or of those with the most errors if there are too many for a readable table."""
    background = len(classes)
    errors = [
        sum(matrix[label]) + sum(row[label] for row in matrix) - 2 * matrix[label][label] for label in range(background)
    ]
    worst = sorted(range(background), key=lambda label: -errors[label])[:MAX_CONFUSION_CLASSES]
    shown = [*sorted(worst), background]
    return Confusion(
        tuple(classes[label] for label in shown[:-1]),
        tuple(tuple(matrix[row][column] for column in shown) for row in shown),
        background - len(worst),
    )


def threshold_charts(metrics: Metrics, split: SplitMetrics) -> list[Chart]:
    """Precision over recall, F1 over threshold, and precision and recall over threshold."""
    colours = class_colours(split)
    recalls = [n / 100 for n in range(101)]
    by_class = [
        (entry.name, entry.curve, colour)
        for entry, colour in zip(split.classes, colours, strict=True)
        if entry.ground_truths
    ]
    # Grey lines first, coloured lines above them, the mean on top.
    by_class.sort(key=lambda entry: entry[2] != GREY)
    black, unit, thresholds = "#111827", (0.0, 1.0), metrics.thresholds
    precision_over_recall = [
        _series(name, recalls, curve.precision_at_recall, colour) for name, curve, colour in by_class
    ]
    f1 = [_series(name, thresholds, curve.f1, colour) for name, curve, colour in by_class]
    if len(split.classes) > 1:
        mean = split.curve.precision_at_recall
        precision_over_recall.append(_series("all classes", recalls, mean, black, thick=True))
        f1.append(_series("all classes", thresholds, split.curve.f1, black, thick=True))
    both = [
        _series("precision", thresholds, split.curve.precision, COLOURS[0]),
        _series("recall", thresholds, split.curve.recall, COLOURS[1]),
    ]
    point = metrics.operating_point.threshold
    charts = [
        line_chart(title, series, x_label=x_label, y_label=y_label, x_range=unit, y_range=unit, marker=marker)
        for title, series, x_label, y_label, marker in (
            ("Precision over recall", precision_over_recall, "recall: share of objects found", "precision", None),
            ("F1 over score threshold", f1, "score threshold", "F1", point),
            ("Precision and recall", both, "score threshold", "share", point),
        )
    ]
    return [chart for chart in charts if chart is not None]


def training_charts(log: MetricsLog) -> list[Chart]:
    """Loss and its parts, AP on the validation split, and learning rates, over steps."""
    # loss_ce_0 to loss_ce_4 are the same losses after earlier decoder layers.
    losses = [name for name in log.names(("train",)) if name.startswith("loss") and not name[-1].isdigit()]
    losses.sort(key=lambda name: name == "loss")
    rates = [name for name in log.names(("train",)) if name == "lr" or name.startswith("lr_")]
    charts = [
        line_chart(
            "Loss while training",
            [
                Series(
                    loss_title(name),
                    log.series(name, ("train",)),
                    "#111827" if name == "loss" else colour,
                    thick=name == "loss",
                )
                for name, colour in zip(losses, itertools.cycle(COLOURS), strict=False)
            ],
            x_label="step",
            y_label="loss",
        ),
        line_chart(
            "Accuracy on the validation images",
            [
                Series(title, [point for point in log.series(name, ("val",)) if point[1] >= 0], colour)
                for (name, title), colour in zip(AP_NAMES.items(), COLOURS, strict=False)
            ],
            x_label="step",
            y_label="AP",
            y_range=(0.0, 1.0),
        ),
        line_chart(
            "Learning rate",
            [
                Series(name, log.series(name, ("train",)), colour)
                for name, colour in zip(rates, itertools.cycle(COLOURS), strict=False)
            ],
            x_label="step",
            y_label="rate",
        ),
    ]
    return [chart for chart in charts if chart is not None]


def loss_title(name: str) -> str:
    """A loss of metrics.jsonl in words: `loss_bbox_dense` is "box (L1), dense targets"."""
    for part, source in LOSS_SOURCES.items():
        if part in name:
            whole = name.replace(part, "")
            return f"{LOSS_NAMES.get(whole, whole)}, {source}"
    return LOSS_NAMES.get(name, name)


def at_a_glance(content: PageInput) -> list[tuple[str, str]]:
    """The facts at the top of the page, if they are known."""
    run, log = content.run, content.log
    losses = log.series("loss", ("train",))
    speeds = sorted(value for _, value in log.series("images_per_s", ("train",)))
    steps = f"{losses[-1][0]:,.0f}" if losses else ""
    facts = [
        ("Model", content.metrics.model),
        ("Prepared set", content.metrics.set_id),
        ("Hardware", str(run.get("hardware") or "")),
        ("Steps", steps),
        ("Median speed", f"{speeds[len(speeds) // 2]:,.1f} images/s" if speeds else ""),
        ("Started", str(run.get("started") or "").replace("T", " ").replace("+00:00", " UTC")),
        ("Version", str(run.get("code_version") or "")),
    ]
    return [(title, value) for title, value in facts if value]


def run_details(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """One table per mapping in run.json, such as parameters and configuration."""
    tables = {key: dict(flat(value)) for key, value in run.items() if isinstance(value, Mapping)}
    config = tables.get("config", {})
    if config.get("training.precision") == "auto" and run.get("precision"):
        config["training.precision"] = f"{run['precision']} (auto)"
    for key, reason in tables.get("auto", {}).items():
        if key in config:
            tables["auto"][key] = f"{config[key]}: {reason}"
    return [(TABLE_TITLES.get(key, fact_title(key)), list(lines.items())) for key, lines in tables.items() if lines]


def run_facts(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The single values of run.json."""
    for name, value in flat(run):
        if name == "image_digest":
            if names_registry_or_digest(value):
                yield "Image", value
        elif "." not in name and name != "format":
            yield fact_title(name), value


def names_registry_or_digest(image: str) -> bool:
    """Whether an image has been pulled under this name.

    A run without containers has the name in the workflow template, which has neither a registry nor a digest.
    """
    host, slash, _ = image.partition("/")
    return "sha256:" in image or bool(slash and ("." in host or ":" in host))


def fact_title(name: str) -> str:
    """Turn a key into a title: "prepared_set" becomes "Prepared set"."""
    return name.replace("_", " ").capitalize()


def flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """run.json as table rows: nested names are joined by a dot, empty values are left out."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list) and not any(isinstance(entry, Mapping | list) for entry in value):
            if value:
                yield name, ", ".join(str(entry) for entry in value)
        elif isinstance(value, list):
            yield from flat({str(place): entry for place, entry in enumerate(value, start=1)}, f"{name}.")
        elif value is not None and value != "":
            yield name, f"{value:,}" if type(value) is int else str(value)


def _series(name: str, xs: Sequence[float], ys: Sequence[float], colour: str, *, thick: bool = False) -> Series:
    """A line through the points whose value is defined."""
    return Series(name, [(x, y) for x, y in zip(xs, ys, strict=True) if y >= 0], colour, thick)
