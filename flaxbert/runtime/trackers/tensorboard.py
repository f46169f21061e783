"""TensorBoard scalars."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class TensorBoardTracker:
    """A TensorBoard log of scalars, written in the caller's thread.

    tensorboardX's own SummaryWriter writes in another thread. A full disk ends that thread, and
    the next call with a scalar would block forever.
    """

    FLUSH_SECONDS = 30.0

    def __init__(self, directory: Path, *, first_step: int):
        """Open a new file; TensorBoard hides what earlier files have from `first_step` on."""
        directory.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(directory / "events"))
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=first_step, session_log=start))
        self.sync()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric that is finite."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._events.write_event(event)
        if time.monotonic() - self._last_flush > self.FLUSH_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Flush, so that readers see every point."""
        self._events.flush()
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self._events.close()
