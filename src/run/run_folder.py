"""A training run's folder: its lock, the names of its files, and their copy on ModelArts."""
from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import mindspore as ms
import numpy as np
import yaml

from src import __version__
from src.checkpoint import read_checkpoint
from src.config import Config, load_config, with_settings
from src.config.base import differing_settings
from src.errors import UserError, one_line
from src.run.distributed import ROOT, Group
from src.run.files import atomic_write, flush_to_disk, lock_file, make_folder, remove_partial, writing_into
from src.run.launch import run_log
from src.run.modelarts import AUTO, EARLIER, Uploads, download_outputs

logger = logging.getLogger("faster_rcnn")

LOCK, PROGRAM = ".run", "Faster R-CNN"
# What train.py and eval.py write, except the lock. Folders come first: a mount point cannot be moved, and then nothing has been.
RUN_FILES = ("checkpoint", "eval", "tensorboard", "profiler", "metrics.jsonl", "evaluations.jsonl", "report.html", "curves.png",
             "config.yml", "train.log")
MOVING = os.path.join(EARLIER, ".moving")  # contains the files of an unfinished move


class RunFolder:
    """The folder cfg.save_dir, locked within this context because two runs would overwrite each other's files.

    Only rank 0 writes files there. With cfg.enable_modelarts, they are uploaded at each call of `uploads.upload` and at the end.
    Entering the context raises a UserError if another run has locked the folder, or it is not writable.

    Attributes:
        resumes: whether cfg.resume_ckpt requests the newest checkpoint of this folder.
        best_checkpoint: path of the checkpoint with the highest AP.
        uploads: uploads the outputs on ModelArts, see `src.run.modelarts.Uploads`.
    """

    def __init__(self, cfg: Config, group: Group):
        self.path, self.group, self.resumes = cfg.save_dir, group, cfg.resume_ckpt == AUTO
        self.checkpoint_folder = os.path.join(cfg.save_dir, "checkpoint")
        self._cfg, self._name = cfg, f"{cfg.net}_{cfg.backbone.name}"
        self.best_checkpoint = os.path.join(self.checkpoint_folder, f"{self._name}_best.ckpt")

    def __enter__(self) -> RunFolder:
        with contextlib.ExitStack() as stack:
            if self.group.rank == 0:
                stack.enter_context(lock_folder(self.path))
                if os.path.isdir(os.path.join(self.path, MOVING)):
                    move_run(self.path)
                download_outputs(self._cfg)
                remove_partial(make_folder(self.checkpoint_folder))
            self.uploads = stack.enter_context(Uploads(self._cfg, self.group))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.group.rank == 0:
            run_log.end(error[1])
        self._exit.__exit__(*error)

    def begin(self, cfg: Config, start: str, resumes: bool) -> str:
        """Begin the run's files on rank 0, after everything that the run needs has been read. If it `resumes` from the checkpoint
        `start` of this folder, it continues the files here. Otherwise, they belong to an earlier run and are moved, see
        `move_run`. Return the path of `start` after that. A UserError is raised if a file cannot be moved or written."""
        folder = os.path.realpath(self.checkpoint_folder)
        path = os.path.join(os.path.realpath(os.path.dirname(start)), os.path.basename(start))
        own = os.path.isfile(path) and os.path.commonpath([folder, path]) == folder
        moved = ""
        if not (own and resumes):
            self.uploads.refuse_earlier_run()
            moved = move_run(self.path)
        if moved and own:
            before, start = start, os.path.join(moved, "checkpoint", os.path.relpath(path, folder))
            cfg = with_settings(cfg, {key: start for key, value in cfg if value == before})  # so that config.yml can be used
            logger.info("%s, with the first weights of this run, is now %s", before, start)
        with writing_into(self.path, "train.log and config.yml"):
            run_log.open(self.file("train.log"))
            write_config(cfg, self.file("config.yml"))
        return start

    def file(self, *names: str) -> str:
        """Return the path of a file in the folder, or os.devnull on ranks other than 0."""
        return os.path.join(self.path, *names) if self.group.rank == 0 else os.devnull

    def checkpoint(self, epoch: int, step: int = 0) -> str:
        """Return the path of the checkpoint after `epoch` epochs and `step` steps of the next epoch."""
        position = f"epoch{epoch + 1}_step{step}" if step else f"epoch{epoch}"
        return os.path.join(self.checkpoint_folder, f"{self._name}_{position}_rank0.ckpt")

    def _position(self, path):
        """Return (complete epochs, steps of the next epoch) from the name of a checkpoint; None for other names."""
        match = re.fullmatch(rf"{re.escape(self._name)}_epoch(\d+)(?:_step(\d+))?_rank0\.ckpt", os.path.basename(path))
        return match and (int(match[1]) - bool(match[2]), int(match[2] or 0))

    def checkpoints(self) -> list[str]:
        """Return the paths of the checkpoints of epochs and steps, latest step first, regardless of the files' times."""
        names = os.listdir(self.checkpoint_folder) if os.path.isdir(self.checkpoint_folder) else []
        names = sorted(filter(self._position, names), key=self._position, reverse=True)
        return [os.path.join(self.checkpoint_folder, name) for name in names]

    def remove_old_checkpoints(self) -> None:
        """Remove all but the cfg.keep_checkpoint_max latest checkpoints, on rank 0; the best one is also kept."""
        for path in self.checkpoints()[self._cfg.keep_checkpoint_max:] if self.group.rank == 0 else ():
            try:
                os.remove(path)
                logger.info("removed %s (keep_checkpoint_max is %d)", path, self._cfg.keep_checkpoint_max)
            except OSError as error:  # a folder or another user's file
                logger.warning("%s is beyond keep_checkpoint_max, but cannot be removed (%s)", path, error.strerror)

    def later_checkpoints(self, epoch: int, step: int) -> list[str]:
        """Return the paths of the checkpoints after more than `epoch` epochs and `step` steps, including the best one."""
        paths = [path for path in self.checkpoints() if self._position(path) > (epoch, step)]
        with contextlib.suppress(UserError):  # no best checkpoint exists, or it is damaged
            paths += [self.best_checkpoint] * (read_checkpoint(self.best_checkpoint).progress.get("epoch", 0) > epoch)
        return paths

    def supersede(self, paths: list[str]) -> None:
        """Move checkpoints of other runs into a new subfolder `superseded_N` of their folder."""
        number = 1 + sum(name.startswith("superseded") for name in os.listdir(self.checkpoint_folder))
        for path in paths:
            try:
                os.renames(path, os.path.join(self.checkpoint_folder, f"superseded_{number}", os.path.basename(path)))
                logger.warning("training began before %s; it is moved into the subfolder superseded_%d", path, number)
            except OSError as error:  # another user's file
                logger.warning("training began before %s, but it cannot be moved away (%s)", path, error.strerror)


