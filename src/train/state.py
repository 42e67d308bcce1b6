"""Where a training run stands, beside its weights and momenta, and how it is taken up again."""
import logging

from mindspore import Tensor

from src.train.checkpoint import load_moments, load_weights

logger = logging.getLogger("faster_rcnn")


class TrainingState:
    """Counters of a run.

    Args:
        seed: of the run; scaler: mindspore.amp's, whose scale belongs to the state.

    Attributes:
        global_step: steps done; skipped_steps: of these, skipped for overflow; best_ap: of the evaluations so far.
    """

    def __init__(self, seed, scaler):
        self.seed = seed
        self.scaler = scaler
        self.global_step = 0
        self.skipped_steps = 0
        self.best_ap = -1.0

    @property
    def loss_scale(self):
        return float(self.scaler.scale_value.asnumpy())

    def to_dict(self, epoch):
        """What a checkpoint holds beside weights and momenta; `epoch` is the number of epochs completed."""
        progress = {"epoch": epoch, "global_step": self.global_step, "skipped_steps": self.skipped_steps,
                    "best_ap": self.best_ap, "seed": self.seed, "loss_scale": self.loss_scale}
        if hasattr(self.scaler, "counter"):
            progress["loss_scale_counter"] = int(self.scaler.counter.asnumpy())
        return progress

    def take_up(self, progress, steps_per_epoch):
        """Stand where an earlier run stood after its last whole epoch.

        Args:
            progress: what `to_dict` gave; steps_per_epoch: of this run, which may be another number than that one's.
        """
        self.global_step = progress["epoch"] * steps_per_epoch
        self.skipped_steps = progress["skipped_steps"]
        self.best_ap = progress["best_ap"]
        if "loss_scale_counter" in progress and hasattr(self.scaler, "counter"):
            self.scaler.scale_value.set_data(Tensor(progress["loss_scale"], self.scaler.scale_value.dtype))
            self.scaler.counter.set_data(Tensor(progress["loss_scale_counter"], self.scaler.counter.dtype))


def load_run(network, optimizer, stored, progress, path):
    """Copy a checkpoint's weights, and its momenta where training can go on from them.

    A checkpoint of weights alone, or one of a network with other classes, gives its weights only.

    Args:
        network: FasterRCNN; optimizer: MindSpore optimizer; stored: from `read_checkpoint`; progress: its `progress_of`;
        path: for messages.

    Returns:
        `progress`, or an empty dict where training starts at step 0.

    Raises:
        UserError: the checkpoint does not fit the network.
    """
    skipped = load_weights(network, stored, path, allow_other_classes=True)
    if not progress or skipped:
        logger.info("training starts at step 0 from the weights of %s", path)
        return {}
    load_moments(optimizer, stored, path)
    logger.info("resuming after epoch %d of %s", progress["epoch"], path)
    return progress
