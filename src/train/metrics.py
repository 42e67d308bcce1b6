"""Reporting of a training run: log lines, metrics.jsonl, evaluations.jsonl, report.html, TensorBoard files, progress bar and
curves."""
from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from src.errors import UserError
from src.evaluation.coco import KEYS
from src.models.faster_rcnn import LOSS_NAMES
from src.report.training_report import TrainingReport
from src.run.files import JsonLines
from src.run.launch import LONG_PAUSE, progress_bar
from src.run.run_folder import RunFolder
from src.run.signals import Stopped
from src.train.event_file import open_event_file
from src.train.saver import TrainState
from src.train.schedule import Schedule
from src.visualization.curves import draw_curves

logger = logging.getLogger("faster_rcnn")

# Names in the log for the parts of a step.
SHARES = {"data_wait": "waiting for data", "rank_wait": "waiting for other ranks", "all_reduce": "all-reduce"}
# TensorBoard tags for the values of a line of metrics.jsonl.
EVENT_TAGS = {**{name: f"loss/{name}" for name in LOSS_NAMES[1:]}, LOSS_NAMES[0]: "loss/total", "lr": "training/learning_rate",
              "loss_scale": "training/loss_scale", "images_per_second": "training/images_per_second"}


class Metrics:
    """Collects the metrics of each step and reports their means every cfg.log_interval steps. Only rank 0 writes files.

    Existing files in the run's folder keep their lines up to the step and the evaluation of `state`.

    Raises:
        UserError: a file is not writable, or cfg.tensorboard is set but tensorboardX is not installed.
    """

    def __init__(self, cfg, run: RunFolder, schedule: Schedule, state: TrainState):
        self.run, self.schedule, self.state = run, schedule, state
        self.log_interval = cfg.log_interval
        self.events = open_event_file(cfg, state.global_step, run.group.rank)
        self.evaluations = JsonLines(run.file("evaluations.jsonl"), "epoch", state.evaluated)
        self.lines = JsonLines(run.file("metrics.jsonl"), "global_step", state.global_step)
        self.report = None if run.group.rank else TrainingReport(cfg, run.group.size, schedule)
        self.bar = progress_bar("training", "step", schedule.total_steps, run.group.rank, initial=state.global_step)
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
            self.report.write(*self._end(error))

    def _end(self, error):
        """Return the final status for the report, and why the run ended."""
        if isinstance(error, Stopped):
            return "stopped", "by a signal; --resume_ckpt auto goes on from the last checkpoint"
        if error is not None:
            return "stopped", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        early = self.state.global_step < self.schedule.total_steps
        return "finished", "early, as the last evaluations had no better AP" if early else ""

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

    def add(self, losses: np.ndarray, learning_rate: float, loss_scale: float, seconds: dict[str, float]) -> None:
        """Add the step that `state` has just counted, and report if it is the last step of an interval.

        Args:
            losses: (5,) in the order of LOSS_NAMES.
            learning_rate: learning rate of the step.
            loss_scale: loss scale after the step.
            seconds: duration of the parts of the step; the keys are in SHARES.
        """
        self.losses.append(losses)
        self.seconds.update(seconds)
        self.bar.set_postfix_str(f"loss {losses[0]:.4f}", refresh=False)
        self.bar.update()
        if self.state.global_step % self.log_interval == 0 or self.schedule.ends_epoch(self.state.global_step):
            self._report(learning_rate, loss_scale)
            self._start_interval()

    def _report(self, learning_rate, loss_scale):
        schedule, done = self.schedule, self.state.global_step
        interval = time.perf_counter() - self.started
        steps = len(self.losses)
        shares = {name: part / interval for name, part in self.seconds.items()}
        epoch, step = schedule.position(done - 1)
        line: dict = {"epoch": epoch + 1, "step": step + 1, "global_step": done}
        line.update(zip(LOSS_NAMES, np.mean(self.losses, axis=0, dtype=np.float64).tolist()))
        line.update(lr=learning_rate, loss_scale=loss_scale, skipped_steps=self.state.skipped_steps,
                    images_per_second=steps * schedule.images_per_step / interval, **shares,
                    eta_seconds=(schedule.total_steps - done) * interval / steps)
        self.lines.write(line)
        if self.report:
            self.report.add(line)
        if self.events:
            self.events.add(done, {tag: line[name] for name, tag in EVENT_TAGS.items()})
        logger.info(
            "epoch %d/%d step %d/%d  loss %.4f (rpn_cls %.4f rpn_box %.4f roi_cls %.4f roi_box %.4f)  lr %.3g  scale %g  "
            "skipped %d  %.2f images/s  %s  left %s", line["epoch"], schedule.epochs, line["step"], schedule.steps_per_epoch,
            *(line[name] for name in LOSS_NAMES), learning_rate, loss_scale, line["skipped_steps"], line["images_per_second"],
            "  ".join(f"{SHARES[name]} {100 * share:.0f}%" for name, share in shares.items()), _clock(line["eta_seconds"]))

    def add_evaluation(self, metrics: dict) -> None:
        """Report the scores of src.evaluation.coco.score for the epoch that just ended. Called on rank 0."""
        scores = {key: metrics[key] for key in KEYS}
        step = self.state.global_step
        line = {"epoch": self.schedule.position(step)[0], "global_step": step, **scores}
        self.evaluations.write(line)
        if self.report:
            self.report.add_evaluation(line)
        if self.events:
            # COCO's -1 means that no ground-truth box exists.
            self.events.add(step, {f"evaluation/{key}": value for key, value in scores.items() if value >= 0})

    def draw_curves(self) -> None:
        """Draw the curves of the run so far, on rank 0. Errors are logged."""
        if self.run.group.rank:
            return
        try:
            draw_curves(self.run.path)
        except (ImportError, OSError) as error:
            logger.error("%s could not be drawn (%s); training goes on", self.run.file("curves.png"), error)


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
