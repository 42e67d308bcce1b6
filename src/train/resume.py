"""Which checkpoint a run goes on from, and how it takes that up."""
import logging
import os
from typing import NamedTuple

from src.checkpoint_file import class_names_of, has_checksum
from src.errors import UserError
from src.train.all_reduce import broadcast_parameters
from src.train.checkpoint import load_moments, load_weights, progress_of, read_checkpoint
from src.train.saver import folder_and_name, newest_first
from src.train.statistics import share_statistics

logger = logging.getLogger("faster_rcnn")

AUTO = "auto"  # as resume_ckpt: the newest checkpoint of the run


class RunCheckpoint(NamedTuple):
    """A checkpoint to start from; all is empty where there is none.

    contents: from `read_checkpoint`, on rank 0 alone; progress: what `TrainingState` saved, empty for weights alone.
    """
    path: str
    contents: dict
    progress: dict


def checkpoint_of_run(cfg, group):
    """The `RunCheckpoint` that cfg.resume_ckpt asks for. Only rank 0 reads it.

    With `auto` it is the newest intact one in the folder of the run; damaged ones are named in the log.

    Raises:
        UserError: see `read_checkpoint` and `progress_of`; with `auto`, there are checkpoints, but not one of them is intact.
    """
    found = RunCheckpoint("", {}, {})
    if group.rank == 0 and cfg.resume_ckpt == AUTO:
        found = _newest_intact(*folder_and_name(cfg))
    elif group.rank == 0 and cfg.resume_ckpt:
        contents = read_checkpoint(cfg.resume_ckpt)
        found = RunCheckpoint(cfg.resume_ckpt, contents, progress_of(contents, cfg.resume_ckpt))
    path, progress = group.broadcast((found.path, found.progress))
    return RunCheckpoint(path, found.contents, progress)


def _newest_intact(folder, name):
    best = os.path.join(folder, f"{name}_best.ckpt")
    paths = newest_first(folder, name) + [best] * os.path.isfile(best)
    for path in paths:
        try:
            contents = read_checkpoint(path)
            progress = progress_of(contents, path)
            if progress and has_checksum(path):  # with which it agrees: it has been read
                return RunCheckpoint(path, contents, progress)
            logger.warning("%s is passed over: it has no checksum, or is of weights alone", path)
        except UserError as error:
            logger.warning("passed over: %s", error)
    if paths:
        raise UserError(f"not one of the {len(paths)} checkpoints in {folder} is intact; move them away to start anew, or give "
                        "--resume_ckpt another one.")
    logger.info("no checkpoint in %s yet: training starts at step 0", folder)
    return RunCheckpoint("", {}, {})


def take_up(checkpoint, cfg, class_names, network, optimizer, state, steps_per_epoch, group):
    """Put network, optimizer and state where a checkpoint stands; all ranks begin with what rank 0 has.

    A checkpoint of weights alone, or one of a network with other classes (in number, or by the names that it keeps), gives its
    weights only.

    Raises:
        UserError: the checkpoint does not fit the network.
    """
    progress = _load(checkpoint, cfg, class_names, network, optimizer) if checkpoint.contents else {}
    broadcast_parameters(group, [*network.get_parameters(), *optimizer.moments])
    share_statistics(group, network, checkpoint.contents)
    progress = group.broadcast(progress)
    if progress:
        state.take_up(progress, steps_per_epoch, cfg.batch_size * group.size)


def _load(checkpoint, cfg, class_names, network, optimizer):
    """-> `progress`, or an empty dict where training starts at step 0."""
    path, contents, progress = checkpoint
    renamed = class_names_of(path) not in (None, class_names)
    skipped = load_weights(network, contents, path, allow_other_classes=True, renamed_classes=renamed)
    if progress and not skipped:
        load_moments(optimizer, contents, path)
        logger.info("resuming after epoch %d%s of %s", progress["epoch"],
                    f" and {progress['epoch_images']} images" if progress["epoch_images"] else "", path)
        return progress
    if cfg.resume_ckpt == AUTO:
        raise UserError(f"{path} was trained with other classes, so it is of another run; give another --save_dir, or give its "
                        "path with --resume_ckpt to start from its weights.")
    logger.info("training starts at step 0 from the weights of %s", path)
    return {}
