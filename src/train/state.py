"""Where a training run stands, beside its weights and momenta."""
from mindspore import Tensor


class TrainingState:
    """Counters of a run.

    Args:
        seed: of the run; scaler: mindspore.amp's, whose scale belongs to the state.

    Attributes:
        global_step: steps done; skipped_steps: of these, skipped for overflow; evaluated: number of the last epoch that was;
        best_ap: of the evaluations so far.
    """

    def __init__(self, seed, scaler):
        self.seed = seed
        self.scaler = scaler
        self.global_step = 0
        self.skipped_steps = 0
        self.evaluated = 0
        self.best_ap = -1.0

    @property
    def loss_scale(self):
        return float(self.scaler.scale_value.asnumpy())

    def to_dict(self, steps_per_epoch, images_per_step):
        """What a checkpoint holds beside weights and momenta; `epoch` is the number of epochs completed."""
        epoch, steps = divmod(self.global_step, steps_per_epoch)
        progress = {"epoch": epoch, "epoch_images": steps * images_per_step, "global_step": self.global_step,
                    "skipped_steps": self.skipped_steps, "evaluated": self.evaluated, "best_ap": self.best_ap,
                    "seed": self.seed, "loss_scale": self.loss_scale}
        if hasattr(self.scaler, "counter"):
            progress["loss_scale_counter"] = int(self.scaler.counter.asnumpy())
        return progress

    def take_up(self, progress, steps_per_epoch, images_per_step):
        """Stand where an earlier run stood, after as many epochs and as many images of the next one.

        Args:
            progress: what `to_dict` gave; steps_per_epoch, images_per_step: of this run, which may differ from that one's.
        """
        steps = min(progress["epoch_images"] // images_per_step, steps_per_epoch - 1)
        self.global_step = progress["epoch"] * steps_per_epoch + steps
        self.skipped_steps = progress["skipped_steps"]
        self.evaluated = progress["evaluated"]
        self.best_ap = progress["best_ap"]
        if "loss_scale_counter" in progress and hasattr(self.scaler, "counter"):
            self.scaler.scale_value.set_data(Tensor(progress["loss_scale"], self.scaler.scale_value.dtype))
            self.scaler.counter.set_data(Tensor(progress["loss_scale_counter"], self.scaler.counter.dtype))
