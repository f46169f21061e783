"""Trackio, which logs to a local database or to a Space of the Hugging Face Hub."""

from collections.abc import Mapping

import trackio

from flaxbert.runtime.trackers.background import Opening, Status


class TrackioRun:
    """A run of Trackio. Its variables, such as TRACKIO_SPACE_ID and TRACKIO_DIR, apply.

    Attributes:
      id: the name of the run, with which it resumes.
    """

    def __init__(self, opening: Opening):
        """Start or resume a run. Runs resume by name, so each name has a unique end."""
        self.id = opening.resumed or f"{opening.name}-{opening.id[:6]}"
        self._run = trackio.init(
            project=opening.project or "flaxbert",
            name=self.id,
            resume="allow",
            config=dict(opening.settings),
            embed=False,  # no server of its own in a notebook
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the results, as metrics of the last step."""
        named = {f"final/{name}": value for name, value in results.items()}
        self._run.log(named, step=int(results.get("step", 0)))

    def close(self, status: Status) -> None:
        """Write the rest; Trackio has no status of a run."""
        self._run.finish()


open_run = TrackioRun