def move_run(folder: str) -> str:
    """Move the RUN_FILES in `folder` to its new subfolder `earlier/<time>`, and log this; return the subfolder's path, or "" if
    there is nothing to move. Empty folders stay. A UserError is raised if a file cannot be moved.

    If the program is killed in between, the next call completes the move.
    """
    earlier, moving = os.path.join(folder, EARLIER), os.path.join(folder, MOVING)
    moved = os.path.join(earlier, time.strftime("%Y%m%d_%H%M%S"))
    try:
        paths = [os.path.join(folder, name) for name in RUN_FILES]
        paths = [path for path in paths if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path))
                 and not is_foreign(path)]
        if not paths and not os.path.isdir(moving):
            return ""
        os.makedirs(moving, exist_ok=True)
        for path in paths:
            target = os.path.join(moving, os.path.basename(path))
            if os.path.islink(path):  # in another folder, a relative link would lead elsewhere
                with contextlib.suppress(FileExistsError):
                    os.symlink(os.path.realpath(path), target)
                logger.warning("the link %s is moved; the new run gets a plain folder or file instead", path)
                os.remove(path)
            elif not os.path.lexists(target):  # otherwise, `path` was written after the program was killed
                os.rename(path, target)
        flush_to_disk(moving, earlier, folder)
        while os.path.lexists(moved):
            moved += "_2"
        os.rename(moving, moved)
        flush_to_disk(earlier)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.rmdir(moving)  # nothing was moved
        raise UserError(f"the earlier run in {folder} cannot be moved ({error}); correct this, or give another "
                        "--save_dir.") from error
    logger.info("the earlier run in %s is moved to %s", folder, moved)
    return moved


def write_config(cfg: Config, path: str) -> None:
    """Write the configuration to the file `path`, with versions, command line and git commit as comments, without the device and
    `resume_ckpt`, so that the file repeats the training elsewhere. The log gets a line for each setting that differs from the
    file's earlier content. Raises OSError."""
    if is_foreign(path):
        logger.warning("%s was not written by this program, so it stays, and the settings of this run are not written", path)
        return
    exclude = {"device_target", "resume_ckpt"}
    settings = cfg.model_dump(exclude=exclude)
    try:
        before = load_config(path).model_dump(exclude=exclude) if os.path.isfile(path) else settings
        for change in differing_settings(before, settings):
            logger.info("changed setting %s: %s -> %s", *change)
    except UserError as error:
        logger.warning("%s is replaced without a comparison (%s)", path, error)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    failed, commit = subprocess.getstatusoutput(shlex.join(git))
    comments = (f"{PROGRAM} {__version__}, MindSpore {ms.__version__}, NumPy {np.__version__}, Python {sys.version}",
                shlex.join(["python", *sys.argv]), f"git commit: {'unknown' if failed else commit}")
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"# {one_line(comment)}\n" for comment in comments)
        yaml.safe_dump(settings, file, allow_unicode=True, sort_keys=False)


def is_foreign(path: str) -> bool:
    """Return whether `path` is an existing config.yml that this program has not written."""
    return (os.path.basename(path) == "config.yml" and os.path.isfile(path)
            and not Path(path).read_bytes().startswith(f"# {PROGRAM} ".encode()))


def lock_folder(path: str) -> IO:
    """Create the folder `path` if it is missing, lock it, and return the open file that holds the lock, usable as a context.

    The lock ends with the process or when the file is closed. A folder that is locked or not writable raises a UserError.
    """
    try:
        file = open(os.path.join(make_folder(path), LOCK), "a+", encoding="utf-8")  # noqa: SIM115 it stays open
    except OSError as error:
        raise UserError(f"the folder {path} cannot be written to ({error.strerror}); choose another --save_dir.") from error
    if lock_file(file) is False:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise UserError(f"another run ({owner}) writes into the folder {path}; wait for its end, or give another --save_dir.")
    # Otherwise, data workers would hold the lock until they notice that this process was killed.
    os.register_at_fork(after_in_child=file.close)
    # On a full disk the lock still works, but the file does not name its owner.
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file
