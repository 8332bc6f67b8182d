"""The values of `auto` keys, from facts about the data, the model and its start.

Each rule is a pure function. `resolved` applies the rules in the order of `RULES`, so that a rule can use the values of
the keys before it. Rates, lengths and averages of RF-DETR and D-FINE are those of their authors for fine-tuning; the
rules of `tiny` were measured (docs/models.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from run_config.errors import ConfigError
from run_config.job.complaints import sentences
from run_config.job.config import JobConfig
from run_config.job.keys import shown, value_of, with_values

FEW_IMAGES = 50
"""With fewer, a pre-trained backbone stays as it is."""
MANY_BOXES = 20
"""Boxes per step from which the small model learns with its highest rate."""
LARGE_SIDE = 0.4
"""Objects of this side, as a fraction of the image, are seen as well in a smaller image."""
DENSE = 5
"""Boxes per image. With fewer, photographs have an upper side, and mosaics show the small model more of them."""
MOSAIC = 0.5
"""Fraction of the training images that are put together from four, if boxes are few."""
MOSAIC_SIDE = 0.2
"""Objects of this side, as a fraction of the image, are still seen in a mosaic."""
DENSE_TARGETS = 6
"""Tokens per box for the second head of the small model."""
SMALL_IMAGES = 0.5
"""Fraction of a short run in which the small model learns from smaller images."""
SHORT_MINUTES, SHORT_STEPS = 6.0, 1500
"""Runs up to this length gain from smaller images."""
FINE_TUNING = "fine-tuning of a trained model"
RARE = 0.1
MOST_EVALUATIONS = 40
LEAST_STEPS = 1000
EPOCHS = ((500, 100), (2_000, 60), (10_000, 36))
"""Passes for sets of up to so many images. Larger sets: 24."""
SHORTEST_AVERAGE = 0.9
TIMED_INTERVAL = 250
"""Steps between two evaluations when the number of steps is not known."""
LEAST_VALIDATION = 20
"""Images. The AP of fewer says too little to stop by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules know. Boxes and images are those of the training split."""

    images: int
    validation_images: int
    boxes: int
    class_images: tuple[int, ...]
    """Images that have each class."""
    median_side: float
    """Of the boxes: square root of the area, as a fraction of the image's."""
    centre_shift: float
    """Distance of the boxes' mean height in the image from its middle, in standard errors."""
    pretrained: bool
    """Whether training starts from a checkpoint."""
    fits: Callable[[JobConfig, int], bool] | None = None
    """Whether so many images at once fit into the GPU's memory. None: training on a CPU."""

    @property
    def boxes_per_image(self) -> float:
        """The mean."""
        return self.boxes / self.images


@dataclass(frozen=True, slots=True)
class Choice:
    """A value and its reason, a part of a sentence."""

    value: object
    reason: str


@dataclass(frozen=True, slots=True)
class SmallerBatch(Choice):
    """Images per batch, and how many batches make a step of as many images as before."""

    accumulate: int


Rule = Callable[[JobConfig, Facts], Choice | None]
"""None: no rule for this model; the key keeps its value."""


def resolved(config: JobConfig, auto: frozenset[str], facts: Facts) -> tuple[JobConfig, dict[str, str]]:
    """The configuration with values for the `auto` keys, and the reason of each.

    Raises ConfigError: when a value does not go together with the others, which were chosen.
    """
    reasons: dict[str, str] = {}
    for key in (name for name in RULES if name in auto):
        choice = RULES[key](config, facts) or Choice(value_of(config, key), "no rule for this model")
        changed = {key: choice.value}
        if key == "schedule.steps":  # one length replaces the others
            changed |= {"schedule.epochs": None, "schedule.minutes": None}
        if isinstance(choice, SmallerBatch):
            changed["data.accumulate"] = choice.accumulate
        try:
            config = with_values(config, changed)
        except ValidationError as error:
            wrong = "; ".join(sentences(error, config.model.family))
            raise ConfigError(f"{key}=auto is {shown(choice.value)} here ({choice.reason}), but {wrong}") from error
        reasons[key] = choice.reason
    return config, reasons


def image_size(config: JobConfig, facts: Facts) -> Choice | None:
    """Short side of the training images."""
    sizes = config.model.recipe.sizes
    if sizes is None:
        return None
    side = f"objects have {facts.median_side:.0%} of the image's side"
    if facts.median_side >= LARGE_SIDE:
        return Choice((sizes[0],), f"{side}, so small images show them, and more of them are seen in the same time")
    return Choice((sizes[1],), side)


def balance(config: JobConfig, facts: Facts) -> Choice:
    """Whether images with rare classes are shown more often."""
    del config
    counts = [count for count in facts.class_images if count]
    rare = min(counts) / max(counts)
    return Choice(rare < RARE, f"the rarest class is in {rare:.0%} as many images as the commonest")


