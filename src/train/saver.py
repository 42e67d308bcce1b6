"""The checkpoints that a run writes: how they are called, and which are kept."""
import logging
import os
import re

from src.files import make_folder, remove_partial
from src.train.checkpoint import save_checkpoint
from src.train.statistics import gather_statistics

logger = logging.getLogger("faster_rcnn")


class Saver:
    """Writes the checkpoints of a run into <save_dir>/checkpoint.

    Args:
        cfg: the configuration; network: FasterRCNN; optimizer: MindSpore optimizer; state: TrainingState;
        group: the processes, see src.distributed, of which rank 0 writes; steps_per_epoch: of the run;
        outputs: what copies each checkpoint elsewhere, see src.modelarts; class_names: which each checkpoint keeps, or None.

    Attributes:
        saved_step: of the last checkpoint, or None; failure: on rank 0, why that could not be written, or None.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, cfg, network, optimizer, state, group, steps_per_epoch, outputs, class_names=None):
        self.folder, self.name = folder_and_name(cfg)
        self.keep = cfg.keep_checkpoint_max
        self.network = network
        self.optimizer = optimizer
        self.state = state
        self.group = group
        self.steps_per_epoch = steps_per_epoch
        self.outputs = outputs
        self.class_names = class_names
        self.images_per_step = cfg.batch_size * group.size
        self.saved_step = self.failure = None
        if group.rank == 0:
            remove_partial(make_folder(self.folder))

    def save(self):
        """Write a checkpoint of the state, and remove those beyond the `keep` newest; all ranks call this together.

        If it cannot be written, the log says so, and all earlier ones stay.
        """
        epoch, steps = divmod(self.state.global_step, self.steps_per_epoch)
        written = self._write(f"epoch{epoch + 1}_step{steps}_rank0" if steps else f"epoch{epoch}_rank0")
        if written and self.group.rank == 0:
            for path in newest_first(self.folder, self.name)[self.keep:]:
                os.remove(path)
                logger.info("removed %s (keep_checkpoint_max is %d)", path, self.keep)
        self.outputs.copy()

    def save_best(self):
        """Write the state's checkpoint also as the best one; all ranks call this together."""
        self._write("best")
        self.outputs.copy()

    def _write(self, suffix):
        """-> whether it was written, which all ranks wait for: any of them may end the run next."""
        statistics = gather_statistics(self.group, self.network)
        self.saved_step = self.state.global_step
        return self.group.broadcast(self._write_file(suffix, statistics) if self.group.rank == 0 else None)

    def _write_file(self, suffix, statistics):
        path = os.path.join(self.folder, f"{self.name}_{suffix}.ckpt")
        try:
            progress = self.state.to_dict(self.steps_per_epoch, self.images_per_step)
            save_checkpoint(path, self.network, self.optimizer, progress, statistics, self.class_names)
        except OSError as error:
            self.failure = f"{path} could not be written ({error.strerror or error})"
            logger.error("%s; training goes on, and earlier checkpoints are as they were", self.failure)
            return False
        self.failure = None
        return True


def folder_and_name(cfg):
    """The folder of a run's checkpoints, and how their names begin."""
    return os.path.join(cfg.save_dir, "checkpoint"), f"{cfg.net}_{cfg.backbone.name}"


def newest_first(folder, name):
    """The paths of a run's checkpoints of epochs and steps."""
    pattern = re.compile(rf"{re.escape(name)}_epoch(\d+)(?:_step(\d+))?_rank0\.ckpt")
    found = [match for match in map(pattern.fullmatch, os.listdir(folder) if os.path.isdir(folder) else ()) if match]

    def age(match):
        # Files that were copied together may have one time.
        epoch, step = int(match[1]), int(match[2] or 0)
        return os.stat(os.path.join(folder, match[0])).st_mtime_ns, epoch - (step > 0), step

    return [os.path.join(folder, match[0]) for match in sorted(found, key=age, reverse=True)]
