"""What training reports: one log line and one JSON line every `log_interval` steps."""
import contextlib
import json
import logging
import os
import time
from collections import Counter

import numpy as np

from src.errors import UserError
from src.files import whole_file
from src.models.faster_rcnn import LOSS_NAMES

logger = logging.getLogger("faster_rcnn")

# What parts of a step are called in the log.
SHARES = {"data_wait": "waiting for data", "rank_wait": "waiting for other ranks", "exchange": "exchange"}


class Progress:
    """Collects the figures of single steps and reports their means.

    Where the disk is full the log says so, and the lines wait for room.

    Args:
        path: of the JSON-lines file; start_step: where the run begins: lines of earlier steps stay in the file;
        steps_per_epoch, epochs: of the run; images_per_step; log_interval: steps a line.

    Raises:
        UserError: the file cannot be written to.
    """

    def __init__(self, path, start_step, steps_per_epoch, epochs, images_per_step, log_interval):
        try:
            if os.path.isfile(path):
                _drop_lines_after(path, start_step)
            self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 open as long as the run
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --save_dir.") from error
        self.path = path
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * epochs
        self.epochs = epochs
        self.images_per_step = images_per_step
        self.log_interval = log_interval
        self._start_interval()

    def _start_interval(self):
        self.losses, self.seconds, self.started = [], Counter(), time.perf_counter()

    def pause(self, seconds):
        """Leave time that was not training (an evaluation, a checkpoint) out of the speed."""
        self.started += seconds

    def add(self, step, losses, seconds, rate, loss_scale, skipped):
        """Report if an interval ends with this step.

        Args:
            step: number of the step in the run, from 0; losses: (5,) in the order of LOSS_NAMES;
            seconds: what parts of the step took, a dict; `data_wait` is the wait for data; rate: learning rate;
            skipped: steps skipped so far.
        """
        self.losses.append(losses)
        self.seconds.update(seconds)
        done = step + 1
        if done % self.log_interval and done % self.steps_per_epoch:
            return
        interval = time.perf_counter() - self.started
        steps = len(self.losses)
        shares = {name: part / interval for name, part in self.seconds.items()}
        line = {"epoch": step // self.steps_per_epoch + 1, "step": step % self.steps_per_epoch + 1, "global_step": done}
        line.update(zip(LOSS_NAMES, np.mean(self.losses, axis=0, dtype=np.float64).tolist()))
        line.update(lr=rate, loss_scale=loss_scale, skipped_steps=skipped,
                    images_per_second=steps * self.images_per_step / interval, **shares,
                    eta_seconds=(self.total_steps - done) * interval / steps)
        # JSON has no NaN.
        self._write(json.dumps({k: v if np.isfinite(v) else None for k, v in line.items()}) + "\n")
        logger.info(
            "epoch %d/%d step %d/%d  loss %.4f (rpn_cls %.4f rpn_box %.4f roi_cls %.4f roi_box %.4f)  lr %.3g  scale %g  "
            "skipped %d  %.2f images/s  %s  left %s", line["epoch"], self.epochs, line["step"],
            self.steps_per_epoch, *(line[name] for name in LOSS_NAMES), rate, loss_scale, skipped, line["images_per_second"],
            "  ".join(f"{SHARES[name]} {100 * share:.0f}%" for name, share in shares.items()), _clock(line["eta_seconds"]))
        self._start_interval()

    def close(self):
        self._write("")
        # What still does not fit on the disk is lost now: a second failure has nothing to add to the log.
        with contextlib.suppress(OSError):
            self.file.close()

    def _write(self, text):
        # What the disk does not take stays in the buffer of the file, for the next time.
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", self.path, error.strerror)


def _drop_lines_after(path, step):
    """Leave only the lines that report steps up to number `step`: the others will be written again."""
    if step == 0:
        os.remove(path)
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    steps = [_global_step(line) for line in lines]
    damaged = steps.count(None)
    if damaged:
        logger.warning("%s: %d lines that cannot be read are left out", path, damaged)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(line for line, reported in zip(lines, steps) if reported is not None and reported <= step)


def _global_step(line):
    """The step that a line reports, or None where a crash has cut it off or it is none of this program's."""
    try:
        return int(json.loads(line)["global_step"]) if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
