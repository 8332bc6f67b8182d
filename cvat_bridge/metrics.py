"""Prometheus metrics. Labels have few values: declared routes, but no paths, users or tasks."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServiceMetrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cvat_bridge_requests_total",
            "Responses, by route and class of status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "cvat_bridge_request_seconds",
            "Seconds until the response, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.submissions = Counter(
            "cvat_bridge_submissions_total",
            "Submissions of runs: created, again (the same click), refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.cvat = Counter(
            "cvat_bridge_cvat_requests_total",
            "Requests to CVAT, by class of status; `away`: unreachable; `export_right`: checks of who may export.",
            ("status",),
            registry=self.registry,
        )
        self.webhooks = Counter(
            "cvat_bridge_webhook_events_total",
            "Events from CVAT, by outcome.",
            ("outcome",),
            registry=self.registry,
        )
        self.webhooks_waiting = Gauge(
            "cvat_bridge_webhook_events_waiting",
            "Events that wait to be processed.",
            registry=self.registry,
        )

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
