"""MLflow."""

import os
import re
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from flaxbert.runtime.trackers.background import Opening, Status

MOST, LONGEST_VALUE = 100, 6000
"""Limits of MLflow: parameters or metrics in a request, and characters of a value."""

STATUSES: dict[Status, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """A run of MLflow. Its variables, such as MLFLOW_TRACKING_URI, apply.

    Attributes:
      id: the id of the run, with which it resumes.
    """

    def __init__(self, opening: Opening):
        """Start a run with the settings as its parameters, or resume one.

        The parameters of a run cannot change, so one that resumes keeps its own.
        """
        self._client = MlflowClient()
        if opening.resumed is not None:
            self.id = opening.resumed
            self._client.update_run(self.id, status="RUNNING")
            return
        name = opening.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "flaxbert"
        run = self._client.create_run(self._experiment(name), run_name=opening.name)
        self.id = str(run.info.run_id)
        parameters = [
            Param(key, str(value)[:LONGEST_VALUE]) for key, value in opening.settings.items()
        ]
        for first in range(0, len(parameters), MOST):
            self._client.log_batch(self.id, params=parameters[first : first + MOST])

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        now = int(1000 * time.time())
        values = [Metric(metric_name(name), value, now, step) for name, value in metrics.items()]
        for first in range(0, len(values), MOST):
            self._client.log_batch(self.id, metrics=values[first : first + MOST])

    def summarize(self, results: Mapping[str, float]) -> None:
        """Log the results, as metrics of the last step."""
        named = {f"final/{name}": value for name, value in results.items()}
        self.log(int(results.get("step", 0)), named)

    def close(self, status: Status) -> None:
        """End the run."""
        self._client.set_terminated(self.id, status=STATUSES[status])


open_run = MlflowRun


def metric_name(name: str) -> str:
    """Return a name that MLflow accepts: some characters of slices and labels are replaced."""
    parts = re.sub(r"[^\w\-. /]", "_", name)[:250].split("/")
    # It takes names for paths: no part may be empty, "." or "..".
    return "/".join(part if part.strip(".") else part.replace(".", "_") or "_" for part in parts)