def vertical_flip(config: JobConfig, facts: Facts) -> Choice:
    """Flips top to bottom only if the boxes are many and favour neither half."""
    del config
    if facts.boxes_per_image < DENSE:
        return Choice(0.0, f"{facts.boxes_per_image:.1f} boxes per image: photographs that have an upper side")
    if facts.centre_shift > 3:
        return Choice(0.0, "objects lie more often in one half of the image: pictures have an upper side")
    return Choice(0.5, f"{facts.boxes_per_image:.1f} boxes per image, as many above as below")


def mosaic(config: JobConfig, facts: Facts) -> Choice:
    """Random weights see few boxes four images at a time, unless that makes the objects too small."""
    del config
    if facts.median_side < MOSAIC_SIDE:
        return Choice(0.0, f"objects have {facts.median_side:.0%} of the image's side, and a mosaic halves them")
    if facts.pretrained:
        return Choice(0.0, FINE_TUNING)
    reason = f"{facts.boxes_per_image:.1f} boxes per image, random weights"
    return Choice(MOSAIC if facts.boxes_per_image < DENSE else 0.0, reason)


def dense_targets(config: JobConfig, facts: Facts) -> Choice:
    """Random weights learn faster from several tokens per box."""
    del config
    return Choice(0, FINE_TUNING) if facts.pretrained else Choice(DENSE_TARGETS, "random weights learn faster with it")


def freeze_backbone(config: JobConfig, facts: Facts) -> Choice:
    """A pre-trained backbone is not trained with very few images."""
    if not (facts.pretrained or config.model.trained_backbone):
        return Choice(False, "the backbone has random weights")
    return Choice(facts.images < FEW_IMAGES, f"{facts.images} images and a pre-trained backbone")


def rate(config: JobConfig, facts: Facts) -> Choice | None:
    """Peak learning rate: from random weights, few boxes per step are noisy and need a lower one."""
    highest = config.model.recipe.highest_rate
    if highest is None:
        return None
    boxes = images_per_step(config, facts) * facts.boxes_per_image
    if facts.pretrained:
        return Choice(3e-4, FINE_TUNING)
    pictures = 1 + 3 * config.data.augmentation.mosaic
    share = max(0.1, boxes / MANY_BOXES) * math.sqrt(pictures)  # a mosaic's boxes are small and partly cut off
    reason = f"{boxes:.0f} boxes per step" + (", more in mosaics" if pictures > 1 else "") + ", random weights"
    return Choice(float(f"{highest * min(1.0, share):.2g}"), reason)


def backbone_rate(config: JobConfig, facts: Facts) -> Choice:
    """Peak learning rate of the backbone."""
    del facts
    share = config.model.recipe.backbone_share
    return Choice(float(f"{config.optimizer.lr * share:.4g}"), f"{share:g} times optimizer.lr")


def layer_decay(config: JobConfig, facts: Facts) -> Choice:
    """Early layers of a pre-trained backbone change less; random ones must all learn."""
    del config
    return Choice(0.8, "a pre-trained backbone") if facts.pretrained else Choice(1.0, "a backbone of random weights")


def freeze_norms(config: JobConfig, facts: Facts) -> Choice | None:
    """Random norms and layers must learn; those of published weights stay, as their authors train."""
    if not config.model.recipe.frozen_norms:
        return None
    return Choice(facts.pretrained, "as published" if facts.pretrained else "from random weights everything must learn")


def length(config: JobConfig, facts: Facts) -> Choice:
    """Steps: more passes over fewer images."""
    epochs = next((epochs for images, epochs in EPOCHS if facts.images <= images), 24)
    steps = round(epochs * facts.images / images_per_step(config, facts))
    if steps < LEAST_STEPS:
        return Choice(LEAST_STEPS, f"{facts.images} images: the least number of steps")
    return Choice(steps, f"{facts.images} images: {epochs} epochs")


def warm_up(config: JobConfig, facts: Facts) -> Choice:
    """Fraction of the run."""
    if not config.model.recipe.warm_up and facts.pretrained:
        return Choice(0.0, "as the authors fine-tune")
    steps = total_steps(config, facts)
    if steps is None:
        return Choice(0.03, "3 % of the time")
    return Choice(round(min(0.1, max(0.03, 100 / steps)), 4), "100 steps, or 3 to 10 % of the run")


def small_images(config: JobConfig, facts: Facts) -> Choice:
    """In a short run, random weights see more images if these are small at first. A longer one gains nothing."""
    if facts.pretrained:
        return Choice(0.0, FINE_TUNING)
    minutes, steps = config.schedule.minutes or 0.0, total_steps(config, facts) or 0
    if minutes > SHORT_MINUTES or steps > SHORT_STEPS:
        return Choice(0.0, "a run of this length sees enough images")
    return Choice(SMALL_IMAGES, "a short run from random weights sees more images if these are small at first")


