"""The training loop."""
import logging
import os
import time

from src.dataset.sources import NOTHING_READABLE
from src.errors import UserError
from src.files import make_folder
from src.train.checkpoint import save_checkpoint
from src.train.exchange import average_statistics
from src.train.metrics import Progress
from src.train.optimizer import set_learning_rate
from src.train.schedule import learning_rate, scaled_base_rate
from src.train.watch import Watch

logger = logging.getLogger("faster_rcnn")

# Columns of the pipeline that the network trains on: image, valid_size, boxes, labels, mask; the next one is image_id.
TRAINING_COLUMNS = 5


class Trainer:
    """Trains from a given state to the last epoch.

    Args:
        cfg: the configuration; network: FasterRCNN; step: TrainOneStepCell; optimizer: MindSpore optimizer;
        priorities: the random draws; pipeline: TrainPipeline that starts where `state` stands;
        unreadable: UnreadableLog; state: TrainingState; group: the processes, see src.parallel, of which rank 0 writes;
        evaluate: function of a results folder that returns the metrics (on rank 0), or None.
    """

    def __init__(self, cfg, network, step, optimizer, priorities, pipeline, unreadable, state, group, evaluate=None):
        self.cfg = cfg
        self.network = network
        self.step = step
        self.optimizer = optimizer
        self.priorities = priorities
        self.pipeline = pipeline
        self.unreadable = unreadable
        self.state = state
        self.group = group
        self.evaluate = evaluate
        self.watch = Watch(cfg.mix)
        self.folder = os.path.join(cfg.save_dir, "checkpoint")
        if group.rank == 0:
            make_folder(self.folder)
        self.images_per_step = cfg.batch_size * group.size
        self.base_rate = scaled_base_rate(cfg, self.images_per_step)

    def run(self):
        """Train; returns the metrics of the last evaluation on rank 0, or None.

        Raises:
            UserError: not one training image can be read; the loss or the gradients are not finite, see `Watch`.
        """
        steps_per_epoch = self.pipeline.steps_per_epoch
        if self.state.global_step >= self.cfg.epochs * steps_per_epoch:
            logger.info("all %d epochs are done; give -o epochs=N with a larger N to train on", self.cfg.epochs)
            return None
        path = os.path.join(self.cfg.save_dir, "metrics.jsonl") if self.group.rank == 0 else os.devnull
        progress = Progress(path, self.state.global_step, steps_per_epoch, self.cfg.epochs, self.images_per_step,
                            self.cfg.log_interval)
        metrics = None
        try:
            waiting_since = time.perf_counter()
            for batch in self.pipeline:
                self._train_step(batch, time.perf_counter() - waiting_since, progress)
                if self.state.global_step % steps_per_epoch == 0:
                    paused_at = time.perf_counter()
                    metrics = self._end_epoch(self.state.global_step // steps_per_epoch) or metrics
                    progress.pause(time.perf_counter() - paused_at)
                waiting_since = time.perf_counter()
        finally:
            progress.close()
        if self.unreadable.count:
            logger.warning("%d of %d training images could not be read and were skipped", self.unreadable.count,
                           len(self.pipeline.records))
        return metrics

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
        seconds = {"data_wait": waited, **self.step.exchange.take_seconds()}
        progress.add(index, losses, seconds, rate, self.state.loss_scale, self.state.skipped_steps)
        self.watch.check(index + 1, losses[0], applied, rate, batch[TRAINING_COLUMNS].asnumpy())

    def _end_epoch(self, epoch):
        average_statistics(self.group, self.network)
        self._save(f"epoch{epoch}_rank0", epoch)
        due = epoch % self.cfg.eval_interval == 0 or epoch == self.cfg.epochs
        if self.evaluate is None or not due:
            return None
        metrics = self.evaluate(os.path.join(self.cfg.save_dir, "eval"))
        if metrics is not None and metrics["AP"] > self.state.best_ap:
            self.state.best_ap = metrics["AP"]
            # Once more: a run resumed from here must know what the best is.
            self._save(f"epoch{epoch}_rank0", epoch)
            self._save("best", epoch)
        return metrics

    def _save(self, suffix, epoch):
        if self.group.rank > 0:
            return
        name = f"{self.cfg.net}_{self.cfg.backbone.name}_{suffix}.ckpt"
        save_checkpoint(os.path.join(self.folder, name), self.network, self.optimizer, self.state.to_dict(epoch))
