"""The report of a training run. It shows the progress of a running training, because browsers reload it regularly."""
from __future__ import annotations

import functools
import logging
import os
import time
from typing import Any

from src.errors import UserError
from src.report.page import known, run_contents, write_page
from src.run.launch import Stopped
from src.train.state import Schedule
from src.visualization.charts import Curves, read_run

logger = logging.getLogger("faster_rcnn")

NAME = "report.html"
REFRESH = 15  # seconds after which a browser reloads the page of a running training
MIN_SECONDS, MAX_SHARE = 5.0, 0.01  # minimum interval between updates; maximum share of the training time
SETTINGS = ("device_target", "mix", "backbone.name", "data.dataset_dir", "data.target_size", "batch_size", "accumulate_steps",
            "lr_init", "seed")


class TrainingReport:
    """Writes <save_dir>/report.html with the curves, the progress and the settings of a run.

    This takes less than MAX_SHARE of the training time. If the file cannot be written, an error is logged.

    Args:
        cfg: the configuration.
        processes: number of processes.
        schedule: schedule of the run.
    """

    def __init__(self, cfg: Any, processes: int, schedule: Schedule):
        self.folder, self.schedule = cfg.save_dir, schedule
        self.settings = {key: str(functools.reduce(getattr, key.split("."), cfg)) for key in SETTINGS}
        self.settings["processes"] = str(processes)

    def begin(self, global_step: int) -> None:
        """Load the metrics of an interrupted run that resumes at `global_step`, and write the page."""
        lines, self.evaluations = read_run(self.folder)
        self.curves = Curves(lines, self.schedule.steps_per_epoch)
        self.last: dict = {"global_step": global_step}
        self.write("running")

    def add(self, line: dict) -> None:
        """Add a line of metrics.jsonl, and write the page if an update is due."""
        self.curves.add(line)
        self.last = line
        if time.monotonic() >= self.next_time:
            self.write("running")

    def add_evaluation(self, line: dict) -> None:
        """Add a line of evaluations.jsonl, and write the page."""
        self.evaluations.append(line)
        self.write("running")

    def end(self, global_step: int, error: BaseException | None) -> None:
        """Write the page of a run that has ended after `global_step` steps, by the exception `error` or without one."""
        reason = "early, as the last evaluations had no better AP" if global_step < self.schedule.total_steps else ""
        if isinstance(error, Stopped):
            reason = "by a signal; --resume_ckpt auto goes on from the last checkpoint"
        elif error is not None:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.write("stopped" if error else "finished", reason)

    def write(self, state: str, reason: str = "") -> None:
        """Write the page with the state `running`, `finished` or `stopped`."""
        start = time.monotonic()
        contents = {"state": state, "reason": reason, "written": time.time(), "refresh": REFRESH,
                    "step": self.last["global_step"], "total": self.schedule.total_steps,
                    "steps_per_epoch": self.schedule.steps_per_epoch,
                    "left": known(self.last.get("eta_seconds")), "settings": self.settings,
                    **run_contents(self.curves, self.evaluations),
                    "evaluated": os.path.isfile(os.path.join(self.folder, "eval", NAME))}
        path = os.path.join(self.folder, NAME)
        try:
            write_page(path, "training.html.j2", f"Training: {os.path.basename(os.path.abspath(self.folder))}", contents,
                       REFRESH if state == "running" else 0)
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", path, error.strerror)
        now = time.monotonic()
        self.next_time = now + max(MIN_SECONDS, (now - start) / MAX_SHARE)
