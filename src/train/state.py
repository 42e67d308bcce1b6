"""The schedule of a training run, its counters, the checkpoint that it starts from, and the checkpoints that it writes."""
from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from src.checkpoint import Checkpoint, check_progress, load_moments, load_weights, read_checkpoint, texts_of, write_checkpoint
from src.config import Config
from src.errors import UserError
from src.run.distributed import Group
from src.run.files import PARTIAL, writing_into
from src.run.modelarts import AUTO, download_checkpoint
from src.run.run_folder import RunFolder
from src.train.parallel import broadcast_parameters, gather_statistics, restore_statistics
from src.train.step import TrainStep

logger = logging.getLogger("faster_rcnn")


class Schedule:
    """The learning-rate, checkpoint and evaluation schedule. Steps are counted from 0: i + 1 steps are done after step i.

    In each step, every process computes cfg.accumulate_steps micro-batches and updates the weights once. `lr_init` is scaled
    linearly from `lr.base_batch_size` images per step to `images_per_step` (arXiv:1706.02677), unless that setting is 0.

    Attributes:
        images_per_step: number of images per step over all processes.
        steps_per_epoch: number of steps per epoch.
        epochs: number of epochs of the run.
        total_steps: number of steps of the run.
        early_stop: number of evaluations without a better AP after which training ends; 0 disables it.
    """

    def __init__(self, cfg: Config, steps_per_epoch: int, group: Group):
        self.images_per_step = cfg.batch_size * cfg.accumulate_steps * group.size
        self.steps_per_epoch = steps_per_epoch
        self.epochs, self.total_steps, self.early_stop = cfg.epochs, cfg.epochs * steps_per_epoch, cfg.early_stop
        self._cfg, self._base_rate, base = cfg, cfg.lr_init, cfg.lr.base_batch_size
        if base:
            self._base_rate = cfg.lr_init * self.images_per_step / base
            logger.info("learning rate: %g for %d images per step, scaled to %g for %d images per step (lr.base_batch_size=0 "
                        "disables the scaling)", cfg.lr_init, base, self._base_rate, self.images_per_step)
        # In steps, exact. Fraction(str(0.1)) is 1/10.
        self._milestones = [Fraction(str(milestone)) * (steps_per_epoch if isinstance(milestone, int) else self.total_steps)
                            for milestone in cfg.lr.milestones]
        first = next(iter(cfg.lr.milestones), self.epochs)
        if isinstance(first, int) and 2 * first < self.epochs and cfg.lr.decay_rate < 1:
            logger.warning("lr.milestones %s: %d of %d epochs have a reduced learning rate; fractions of the training, such as "
                           "-o \"lr.milestones=[2/3,11/12]\", follow the number of epochs", cfg.lr.milestones,
                           self.epochs - first, self.epochs)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number `step`. During the first `warmup_step` steps it grows linearly from
        warmup_ratio times the base rate. Each milestone multiplies it by `decay_rate`."""
        lr = self._cfg.lr
        passed = sum(step >= milestone for milestone in self._milestones)
        rate = self._base_rate * lr.decay_rate**passed
        if step < lr.warmup_step:
            rate *= lr.warmup_ratio + (1 - lr.warmup_ratio) * step / lr.warmup_step
        return rate

    def position(self, done: int) -> tuple[int, int]:
        """Return the number of complete epochs after `done` steps, and the number of steps done in the current epoch."""
        return divmod(done, self.steps_per_epoch)

    def ends_epoch(self, done: int) -> bool:
        """Return whether an epoch ends after `done` steps."""
        return done % self.steps_per_epoch == 0

    def saves_inside_epoch(self, done: int) -> bool:
        """Return whether save_interval_steps requires a checkpoint after `done` steps."""
        return self._cfg.save_interval_steps > 0 and done % self._cfg.save_interval_steps == 0

    def evaluates(self, epoch: int) -> bool:
        """Return whether an evaluation is due after `epoch` complete epochs."""
        return epoch > 0 and (epoch % self._cfg.eval_interval == 0 or epoch == self.epochs)


@dataclass
class TrainState:
    """Counters of a run. Epochs are counted from 1."""
    seed: int                  # random seed of the run
    global_step: int = 0       # number of completed steps
    skipped_steps: int = 0     # number of completed steps that were skipped because of overflow
    evaluated: int = 0         # last evaluated epoch
    best_ap: float = -1.0      # best AP so far, rounded to float32 as in checkpoints
    best_epoch: int = 0        # epoch of the best AP, 0 if unknown
    evals_since_best: int = 0  # number of evaluations since the best AP
    skipped_in_a_row: int = 0  # number of consecutive skipped steps up to now, since this process started

    def advance(self, applied: bool) -> None:
        """Count a step. `applied` is False if the step was skipped."""
        self.global_step += 1
        self.skipped_steps += not applied
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1

    def add_evaluation(self, epoch: int, ap: float) -> bool:
        """Count an evaluation after `epoch` epochs. Return whether its AP is the best so far."""
        self.evaluated, self.evals_since_best = epoch, self.evals_since_best + 1
        ap = float(np.float32(ap))  # so that a resumed run makes the same decisions
        is_best = ap > self.best_ap
        if is_best:
            self.best_ap, self.best_epoch, self.evals_since_best = ap, epoch, 0
        return is_best

    def is_over(self, schedule: Schedule) -> bool:
        """Return whether training is over: all epochs are done, or the last `early_stop` evaluations did not improve the AP.
        Early stopping is logged."""
        if self.global_step >= schedule.total_steps:
            return True
        if not schedule.early_stop or self.evals_since_best < schedule.early_stop:
            return False
        logger.info("training ends early, after epoch %d of %d: the last %d evaluations had no better AP than the %.4f%s; give "
                    "-o early_stop=N with a larger N to train on", self.evaluated, schedule.epochs, self.evals_since_best,
                    self.best_ap, f" of epoch {self.best_epoch}" if self.best_epoch else "")
        return True

    def progress(self, schedule: Schedule) -> dict[str, float]:
        """Return the counters to store in a checkpoint. `epoch` is the number of complete epochs."""
        epoch, steps = schedule.position(self.global_step)
        return {"epoch": epoch, "epoch_images": steps * schedule.images_per_step, "global_step": self.global_step,
                "skipped_steps": self.skipped_steps, "evaluated": self.evaluated, "best_ap": self.best_ap, "seed": self.seed,
                "best_epoch": self.best_epoch, "evals_since_best": self.evals_since_best}

    def restore(self, progress: dict[str, float], schedule: Schedule) -> None:
        """Restore the counters from `progress`: the same number of epochs, and of images in the current epoch. The schedule may
        differ from the schedule of the run that saved them."""
        steps = min(int(progress["epoch_images"]) // schedule.images_per_step, schedule.steps_per_epoch - 1)
        self.global_step = int(progress["epoch"]) * schedule.steps_per_epoch + steps
        self.skipped_steps = int(progress["skipped_steps"])
        self.evaluated = int(progress["evaluated"])
        self.best_ap = progress["best_ap"]
        # Checkpoints before 0.7.0 lack these two counters; later ones may call the second one not_better.
        self.best_epoch = int(progress.get("best_epoch", 0))
        self.evals_since_best = int(progress.get("evals_since_best", progress.get("not_better", 0)))


class Saver:
    """Restores a run from a checkpoint and writes its checkpoints.

    A checkpoint has `state`, the weights, momenta and loss scale of `step`, the class names in label order, and `settings`, see
    `src.checkpoint.stored_settings`. Ranks other than 0 only contribute their BatchNorm statistics.

    Attributes:
        validation_set: digest of the validation set that the best AP belongs to, or "".
        saved_step: state.global_step of the last checkpoint written, or None.
        failure: on rank 0, the reason why the last checkpoint could not be written, or None.
        good_start: path of the last checkpoint that was not saved directly after a skipped step.
        resumes: whether the run continues after the steps of its checkpoint, instead of starting at step 0.
        later: on rank 0, paths of existing checkpoints of steps after the start of this run. The first save moves them away.
    """

    def __init__(self, run: RunFolder, step: TrainStep, state: TrainState, schedule: Schedule, class_names: list[str],
                 settings: dict):
        self.run, self.step, self.state, self.schedule, self.class_names = run, step, state, schedule, class_names
        self.settings, self.resumes, self.validation_set = settings, False, ""
        self.saved_step: int | None = None
        self.failure: str | None = None
        self.good_start, self.later = "the beginning", []

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Start the run from the result of `find_checkpoint`. All ranks start with the values of rank 0.

        Only the weights are loaded if the checkpoint has only weights, or if its classes differ in number or name. A UserError is
        raised if the checkpoint does not fit the network, or if no checkpoint can be written.
        """
        group = self.run.group
        if checkpoint:
            self.good_start = checkpoint.path
            self.resumes = group.broadcast(group.rank == 0 and self._load(checkpoint))
        broadcast_parameters(group, self.step.parameters())
        restore_statistics(group, self.step.network, checkpoint.statistics if checkpoint else {})
        if checkpoint and self.resumes:
            self.validation_set = checkpoint.validation_set
            self.state.restore(checkpoint.progress, self.schedule)
            self.step.restore_loss_scale(checkpoint.progress)
        if group.rank == 0:
            self.later = self.run.later_checkpoints(*self.schedule.position(self.state.global_step))
            with writing_into(self.run.checkpoint_folder, "checkpoints"):
                probe = os.path.join(self.run.checkpoint_folder, PARTIAL + "probe.ckpt")
                write_checkpoint(probe, {}, {"probe": 0.0})
                os.remove(probe)

    def begin_files(self, cfg: Config) -> None:
        """Begin the run's files on rank 0, after everything else has been checked, see `RunFolder.begin`."""
        if self.run.group.rank == 0:
            self.good_start = self.run.begin(cfg, self.good_start, self.resumes)
            self.later = [path for path in self.later if os.path.lexists(path)]  # not moved

    def _load(self, checkpoint):
        """Load the checkpoint. Return True if the run resumes from it, False if training starts at step 0."""
        run, path, progress = self.run, checkpoint.path, checkpoint.progress
        skipped = load_weights(self.step.network, checkpoint, allow_other_classes=True,
                               renamed_classes=checkpoint.class_names not in (None, self.class_names))
        if progress and not skipped:
            load_moments(self.step.optimizer, checkpoint)
            logger.info("resuming after epoch %d%s of %s%s", progress["epoch"],
                        f" and {progress['epoch_images']} images" if progress["epoch_images"] else "", path,
                        "" if run.resumes else f"; --weight {path} instead starts a new training from its weights")
            before, milestones = (checkpoint.settings or {}).get("epochs"), self.settings.get("lr", {}).get("milestones", [])
            if before not in (None, self.schedule.epochs) and not all(isinstance(milestone, int) for milestone in milestones):
                logger.warning("epochs is %d instead of %d, so the learning rate drops at other epochs; -o lr.milestones takes "
                               "numbers of epochs, which stay the same", self.schedule.epochs, before)
            return True
        if run.resumes and path in (*run.checkpoints(), run.best_checkpoint):
            raise UserError(f"{path} was trained with other classes, so it belongs to another run; give another --save_dir, or "
                            "leave out --resume_ckpt auto: the run here is then moved to its subfolder `earlier`.")
        logger.info("training starts at step 0 from the weights of %s%s", path,
                    ": resuming it needs the classes it was trained with" if progress else "")
        return False

    def use_validation_set(self, digest: str) -> None:
        """Forget the best AP if it belongs to another validation set than the set with this digest."""
        state = self.state
        if self.validation_set not in ("", digest) and state.best_ap >= 0:
            logger.info("the best AP so far, %.4f, is of another validation set: the next evaluation starts again", state.best_ap)
            state.best_ap, state.best_epoch, state.evals_since_best = -1.0, 0, 0
        self.validation_set = digest

    def save(self) -> None:
        """Write a checkpoint and remove old checkpoints. All ranks must call this together.

        If the checkpoint cannot be written, an error is logged and no old checkpoint is removed. None is removed after a skipped
        step either, because the run may have diverged. A non-finite weight, momentum or statistic raises a UserError.
        """
        path = self.run.checkpoint(*self.schedule.position(self.state.global_step))
        if self.write(path):
            self.saved_step, self.failure = self.state.global_step, None
            if not self.state.skipped_in_a_row:
                self.good_start = path
                self.run.remove_old_checkpoints()
        self.run.uploads.upload()

    def write(self, path: str) -> bool:
        """Write a checkpoint; return whether it was written. All ranks call this and wait for it, as any may end the run next."""
        group, written = self.run.group, True
        statistics = gather_statistics(group, self.step.network)
        if group.rank == 0:
            tensors = {parameter.name: parameter for parameter in self.step.parameters()}
            values = {**self.state.progress(self.schedule), **self.step.loss_scale_state(),
                      **texts_of(self.settings, self.class_names, self.validation_set)}
            try:
                os.makedirs(self.run.checkpoint_folder, exist_ok=True)
                if path in self.later:
                    self.later.remove(path)
                    self.run.supersede([path])
                write_checkpoint(path, {**tensors, **statistics}, values)
                logger.info("saved %s", path)
                self.run.supersede(self.later)  # no longer needed to resume
                self.later = []
            except OSError as error:
                written, self.failure = False, f"{path} could not be written ({error.strerror or error})"
                logger.error("%s; training goes on, and earlier checkpoints are as they were", self.failure)
            except UserError as error:
                raise UserError(f"{error}; start again from {self.good_start} with a smaller lr_init.") from error
        return group.broadcast(written)


