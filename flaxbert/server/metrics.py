"""The metrics of a server, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histograms of times."""

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the histogram of batch sizes."""


class Metrics:
    """Counts and times of one server; two servers of a process share none."""

    def __init__(self, waiting: Callable[[], float], ready: Callable[[], float]):
        """Create all metrics.

        Args:
          waiting: returns the number of inputs in the queue.
          ready: returns 1 if the server is ready, else 0.
        """
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "flaxbert_requests",
            "Requests by path, method and status.",
            ("path", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "flaxbert_request_seconds",
            "Time from a request's headers to the end of its response.",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self._batch_inputs = Histogram(
            "flaxbert_batch_inputs", "Inputs in a batch.", buckets=SIZES, registry=registry
        )
        self._batch_seconds = Histogram(
            "flaxbert_batch_seconds", "Time of a batch.", buckets=SECONDS, registry=registry
        )
        self._tokens = Counter("flaxbert_tokens", "Tokens of all inputs.", registry=registry)
        queue = Gauge("flaxbert_queue_inputs", "Inputs that wait.", registry=registry)
        queue.set_function(waiting)
        state = Gauge("flaxbert_ready", "1 if the server is ready, else 0.", registry=registry)
        state.set_function(ready)

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count a request and its time."""
        self._requests.labels(path, method, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch, its inputs and its time."""
        self._batch_inputs.observe(size)
        self._batch_seconds.observe(seconds)

    def tokens(self, count: int) -> None:
        """Count tokens."""
        self._tokens.inc(count)

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)
