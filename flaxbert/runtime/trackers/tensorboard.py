"""TensorBoard scalars."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class TensorBoardTracker:
    """TensorBoard's scalars, written by the caller.

    tensorboardX's own SummaryWriter writes in a thread. A full disk ends that thread, and whoever
    gives it the next scalar waits for good.
    """

    FLUSH_SECONDS = 30.0

    def __init__(self, directory: Path, *, first: int):
        """Open a new file; what files before it say of step `first` and later is hidden."""
        directory.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(directory / "events"))
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        self.flush()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve of each metric."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._events.write_event(event)
        if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Let readers see what there is."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self._events.close()