def find_checkpoint(cfg: Config, run: RunFolder) -> Checkpoint | None:
    """Return the checkpoint for cfg.resume_ckpt and cfg.weight, or None. Only rank 0 reads it; other ranks get it without arrays.

    `auto` selects the newest intact checkpoint in the run's folder, and logs the damaged ones. If the folder has no checkpoint
    or resume_ckpt is empty, ModelArts' ckpt_url or `weight` is used. Of `weight`, only the weights are returned. A UserError is
    raised as in `read_checkpoint` and `check_progress`, and with `auto` also if the folder has only damaged checkpoints.
    """
    found = None
    if run.group.rank == 0:
        given = {"ckpt_url": cfg.ckpt_url if cfg.enable_modelarts else "", "weight": cfg.weight,
                 "resume_ckpt": "" if cfg.resume_ckpt == AUTO else cfg.resume_ckpt}
        named = [f"{key} ({value})" for key, value in given.items() if value]
        if len(named) > 1:
            raise UserError(f"both {named[0]} and {named[1]} are given; leave one of them out.")
        found = _newest_intact(run) if cfg.resume_ckpt == AUTO else None
        if found and cfg.weight:
            logger.warning("--weight is ignored, as the run in %s resumes", run.path)
        elif not found and (path := given["resume_ckpt"] or cfg.weight or download_checkpoint(cfg)):
            found = read_checkpoint(path)
            check_progress(found)
            found.log_contradictions(cfg)
            if cfg.weight:
                found = found._replace(moments={}, statistics={}, progress={})
    shared = run.group.broadcast(found and found._replace(weights={}, moments={}, statistics={}))
    return found or shared


def _newest_intact(run):
    paths = run.checkpoints() + [run.best_checkpoint] * os.path.isfile(run.best_checkpoint)
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
            check_progress(checkpoint)
            if checkpoint.progress and checkpoint.has_checksum:
                return checkpoint
            logger.warning("%s is passed over: it has no checksum, or has only weights", path)
        except UserError as error:
            logger.warning("passed over: %s", error)
    if paths:
        raise UserError(f"none of the {len(paths)} checkpoints in {run.checkpoint_folder} is intact; move them away to start "
                        "from step 0, or give another checkpoint with --resume_ckpt.")
    logger.info("no checkpoint in %s yet: training starts at step 0", run.checkpoint_folder)
    return None


def seed_of(checkpoint: Checkpoint | None, cfg: Config, class_names: list[str]) -> int:
    """Return the seed of the checkpoint for a resumed run. For a new run, including fine-tuning on other classes: cfg.seed."""
    if not (checkpoint and checkpoint.progress) or checkpoint.class_names not in (None, class_names):
        return cfg.seed
    seed = int(checkpoint.progress["seed"])
    if seed != cfg.seed:
        logger.info("seed %d of %s is used instead of %d", seed, checkpoint.path, cfg.seed)
    return seed