def average(config: JobConfig, facts: Facts) -> Choice:
    """Decay of the moving average of the weights."""
    longest = config.model.recipe.average
    steps = total_steps(config, facts)
    if steps is None or 1 - 10 / steps >= longest:
        return Choice(longest, f"an average over {1 / (1 - longest):.0f} steps")
    decay = round(max(SHORTEST_AVERAGE, 1 - 10 / steps), 4)
    return Choice(decay, f"an average over a tenth of {steps} steps")


def evaluation_interval(config: JobConfig, facts: Facts) -> Choice:
    """Steps: an epoch, but few images do not need an evaluation every few steps."""
    steps = total_steps(config, facts)
    if steps is None:
        return Choice(TIMED_INTERVAL, "the number of steps is not known")
    epoch = max(1, facts.images // images_per_step(config, facts))
    least = math.ceil(steps / MOST_EVALUATIONS)
    if epoch >= least:
        return Choice(epoch, "once per epoch")
    return Choice(least, f"{MOST_EVALUATIONS} evaluations in {steps} steps")


def patience(config: JobConfig, facts: Facts) -> Choice:
    """Evaluations without a better AP after which training stops. While rates fall, AP rises late."""
    steps = total_steps(config, facts)
    if facts.validation_images < LEAST_VALIDATION:
        return Choice(0, f"{facts.validation_images} validation images are too few to stop by their AP")
    if steps is None:
        return Choice(0, "the time is set; the best weights are kept")
    if config.schedule.kind == "constant":
        return Choice(10, "the rates are constant")
    evaluations = steps // (config.evaluation.interval or max(1, facts.images // images_per_step(config, facts)))
    return Choice(max(10, math.ceil(evaluations / 3)), "a third of the run, because the AP rises late while rates fall")


def checkpoint_interval(config: JobConfig, facts: Facts) -> Choice:
    """Steps."""
    del facts
    return Choice(config.evaluation.interval, "with each evaluation")


def batch_size(config: JobConfig, facts: Facts) -> Choice:
    """The largest divisor of a batch that fits into memory; more of them make a step.

    Raises ConfigError: when one image does not fit.
    """
    if facts.fits is None:
        return Choice(config.data.batch_size, "on a CPU, memory is not tried")
    whole = min(config.data.batch_size, facts.images)
    if facts.fits(config, whole):
        return Choice(config.data.batch_size, "the largest images fit into memory")
    step = whole * config.data.accumulate
    for images in range(whole // 2, 0, -1):
        if whole % images == 0 and facts.fits(config, images):
            batches = step // images
            reason = (
                f"{whole} of the largest images do not fit into memory; data.accumulate={batches} keeps {step} a step"
            )
            return SmallerBatch(images, reason, batches)
    raise ConfigError(
        "data.batch_size=auto: not even one image of the largest size fits into the GPU's memory: lower the image size "
        "(data.min_sizes, data.max_size) or model.queries, or choose a smaller model"
    )


def images_per_step(config: JobConfig, facts: Facts) -> int:
    """Images whose gradients make one optimiser step."""
    return min(config.data.batch_size, facts.images) * config.data.accumulate


def total_steps(config: JobConfig, facts: Facts) -> int | None:
    """Steps of the whole run. None: the run has a time budget."""
    if config.schedule.epochs is not None:
        return max(1, round(config.schedule.epochs * facts.images / images_per_step(config, facts)))
    return config.schedule.steps


RULES: dict[str, Rule] = {
    "data.min_sizes": image_size,
    "data.max_size": lambda config, _: Choice(round(max(config.data.min_sizes) * 4 / 3), "the aspect ratio 4:3"),
    "data.eval_size": lambda config, _: Choice(max(config.data.min_sizes), "as in training"),
    "data.balance": balance,
    "data.augmentation.vertical_flip": vertical_flip,
    "model.freeze_norms": freeze_norms,
    "data.augmentation.mosaic": mosaic,
    "model.dense_targets": dense_targets,
    "model.layer_decay": layer_decay,
    "optimizer.lr": rate,
    "optimizer.lr_backbone": backbone_rate,
    "optimizer.freeze_backbone": freeze_backbone,
    "schedule.steps": length,
    "schedule.warmup": warm_up,
    "schedule.small_images": small_images,
    "training.ema_decay": average,
    "evaluation.interval": evaluation_interval,
    "evaluation.patience": patience,
    "checkpoints.interval": checkpoint_interval,
    "data.batch_size": batch_size,
}
"""The rule of each key that may be `auto`, in the order in which they are applied."""
