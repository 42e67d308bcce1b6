"""Resuming: find the checkpoint that a run starts from, and restore the training state from it."""
from __future__ import annotations

import logging
import os

from src.checkpoint import Checkpoint, check_progress, load_moments, load_weights, read_checkpoint
from src.errors import UserError
from src.run.modelarts import AUTO, download_checkpoint
from src.run.run_folder import RunFolder
from src.train.all_reduce import broadcast_parameters
from src.train.saver import TrainState
from src.train.schedule import Schedule
from src.train.statistics import restore_statistics
from src.train.step import TrainStep

logger = logging.getLogger("faster_rcnn")


def find_checkpoint(cfg, run: RunFolder) -> Checkpoint | None:
    """Return the checkpoint for cfg.resume_ckpt, or None. Only rank 0 reads it; other ranks get it without its arrays.

    `auto` selects the newest intact checkpoint in the run's folder, and logs the damaged ones. If the folder has no checkpoint
    or resume_ckpt is empty, ModelArts' ckpt_url is used.

    Raises:
        UserError: see `read_checkpoint` and `check_progress`; with `auto`, also if the folder has only damaged checkpoints.
    """
    found = _find(cfg, run) if run.group.rank == 0 else None
    shared = run.group.broadcast(found and found._replace(weights={}, moments={}, statistics={}))
    return found or shared


def _find(cfg, run):
    if cfg.resume_ckpt == AUTO and (found := _newest_intact(run)):
        return found
    named = "" if cfg.resume_ckpt == AUTO else cfg.resume_ckpt
    if named and cfg.enable_modelarts and cfg.ckpt_url:
        raise UserError(f"both ckpt_url ({cfg.ckpt_url}) and resume_ckpt ({named}) are given; leave one of them out.")
    path = named or download_checkpoint(cfg)
    if not path:
        return None
    checkpoint = read_checkpoint(path)
    check_progress(checkpoint)
    return checkpoint


def _newest_intact(run):
    paths = run.checkpoints() + [run.best_checkpoint] * os.path.isfile(run.best_checkpoint)
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
            check_progress(checkpoint)
            if checkpoint.progress and checkpoint.has_checksum:
                return checkpoint
            logger.warning("%s is passed over: it has no checksum, or is of weights alone", path)
        except UserError as error:
            logger.warning("passed over: %s", error)
    if paths:
        raise UserError(f"not one of the {len(paths)} checkpoints in {run.checkpoint_folder} is intact; move them away to start "
                        "anew, or give --resume_ckpt another one.")
    logger.info("no checkpoint in %s yet: training starts at step 0", run.checkpoint_folder)
    return None


def seed_of(checkpoint: Checkpoint | None, cfg, class_names: list[str]) -> int:
    """Return the seed of the checkpoint for a resumed run. For a new run, including fine-tuning on other classes: cfg.seed."""
    if not (checkpoint and checkpoint.progress) or _has_other_names(checkpoint, class_names):
        return cfg.seed
    seed = int(checkpoint.progress["seed"])
    if seed != cfg.seed:
        logger.info("seed %d of %s is used instead of %d", seed, checkpoint.path, cfg.seed)
    return seed


def restore(checkpoint: Checkpoint | None, run: RunFolder, step: TrainStep, state: TrainState, schedule: Schedule,
            class_names: list[str]) -> None:
    """Restore `step` and `state` from a checkpoint. All ranks start with the values of rank 0.

    Only the weights are loaded if the checkpoint has only weights, or if its classes differ in number or name.

    Args:
        checkpoint: the result of `find_checkpoint`, or None.
        run: the run's folder.
        step: the training step with initial weights.
        state: the state at step 0.
        schedule: the schedule of the run.
        class_names: class names by label.

    Raises:
        UserError: the checkpoint does not fit the network.
    """
    goes_on = _load(checkpoint, run, step, class_names) if checkpoint and run.group.rank == 0 else False
    broadcast_parameters(run.group, step.parameters())
    restore_statistics(run.group, step.network, checkpoint.statistics if checkpoint else {})
    if run.group.broadcast(goes_on) and checkpoint:
        state.restore(checkpoint.progress, schedule)
        step.restore_loss_scale(checkpoint.progress)


def _load(checkpoint, run, step, class_names):
    """Load the checkpoint. Return True if the run resumes from it, False if training starts at step 0."""
    path, progress = checkpoint.path, checkpoint.progress
    skipped = load_weights(step.network, checkpoint, allow_other_classes=True,
                           renamed_classes=_has_other_names(checkpoint, class_names))
    if progress and not skipped:
        load_moments(step.optimizer, checkpoint)
        logger.info("resuming after epoch %d%s of %s", progress["epoch"],
                    f" and {progress['epoch_images']} images" if progress["epoch_images"] else "", path)
        return True
    if run.resumes and path in (*run.checkpoints(), run.best_checkpoint):
        raise UserError(f"{path} was trained with other classes, so it is of another run; give another --save_dir, or give its "
                        "path with --resume_ckpt to start from its weights.")
    logger.info("training starts at step 0 from the weights of %s", path)
    return False


def _has_other_names(checkpoint, class_names):
    return checkpoint.class_names not in (None, class_names)
