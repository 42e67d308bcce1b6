"""The training loop."""
import contextlib
import logging
import os
import time

from src.dataset.sources import NOTHING_READABLE
from src.errors import UserError
from src.stop import Stopped
from src.train.divergence import Watch
from src.train.metrics import Progress
from src.train.optimizer import set_learning_rate
from src.train.reports import Reports
from src.train.schedule import learning_rate, scaled_base_rate
from src.train.statistics import average_statistics

logger = logging.getLogger("faster_rcnn")

# Columns of the pipeline that the network trains on: image, valid_size, boxes, labels, mask; the next one is image_id.
TRAINING_COLUMNS = 5


class Trainer:
    """Trains from a given state to the last epoch.

    Args:
        cfg: the configuration; network: FasterRCNN; step: TrainStep; optimizer: MindSpore optimizer;
        priorities: the random draws; pipeline: TrainPipeline that starts where `state` stands;
        unreadable: UnreadableLog; state: TrainingState; saver: Saver of that state; stop: StopSignals;
        group: the processes, see src.distributed, of which rank 0 writes;
        evaluate: function of a results folder that returns the metrics (on rank 0), or None.
    """

    def __init__(self, cfg, network, step, optimizer, priorities, pipeline, unreadable, state, saver, stop, group, evaluate=None):
        self.cfg = cfg
        self.network = network
        self.step = step
        self.optimizer = optimizer
        self.priorities = priorities
        self.pipeline = pipeline
        self.unreadable = unreadable
        self.state = state
        self.saver = saver
        self.stop = stop
        self.group = group
        self.evaluate = evaluate
        self.watch = Watch(cfg.mix)
        self.images_per_step = cfg.batch_size * group.size
        self.base_rate = scaled_base_rate(cfg, self.images_per_step)

    def run(self):
        """Train to the end.

        Raises:
            UserError: not one training image can be read; the loss or the gradients are not finite, see `Watch`; the last
                checkpoint could not be written.
            Stopped: after a signal, when the state is saved.
        """
        with self.stop, contextlib.closing(Reports(self.cfg, self.state, self.group.rank)) as self.reports:
            self._evaluate_if_due()
            if self.state.global_step >= self.cfg.epochs * self.pipeline.steps_per_epoch:
                logger.info("all %d epochs are done; give -o epochs=N with a larger N to train on", self.cfg.epochs)
                return
            self._train()
            if self.evaluate is None:
                self.reports.draw()
        if self.unreadable.count:
            logger.warning("%d of %d training images could not be read and were skipped", self.unreadable.count,
                           len(self.pipeline.records))
        if self.saver.failure:
            raise UserError(f"training is done, but {self.saver.failure}; make room and go on with --resume_ckpt auto.")

    def _train(self):
        steps_per_epoch = self.pipeline.steps_per_epoch
        path = os.path.join(self.cfg.save_dir, "metrics.jsonl") if self.group.rank == 0 else os.devnull
        progress = Progress(path, self.state.global_step, steps_per_epoch, self.cfg.epochs, self.images_per_step,
                            self.cfg.log_interval, self.reports.events, self.group.rank)
        with contextlib.closing(progress):
            self.stop.idle = True
            waiting_since = time.perf_counter()
            for batch in self.pipeline:
                self.stop.idle = False
                self._train_step(batch, time.perf_counter() - waiting_since, progress)
                paused_at = time.perf_counter()
                self._after_step()
                self.stop.idle = True
                waiting_since = time.perf_counter()
                progress.pause(waiting_since - paused_at)

    def _after_step(self):
        """Save and evaluate where it is time to; raises Stopped when the run is to end."""
        done, interval = self.state.global_step, self.cfg.save_interval_steps
        if done % self.pipeline.steps_per_epoch == 0:
            average_statistics(self.group, self.network)
            self.saver.save()
            self._evaluate_if_due()
        elif interval and done % interval == 0:
            self.saver.save()
        status = self.group.largest(self.stop.status)
        if status:
            if self.saver.saved_step != done:
                self.saver.save()
            raise Stopped(status)

    def _train_step(self, batch, waited, progress):
        unreadable = batch[-1].asnumpy()
        if NOTHING_READABLE in unreadable:
            self.unreadable.update([0])
            raise UserError(f"not one of the {len(self.pipeline.records)} training images can be read; above is the reason for "
                            "the first.")
        self.unreadable.update(unreadable)
        index = self.state.global_step
        rate = learning_rate(self.base_rate, self.cfg.lr, self.pipeline.steps_per_epoch, index)
        set_learning_rate(self.optimizer, rate)
        inputs = batch[:TRAINING_COLUMNS]
        draws = self.priorities.draw(index, padded_boxes=inputs[2].shape[1])
        losses, applied = self.step(*inputs, *draws)
        self.state.global_step += 1
        self.state.skipped_steps += not applied
        seconds = {"data_wait": waited, **self.step.all_reduce.take_seconds()}
        progress.add(index, losses, seconds, rate, self.state.loss_scale, self.state.skipped_steps)
        self.watch.check(index + 1, losses[0], applied, rate, batch[TRAINING_COLUMNS].asnumpy())

    def _evaluate_if_due(self):
        """Evaluate where an epoch has ended whose evaluation is due, and keep the best; a run may have ended before that."""
        epoch, steps = divmod(self.state.global_step, self.pipeline.steps_per_epoch)
        due = epoch > 0 and (epoch % self.cfg.eval_interval == 0 or epoch == self.cfg.epochs)
        if self.evaluate is None or steps or not due or self.state.evaluated >= epoch:
            return
        self.stop.idle = True
        metrics = self.evaluate(os.path.join(self.cfg.save_dir, "eval"))
        self.stop.idle = False
        self.state.evaluated = epoch
        self.reports.add_evaluation(epoch, self.state.global_step, metrics)
        best = self.group.broadcast(metrics is not None and metrics["AP"] > self.state.best_ap)
        if best and metrics is not None:
            self.state.best_ap = metrics["AP"]
        # Once more: a run that goes on from here must know that this is done, and what the best is.
        self.saver.save()
        if best:
            self.saver.save_best()
        self.reports.draw()
