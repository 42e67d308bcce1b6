"""The report of a training run. It shows the progress of a running training, because browsers reload it regularly."""
from __future__ import annotations

import functools
import logging
import math
import os
import time
from array import array
from collections import defaultdict

import numpy as np

from src.evaluation.coco import KEYS
from src.models.faster_rcnn import LOSS_NAMES
from src.report.page import write_page
from src.run.files import read_json_lines
from src.train.schedule import Schedule
from src.visualization.curves import MAX_POINTS, column, epochs_of, group_means

logger = logging.getLogger("faster_rcnn")

NAME = "report.html"
REFRESH = 15  # seconds after which a browser reloads the page of a running training
MIN_SECONDS, MAX_SHARE = 5.0, 0.01  # minimum interval between updates; maximum share of the training time
SERIES = (*LOSS_NAMES, "lr", "images_per_second", "data_wait", "rank_wait", "all_reduce")
SCORES = KEYS[:3]
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

    def __init__(self, cfg, processes: int, schedule: Schedule):
        self.folder, self.steps_per_epoch, self.total_steps = cfg.save_dir, schedule.steps_per_epoch, schedule.total_steps
        self.settings = {key: str(functools.reduce(getattr, key.split("."), cfg)) for key in SETTINGS}
        self.settings["processes"] = str(processes)
        self.columns, self.evaluations = defaultdict(lambda: array("d")), []
        self.last: dict = {}
        self.next_time = 0.0

    def begin(self, global_step: int) -> None:
        """Load the metrics of an interrupted run that resumes at `global_step`, and write the page."""
        lines, self.evaluations = (self._read(name, key) for name, key in (("metrics.jsonl", "global_step"),
                                                                           ("evaluations.jsonl", "epoch")))
        self.columns["x"].extend(epochs_of(lines).tolist())
        for name in SERIES:
            self.columns[name].extend(column(lines, name).tolist())
        self.last = {"global_step": global_step}
        self.write("running")

    def add(self, line: dict) -> None:
        """Add a line of metrics.jsonl, and write the page if an update is due."""
        self.columns["x"].append(line["epoch"] - 1 + line["step"] / self.steps_per_epoch)
        for name in SERIES:
            self.columns[name].append(line.get(name, math.nan))
        self.last = line
        if time.monotonic() >= self.next_time:
            self.write("running")

    def add_evaluation(self, line: dict) -> None:
        """Add a line of evaluations.jsonl, and write the page."""
        self.evaluations.append(line)
        self.write("running")

    def write(self, state: str, reason: str = "") -> None:
        """Write the page with the state `running`, `finished` or `stopped`."""
        start = time.monotonic()
        contents = {"state": state, "reason": reason, "written": time.time(), "refresh": REFRESH,
                    "step": self.last["global_step"], "total": self.total_steps, "steps_per_epoch": self.steps_per_epoch,
                    "left": _known(self.last.get("eta_seconds")),
                    "settings": self.settings, "curves": self._curves(), "evaluations": self._evaluations(),
                    "evaluated": os.path.isfile(os.path.join(self.folder, "eval", NAME))}
        path = os.path.join(self.folder, NAME)
        try:
            write_page(path, "training.html.j2", f"Training: {os.path.basename(os.path.abspath(self.folder))}", contents,
                       REFRESH if state == "running" else 0)
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", path, error.strerror)
        now = time.monotonic()
        self.next_time = now + max(MIN_SECONDS, (now - start) / MAX_SHARE)

    def _read(self, name, key):
        path = os.path.join(self.folder, name)
        return read_json_lines(path, key) if os.path.isfile(path) else []

    def _curves(self):
        """Return {name: at most MAX_POINTS values, means of neighbours}. Names without any finite value are left out."""
        group = max(1, math.ceil(len(self.columns["x"]) / MAX_POINTS))
        means = {name: group_means(np.array(values), group) for name, values in self.columns.items()}
        return {name: [_known(value) for value in values.tolist()] for name, values in means.items() if np.isfinite(values).any()}

    def _evaluations(self):
        return {"epoch": [line["epoch"] for line in self.evaluations],
                **{key: [_known(line.get(key)) for line in self.evaluations] for key in SCORES}}


def _known(value):
    """Return the number with six significant digits, or None if it is not a finite number or is negative, as COCO's -1."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        return None
    return float(f"{value:.6g}")
