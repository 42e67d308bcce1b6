"""Huawei Cloud's ModelArts: a run's data come from its object storage (OBS), and its outputs go there.

Everything goes through the library `moxing`, which is there on ModelArts alone.
"""
import logging
import os
from pathlib import Path

from src.errors import UserError
from src.files import PARTIAL, make_folder
from src.train.lock import NAME as CLAIM
from src.train.resume import AUTO
from src.train.saver import folder_and_name, newest_first

logger = logging.getLogger("faster_rcnn")


def bring_in(cfg, group):
    """Copy the data set at data_url to data_dir, once a machine, and set cfg.data.dataset_dir to that.

    Raises:
        UserError: there is no moxing or no train_url, or the copy fails.
    """
    if not cfg.enable_modelarts:
        return
    storage = _storage()
    if not cfg.train_url:
        raise UserError("enable_modelarts needs train_url, where the outputs go: they would be lost with the machine.")
    if cfg.data_url:
        with group.first_on_machine():
            if group.local_rank == 0:
                _copy(storage.copy_parallel, cfg.data_url, make_folder(cfg.data_dir))
        cfg.data.dataset_dir = cfg.data_dir


def bring_checkpoint(cfg, group):
    """Copy to this machine what a training run may start from; afterwards cfg.resume_ckpt names it. Rank 0 reads alone.

    With resume_ckpt `auto`, what an earlier machine saved at train_url goes into save_dir. Where that has no checkpoint, and
    where resume_ckpt is empty, ckpt_url is the checkpoint to start from.

    Raises:
        UserError: a copy fails; there is a ckpt_url besides another resume_ckpt.
    """
    if not cfg.enable_modelarts or group.rank > 0:
        return
    if cfg.ckpt_url and cfg.resume_ckpt not in ("", AUTO):
        raise UserError(f"both ckpt_url ({cfg.ckpt_url}) and resume_ckpt ({cfg.resume_ckpt}) are given; leave one of them out.")
    storage = _storage()
    if cfg.resume_ckpt == AUTO:
        if storage.exists(cfg.train_url):
            _copy(storage.copy_parallel, cfg.train_url, make_folder(cfg.save_dir))
        found = newest_first(*folder_and_name(cfg))
        for path in found:
            os.utime(path, (0, 0))  # the order of copying says nothing of their ages: their names do
        if found:
            return
    if cfg.ckpt_url:
        cfg.resume_ckpt = _fetch(storage, cfg)


def bring_checkpoints_to_score(cfg, group):
    """Copy the checkpoint, or the folder of checkpoints, at ckpt_url; afterwards cfg.checkpoint_path names it. On rank 0."""
    if cfg.enable_modelarts and cfg.ckpt_url and group.rank == 0:
        cfg.checkpoint_path = _fetch(_storage(), cfg)


class Outputs:
    """The outputs of a run, copied from save_dir to train_url: whenever `copy` is called, and at the end of this context.

    It does nothing without enable_modelarts. Rank 0, which writes the outputs, copies them. A process that fails copies what it
    finds, because all others end with it.
    """

    def __init__(self, cfg, group):
        self.folder, self.url = Path(cfg.save_dir), cfg.train_url.rstrip("/")
        self.rank = group.rank
        self.storage = _storage() if cfg.enable_modelarts else None
        self.copied = {}
        if self.storage and self.rank == 0 and cfg.resume_ckpt == AUTO:
            # What `bring_checkpoint` has brought from there.
            self.copied = {path: _state(path) for path in self._changed() if self.storage.exists(self._target(path))}

    def copy(self):
        """Copy what is new, and remove the checkpoints there that have been removed here; the log tells what fails."""
        if self.rank == 0:
            self._copy_changes()

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if self.rank == 0 or error is not None:
            failure = self._copy_changes()
            if failure and error is None:
                raise UserError(f"the run has ended, but its outputs are not all at {self.url}: {failure}; they are in "
                                f"{self.folder}.")

    def _copy_changes(self):
        """-> the first failure, or None."""
        if self.storage is None:
            return None
        # moxing raises errors of many kinds; whatever happened to a copy, training goes on, and the next call tries again.
        try:
            for path in self._changed():
                state = _state(path)
                self.storage.copy(str(path), self._target(path))
                self.copied[path] = state
            for path in [path for path in self.copied if path.suffix == ".ckpt" and not path.exists()]:
                self.storage.remove(self._target(path))
                del self.copied[path]
        except Exception as error:
            logger.error("copying to %s failed (%s: %s); it is tried again after the next checkpoint", self.url,
                         type(error).__name__, error)
            return f"{type(error).__name__}: {error}"
        return None

    def _changed(self):
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [path for path in files
                if not path.name.startswith(PARTIAL) and path.name != CLAIM and self.copied.get(path) != _state(path)]

    def _target(self, path):
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"


def _state(path):
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _storage():
    try:
        import moxing
    except ImportError as error:
        raise UserError("enable_modelarts is True, but the library moxing is not here: it is part of ModelArts; set "
                        "enable_modelarts to False elsewhere.") from error
    return moxing.file


def _fetch(storage, cfg):
    """Copy the file or folder at ckpt_url beside the data set; -> its path."""
    target = os.path.join(make_folder(f"{cfg.data_dir.rstrip('/')}_ckpt"), os.path.basename(cfg.ckpt_url.rstrip("/")))
    _copy(storage.copy_parallel if storage.is_directory(cfg.ckpt_url) else storage.copy, cfg.ckpt_url, target)
    return target


def _copy(function, source, target):
    logger.info("copying %s to %s", source, target)
    try:
        function(source, target)
    except Exception as error:  # moxing raises errors of many kinds
        raise UserError(f"{source} could not be copied to {target} ({type(error).__name__}: {error}); check the path and the "
                        "rights to it.") from error
