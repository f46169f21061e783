"""Weights & Biases."""

import logging
import os
from collections.abc import Mapping

import wandb

from flaxbert.runtime.trackers.background import FINISH_SECONDS, Opening, Status

log = logging.getLogger("flaxbert")

INIT_SECONDS = 30.0
"""Time for the server to answer. A process that ends earlier waits for it."""


class WandbRun:
    """A run of Weights & Biases. Its variables, such as WANDB_PROJECT and WANDB_MODE, apply.

    Attributes:
      id: the id of the run, with which it resumes.
    """

    def __init__(self, opening: Opening):
        """Start or resume a run; without a key it is offline, since nobody answers a prompt."""
        self.id = opening.resumed or opening.id
        self._run = wandb.init(
            id=self.id,
            resume="allow",
            reinit="create_new",  # the program may have a run of its own
            project=opening.project or os.environ.get("WANDB_PROJECT") or "flaxbert",
            name=os.environ.get("WANDB_NAME") or opening.name,
            dir=opening.directory,
            config=dict(opening.settings),
            allow_val_change=True,
            settings=wandb.Settings(
                mode=_mode(opening),
                silent=True,
                console="off",  # it would capture what the program prints
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,  # also when the process ends
            ),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def summarize(self, results: Mapping[str, float]) -> None:
        """Add the results to the summary, where the last values of all metrics are too."""
        self._run.summary.update({f"final/{name}": value for name, value in results.items()})

    def close(self, status: Status) -> None:
        """Upload the rest."""
        if status == "stopped":
            self._run.mark_preempting()  # else it would be shown as crashed
        self._run.finish(exit_code=0 if status == "finished" else 1)


open_run = WandbRun


def _mode(opening: Opening) -> str:
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    if wandb.login(prompt=False, verify=False):
        return "online"
    log.info(
        "wandb: there is no API key (wandb login, or WANDB_API_KEY), so the run is offline; to "
        f"upload it later: wandb sync {opening.directory}/wandb/offline-run-*"
    )
    return "offline"
