"""Prometheus metrics of the model server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Numbers:
    """The metrics of one model server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "detr_models_calls_total",
            "Images that CVAT sent, by function and by what became of them.",
            ("function", "outcome"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "detr_models_seconds",
            "Time of each part of a call: load (the model, where it was not in memory), decode, detect.",
            ("part",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.listed = Gauge("detr_models_functions", "Functions that are listed.", registry=self.registry)
        self.loaded = Gauge("detr_models_loaded", "Models in memory.", registry=self.registry)
        self.waiting = Gauge("detr_models_calls_waiting", "Calls that are being answered.", registry=self.registry)
        self.list_age = Gauge(
            "detr_models_list_age_seconds", "Age of the list of models; -1 before the first.", registry=self.registry
        )
        self.left_out = Gauge(
            "detr_models_left_out",
            "Models that are not offered, by the folder of the run, and why.",
            ("model", "reason"),
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
