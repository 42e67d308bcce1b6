"""What training reports: one log line and one JSON line every `log_interval` steps."""
import logging
import time
from collections import Counter

import numpy as np

from src.json_lines import JsonLines
from src.models.faster_rcnn import LOSS_NAMES
from src.progress_bar import LONG_PAUSE, progress_bar

logger = logging.getLogger("faster_rcnn")

# What parts of a step are called in the log.
SHARES = {"data_wait": "waiting for data", "rank_wait": "waiting for other ranks", "all_reduce": "all-reduce"}
# What TensorBoard calls the figures of a line.
EVENT_TAGS = {**{name: f"loss/{name}" for name in LOSS_NAMES[1:]}, LOSS_NAMES[0]: "loss/total", "lr": "training/learning_rate",
              "loss_scale": "training/loss_scale", "images_per_second": "training/images_per_second"}


class Progress:
    """Collects the figures of single steps and reports their means.

    Args:
        path: of the JSON-lines file; start_step: where the run begins: lines of earlier steps stay in the file;
        steps_per_epoch, epochs: of the run; images_per_step; log_interval: steps a line;
        events: EventFile that gets the figures as well, or None; rank: only 0 has a progress bar.

    Raises:
        UserError: the file cannot be written to.
    """

    def __init__(self, path, start_step, steps_per_epoch, epochs, images_per_step, log_interval, events=None, rank=0):
        self.lines = JsonLines(path, "global_step", start_step)
        self.events = events
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * epochs
        self.epochs = epochs
        self.images_per_step = images_per_step
        self.log_interval = log_interval
        self.bar = progress_bar("training", "step", self.total_steps, rank, initial=start_step)
        self._start_interval()

    def _start_interval(self):
        self.losses, self.seconds, self.started = [], Counter(), time.perf_counter()

    def pause(self, seconds):
        """Leave time that was not training (an evaluation, a checkpoint) out of the speed."""
        self.started += seconds
        if seconds > LONG_PAUSE:
            self.bar.unpause()

    def add(self, step, losses, seconds, rate, loss_scale, skipped):
        """Report if an interval ends with this step.

        Args:
            step: number of the step in the run, from 0; losses: (5,) in the order of LOSS_NAMES;
            seconds: what parts of the step took, a dict; `data_wait` is the wait for data; rate: learning rate;
            skipped: steps skipped so far.
        """
        self.losses.append(losses)
        self.seconds.update(seconds)
        self.bar.set_postfix_str(f"loss {losses[0]:.4f}", refresh=False)
        self.bar.update()
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
        self.lines.write(line)
        if self.events:
            self.events.add(done, {tag: line[name] for name, tag in EVENT_TAGS.items()})
        logger.info(
            "epoch %d/%d step %d/%d  loss %.4f (rpn_cls %.4f rpn_box %.4f roi_cls %.4f roi_box %.4f)  lr %.3g  scale %g  "
            "skipped %d  %.2f images/s  %s  left %s", line["epoch"], self.epochs, line["step"],
            self.steps_per_epoch, *(line[name] for name in LOSS_NAMES), rate, loss_scale, skipped, line["images_per_second"],
            "  ".join(f"{SHARES[name]} {100 * share:.0f}%" for name, share in shares.items()), _clock(line["eta_seconds"]))
        self._start_interval()

    def close(self):
        self.bar.close()
        self.lines.close()


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
