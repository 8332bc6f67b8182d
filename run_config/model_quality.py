"""What a person should know before using a trained model: its score threshold, and whether its AP is very low."""

from collections.abc import Mapping

from run_config.wording import shortened

FALLBACK_THRESHOLD = 0.5
"""The score threshold of a model without its own: an older release wrote it, or it found no validation box."""
POOR_AP = 0.1
SHOWN_CLASSES = 5


def threshold_text(threshold: float, classes: Mapping[str, float]) -> str:
    """A threshold and the classes that differ from it, with three digits each: `0.33 (RBC 0.31, WBC 0.4)`."""
    own = [f"{name} {value:.3g}" for name, value in classes.items() if f"{value:.3g}" != f"{threshold:.3g}"]
    return f"{threshold:.3g} ({shortened(own, SHOWN_CLASSES)})" if own else f"{threshold:.3g}"


def threshold_in_use(installation: float | None, own: str) -> str:
    """The threshold that applies if neither a call nor a run sets one. `own`: the model's, as text, or empty."""
    if installation is not None:
        return f"{installation:g} (set by the installation)"
    return " ".join(own.split()) or f"{FALLBACK_THRESHOLD} (the model has no threshold of its own)"


def decisive_ap(metrics: Mapping[str, float]) -> float | None:
    """The AP in a model's config.json that counts all objects. None: not measured."""
    ap = metrics.get("val_ap_max_dets", metrics.get("val_ap", -1.0))
    return ap if ap >= 0 else None


def poor_warning(ap: float | None) -> str:
    """A warning before a model with a very low AP is used. Empty: no warning."""
    return "" if ap is None or ap >= POOR_AP else f"AP {ap:.3f} is below {POOR_AP}: its boxes will be poor"
