"""What is counted, for Prometheus. Labels take few values, none of them chosen by clients."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from faceauth.server.judges import Judges
from faceauth.server.uploads import Held

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The service's own registry: nothing of the process or the platform."""

    def __init__(self, judges: Judges, held: Held) -> None:
        self._registry = CollectorRegistry()
        of = self._registry
        self.requests = Counter("faceauth_requests", "Requests, answered.", ["method", "route", "status"], registry=of)
        self.seconds = Histogram(
            "faceauth_request_seconds", "From the head of a request to the end of its answer.", ["route"],
            buckets=SECONDS, registry=of,
        )  # fmt: skip
        self.images = Counter("faceauth_images", "Images, answered.", ["task"], registry=of)
        self.labels = Counter("faceauth_verdicts", "Faces, and images without one, by label.", ["label"], registry=of)
        self.admitted = Gauge("faceauth_admitted_requests", "Requests that are judged or wait for it.", registry=of)
        gauges = {
            "faceauth_held_bytes": ("Bytes of bodies in memory.", lambda: held.now),
            "faceauth_workers_ready": ("Worker processes that can judge, or do.", lambda: len(judges.ready())),
            "faceauth_given_up_images": ("Images that took too long or ended their process.", lambda: judges.given_up),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=of).set_function(value)

    def text(self) -> bytes:
        """All of it in the exposition format of Prometheus."""
        return generate_latest(self._registry)
