"""Huawei Cloud's ModelArts: a run downloads its data from the object storage (OBS) and uploads its outputs to it.

All transfers use the library `moxing`, which exists only on ModelArts.
"""
from __future__ import annotations

import logging
import os
from pathlib import Path

from src.config import Config, with_settings
from src.errors import UserError
from src.run.distributed import Group, local_rank_zero_first
from src.run.files import make_folder

logger = logging.getLogger("faster_rcnn")

EARLIER = "earlier"  # subfolder of save_dir with earlier runs, which are not uploaded
AUTO = "auto"  # value of resume_ckpt: the newest checkpoint of the run


def download_dataset(cfg: Config, group: Group) -> Config:
    """Copy the data set at data_url to data_dir, once per machine, and return the configuration with data.dataset_dir set to it.

    Without enable_modelarts or data_url, nothing changes. A missing moxing or train_url and a failed copy raise a UserError.
    """
    if not cfg.enable_modelarts:
        return cfg
    storage = _storage()
    if not cfg.train_url:
        raise UserError("enable_modelarts needs train_url, where the outputs go: they would be lost with the machine.")
    if not cfg.data_url:
        return cfg
    with local_rank_zero_first(group):
        if group.local_rank == 0:
            _copy(storage.copy_parallel, cfg.data_url, make_folder(cfg.data_dir))
    return with_settings(cfg, {"data.dataset_dir": cfg.data_dir})


def download_checkpoint(cfg: Config) -> str:
    """Copy the file or folder of checkpoints at ckpt_url next to the data set; return its path, or "" without ckpt_url."""
    if not (cfg.enable_modelarts and cfg.ckpt_url):
        return ""
    storage = _storage()
    target = os.path.join(make_folder(f"{cfg.data_dir.rstrip('/')}_ckpt"), os.path.basename(cfg.ckpt_url.rstrip("/")))
    _copy(storage.copy_parallel if storage.is_directory(cfg.ckpt_url) else storage.copy, cfg.ckpt_url, target)
    return target


def download_outputs(cfg: Config) -> None:
    """With resume_ckpt `auto`, copy the outputs that an earlier machine uploaded to train_url, if any, to save_dir."""
    if cfg.enable_modelarts and cfg.resume_ckpt == AUTO and _storage().exists(cfg.train_url):
        _copy(_storage().copy_parallel, cfg.train_url, make_folder(cfg.save_dir))


class Uploads:
    """Copies the outputs of a run from save_dir to train_url, at each call of `upload` and at the end of this context.

    It does nothing without enable_modelarts. Rank 0, which writes the outputs, uploads them. A process that fails also uploads
    the existing outputs, because all other processes end with it.
    """

    def __init__(self, cfg: Config, group: Group):
        self.folder, self.url, self.rank = Path(cfg.save_dir), cfg.train_url.rstrip("/"), group.rank
        self.storage = _storage() if cfg.enable_modelarts else None
        self.uploaded = {}  # path of a file -> its state when it was uploaded or downloaded
        if self.storage and self.rank == 0 and cfg.resume_ckpt == AUTO:
            self.uploaded = {path: state for path, state in self._changed() if self.storage.exists(self._target(path))}

    def __enter__(self) -> Uploads:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        failure = self.upload(failed=error is not None)
        if failure and error is None:
            raise UserError(f"the run has ended, but its outputs are not all at {self.url}: {failure}; copy {self.folder}.")

    def upload(self, failed: bool = False) -> str | None:
        """Copy new and changed files, and remove uploaded checkpoints that have been removed here, on rank 0 or if this process
        has `failed`. Return the first failure, which is logged, or None. The next call tries again."""
        if self.storage is None or self.rank > 0 and not failed:
            return None
        try:
            for path, state in self._changed():
                self.storage.copy(str(path), self._target(path))
                self.uploaded[path] = state
            for path in [path for path in self.uploaded if path.suffix == ".ckpt" and not path.exists()]:
                self.storage.remove(self._target(path))
                del self.uploaded[path]
        except Exception as error:  # moxing raises many types of errors
            failure = f"{type(error).__name__}: {error}"
            logger.error("copying to %s failed (%s); it is tried again after the next checkpoint", self.url, failure)
            return failure
        return None

    def refuse_earlier_run(self) -> None:
        """Raise a UserError if train_url has checkpoints, which belong to another run than the new one."""
        if self.storage and self.storage.exists(f"{self.url}/checkpoint"):
            raise UserError(f"{self.url} has the checkpoints of an earlier run; give another --train_url, or --resume_ckpt auto.")

    def _changed(self):
        """Yield (path, time and size) of files that have changed. Names of unfinished files and of the lock begin with a dot."""
        for path in sorted(self.folder.rglob("*")):
            if path.relative_to(self.folder).parts[0] != EARLIER and path.is_file() and not path.name.startswith("."):
                state = path.stat().st_mtime_ns, path.stat().st_size
                if self.uploaded.get(path) != state:
                    yield path, state

    def _target(self, path):
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"


def _storage():
    try:
        import moxing
    except ImportError as error:
        raise UserError("enable_modelarts is True, but the library moxing is not here: it is part of ModelArts; set "
                        "enable_modelarts to False elsewhere.") from error
    return moxing.file


def _copy(function, source, target):
    logger.info("copying %s to %s", source, target)
    try:
        function(source, target)
    except Exception as error:  # moxing raises many types of errors
        raise UserError(f"{source} could not be copied to {target} ({type(error).__name__}: {error}); check the path and the "
                        "rights to it.") from error
