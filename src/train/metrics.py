"""Reports of a training run: log, progress bar, metrics.jsonl, evaluations.jsonl, report.html, curves and TensorBoard files."""
from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from src.config import Config
from src.evaluation.coco import KEYS
from src.models.faster_rcnn import LOSS_NAMES
from src.run.files import JsonLines
from src.run.launch import LONG_PAUSE, progress_bar
from src.run.optional import reports, visualization
from src.run.run_folder import RunFolder
from src.train.state import Schedule, TrainState

logger = logging.getLogger("faster_rcnn")

# Names in the log for the parts of a step.
SHARES = {"data_wait": "waiting for data", "rank_wait": "waiting for other ranks", "all_reduce": "all-reduce"}


class Metrics:
    """Collects the metrics of each step and reports their means every cfg.log_interval steps. Only rank 0 writes files.

    Existing files in the run's folder keep their lines up to the step and the evaluation of `state`. A UserError is raised if a
    file is not writable, or if cfg.tensorboard is set but tensorboardX is not installed.
    """

    def __init__(self, cfg: Config, run: RunFolder, schedule: Schedule, state: TrainState):
        self.run, self.schedule, self.state, self.log_interval = run, schedule, state, cfg.log_interval
        rank, step = run.group.rank, state.global_step
        pages = reports() if rank == 0 else None
        self.events = pages.EventFile(os.path.join(run.path, "tensorboard"), step) if pages and cfg.tensorboard else None
        self.evaluations = JsonLines(run.file("evaluations.jsonl"), "epoch", state.evaluated)
        self.lines = JsonLines(run.file("metrics.jsonl"), "global_step", step)
        self.report = pages.TrainingReport(cfg, run.group.size, schedule) if pages else None
        self.bar = progress_bar("training", "step", schedule.total_steps, rank, initial=step)
        self._start_interval()

    def __enter__(self) -> Metrics:
        if self.report:
            self.report.begin(self.state.global_step)
        return self

    def __exit__(self, _, error: BaseException | None, __) -> None:
        self.bar.close()
        self.lines.close()
        self.evaluations.close()
        if self.report:
            self.report.end(self.state.global_step, error)

    def _start_interval(self):
        self.losses, self.seconds, self.started = [], Counter(), time.perf_counter()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude a block that is not training, such as an evaluation or a checkpoint, from the measured speed."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.started += seconds
        if seconds > LONG_PAUSE:
            self.bar.unpause()

    def reports(self, done: int) -> bool:
        """Return whether a line is due after `done` steps: at the end of an interval or of an epoch."""
        return done % self.log_interval == 0 or self.schedule.ends_epoch(done)

    def add(self, losses: np.ndarray, learning_rate: float, loss_scale: float, seconds: dict[str, float]) -> None:
        """Add the step that `state` has just counted, and report if it is the last step of an interval.

        The losses (5,) are in the order of LOSS_NAMES, `loss_scale` is the value after the step, and `seconds` are the durations
        of the step's parts; the keys are in SHARES.
        """
        self.losses.append(losses)
        self.seconds.update(seconds)
        self.bar.set_postfix_str(f"loss {losses[0]:.4f}", refresh=False)
        self.bar.update()
        if self.reports(self.state.global_step):
            self._report(learning_rate, loss_scale)
            self._start_interval()

    def _report(self, learning_rate, loss_scale):
        schedule, done, steps = self.schedule, self.state.global_step, len(self.losses)
        interval = time.perf_counter() - self.started
        shares = {name: part / interval for name, part in self.seconds.items()}
        epoch, step = schedule.position(done - 1)
        line: dict = {"epoch": epoch + 1, "step": step + 1, "global_step": done,
                      **dict(zip(LOSS_NAMES, np.mean(self.losses, axis=0, dtype=np.float64).tolist())),
                      "lr": learning_rate, "loss_scale": loss_scale, "skipped_steps": self.state.skipped_steps,
                      "images_per_second": steps * schedule.images_per_step / interval, **shares,
                      "eta_seconds": (schedule.total_steps - done) * interval / steps}
        self.lines.write(line)
        if self.report:
            self.report.add(line)
        if self.events:
            self.events.add(done, line)
        minutes, seconds = divmod(int(line["eta_seconds"]), 60)
        logger.info(
            "epoch %d/%d step %d/%d  loss %.4f (rpn_cls %.4f rpn_box %.4f roi_cls %.4f roi_box %.4f)  lr %.3g  scale %g  "
            "skipped %d  %.2f images/s  %s  left %d:%02d:%02d", line["epoch"], schedule.epochs, line["step"],
            schedule.steps_per_epoch, *(line[name] for name in LOSS_NAMES), learning_rate, loss_scale, line["skipped_steps"],
            line["images_per_second"], "  ".join(f"{SHARES[name]} {100 * share:.0f}%" for name, share in shares.items()),
            minutes // 60, minutes % 60, seconds)

    def add_evaluation(self, metrics: dict) -> None:
        """Report the scores of src.evaluation.coco.score for the epoch that just ended. Called on rank 0."""
        scores = {key: metrics[key] for key in KEYS}
        step = self.state.global_step
        line = {"epoch": self.schedule.position(step)[0], "global_step": step, **scores}
        self.evaluations.write(line)
        if self.report:
            self.report.add_evaluation(line)
        if self.events:
            self.events.add(step, scores)

    def draw_curves(self) -> None:
        """Draw the curves of the run so far, on rank 0. Errors are logged."""
        pictures = visualization() if self.run.group.rank == 0 else None
        try:
            if pictures:
                pictures.draw_curves(self.run.path)
        except (ImportError, OSError) as error:
            logger.error("%s could not be drawn (%s); training goes on", self.run.file("curves.png"), error)
