"""Checkpoints: MindSpore files with weights, momenta, training progress, settings, and a checksum at the end.

`mindspore.load_checkpoint` trusts a file's shapes. If a shape and its data disagree, it writes out of bounds, and the process
crashes or continues with a corrupted heap. MindSpore has no public parser; the protobuf message used here was checked with
MindSpore 2.7.1 to 2.10.
"""
from __future__ import annotations

import itertools
import json
import logging
import math
import os
import zlib
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore import Tensor, nn
from mindspore.train.checkpoint_pb2 import Checkpoint as CheckpointMessage

from src import __version__
from src.config import Config, load_config
from src.config.base import flat_settings
from src.config.older import RECIPE
from src.errors import UserError, is_printable, short_repr
from src.models import CLASS_LAYERS, CLASSES, MOMENTS, UNUSED
from src.run.distributed import ROOT
from src.run.files import apply_umask, atomic_write, if_supported
from src.run.optional import checkpoint_path, with_current_names

logger = logging.getLogger("faster_rcnn")

STATISTICS = "statistics."  # prefix of the names of other ranks' BatchNorm statistics, see src.train.parallel
# Names of texts: JSON of the class names in label order and of the settings; the digest of the best AP's validation set.
CLASS_NAMES, SETTINGS, VALIDATION_SET = "class_names", "config", "validation_set"
# Settings of the machine and of the files of a run, which a checkpoint does not contain.
NOT_STORED = {
    "device_target", "jit_level", "precision_mode", "op_compile", "compile_cache", "num_workers", "prefetch_size", "max_rowsize",
    "run_profiler", "tensorboard", "save_dir", "resume_ckpt", "weight", "checkpoint_path", "image", "mindir", "raw", "quantize",
    "output", "font", "enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir"}
# Settings that a detector's results for an image depend on, in the form of pydantic's `include`.
FOR_AN_IMAGE: dict[str, Any] = {
    "data": {"target_size", "eval_transforms"},
    "backbone": {"name", "out_channels", "bn_eps", "stem_pool", "fpn"},
    "rpn_head": {"feat_channel", "num_convs", "anchor_generator", "test_proposal"},
    "bbox_head": {"resolution": True, "bbox_weights": True, "clip_first": True, "head": True,
                  "roi_extractor": {"featmap_strides", "sampling_ratio", "aligned"}}}
# The settings that the older implementation always used.
OF_OLDER: dict[str, Any] = {"data": {"eval_transforms"}, "rpn_head": {"test_proposal"}, "infer": {"max_box_num"},
                            "bbox_head": {"clip_first": True, "roi_extractor": {"aligned"}}}
# The numbers that record the training progress.
PROGRESS = {"epoch", "epoch_images", "global_step", "skipped_steps", "evaluated", "best_ap", "seed", "loss_scale"}
DTYPES = {name: np.dtype(name.lower()) for name in (
    "Bool", "Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float16", "Float32", "Float64")}
TEXT = "str"  # the type of a text, stored as 4 bytes per character
# With crc_check, MindSpore ends a file with this name and a 10-byte CRC-32 of all preceding bytes.
CRC_NAME = b"crc_num"
CHECKSUM_SIZE = len(CRC_NAME) + 10


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file. If it has only weights, moments and progress are empty."""
    path: str
    weights: dict[str, np.ndarray]     # of the network
    moments: dict[str, np.ndarray]     # momenta of the optimizer
    statistics: dict[str, np.ndarray]  # of other ranks' BatchNorm
    progress: dict[str, float]         # training progress
    class_names: list[str] | None      # in label order; None if the file has none
    has_checksum: bool                 # whether the file ends with a checksum, which was verified
    settings: dict | None = None       # nested settings of its training; None if the file has none
    validation_set: str = ""           # digest of the validation set of progress["best_ap"], or ""

    @property
    def num_classes(self) -> int:
        """Number of classes K, without background; a UserError if the checkpoint is not a detector of this project."""
        bias = self.weights.get(f"{CLASSES}bias")
        if bias is None or bias.ndim != 1 or len(bias) < 2:
            raise UserError(f"{self.path} is not a detector of this project: it has no weight {CLASSES}bias of two or more "
                            "numbers; give another checkpoint.")
        return len(bias) - 1

    def log_contradictions(self, cfg: Config) -> None:
        """Log one warning with a table of the settings in `cfg` that affect the results for an image and differ from training."""
        trained = flat_settings(self.settings or {})
        now = flat_settings(cfg.model_dump(include=FOR_AN_IMAGE)) if trained else {}
        rows = [(name, short_repr(trained[name]), short_repr(value)) for name, value in now.items()
                if trained.get(name, value) != value and ".LabelsPadding." not in name]
        if rows:
            table = "".join(f"\n  {name:48} {there:32} {here}" for name, there, here in [("setting", "training", "now"), *rows])
            logger.warning("%s was trained with other settings, on which its results depend:%s", self.path, table)


def read_checkpoint(path: str) -> Checkpoint:
    """Read a checkpoint file once and check it. Its weights get this project's names.

    Raises a UserError if the file does not exist, fails its checksum, is not a MindSpore checkpoint, has non-finite values, or
    mixes names of the older MindSpore implementation with current names.
    """
    path = checkpoint_path(path)
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path!r}; give the path of a .ckpt file.")
    try:
        arrays, texts, has_checksum = _read_file(path)
        class_names, settings = _from_json(texts, CLASS_NAMES), _from_json(texts, SETTINGS)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or not a MindSpore checkpoint ({error}); give another checkpoint.") from error
    weights = with_current_names(arrays, path)
    if weights is not arrays:
        settings = load_config(ROOT / RECIPE).model_dump(include=OF_OLDER)
    moments, statistics = ({name: weights.pop(name) for name in list(weights) if name.startswith(prefix)}
                           for prefix in (MOMENTS, STATISTICS))
    numbers = {name: weights.pop(name).item() for name in list(weights) if weights[name].ndim == 0}
    progress = numbers if PROGRESS & numbers.keys() else {}  # other programs store other numbers
    return Checkpoint(path, weights, moments, statistics, progress, class_names, has_checksum, settings,
                      texts.get(VALIDATION_SET, ""))


def _read_file(path):
    """Return ({name: array}, {name: text}, whether there is a checksum) of a MindSpore file, or raise ValueError or OSError."""
    with open(path, "rb") as file:
        data = file.read()
    intact = _agrees_with_checksum(data)
    if intact is False:
        raise ValueError("it does not agree with its checksum")
    message = CheckpointMessage()
    try:
        message.ParseFromString(data[:-CHECKSUM_SIZE] if intact else data)
    except DecodeError as error:
        raise ValueError("no checkpoint of MindSpore") from error
    arrays, texts = {}, {}
    # A large tensor is stored in several entries with the same name.
    for name, entries in itertools.groupby(message.value, lambda entry: entry.tag):
        tensors = [entry.tensor for entry in entries]
        content = b"".join(tensor.tensor_content for tensor in tensors)
        if tensors[-1].tensor_type == TEXT:
            texts[name] = content.decode("utf-32-le")
        else:
            arrays[name] = _array(name, tensors[-1], content)
    if not arrays:
        raise ValueError("a checkpoint without a tensor")
    return arrays, texts, bool(intact)


def _array(name, tensor, content):
    dtype, shape = DTYPES.get(tensor.tensor_type), tuple(tensor.dims)
    if dtype is None:
        raise ValueError(f"a tensor of type {tensor.tensor_type!r}")
    shape = () if shape == (0,) else shape  # MindSpore stores numbers like this
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"a tensor of shape {shape} with {len(content)} bytes")
    array = np.frombuffer(content, dtype).reshape(shape).copy()
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    return array


def _from_json(texts, key):
    """Return the class names or the settings, or None if the file lacks them; raise a ValueError if they are not valid."""
    try:
        value = json.loads(texts.get(key, "null"))
    except (ValueError, RecursionError):
        value = 0
    valid = isinstance(value, dict) and isinstance(value.get("data", {}), dict) if key == SETTINGS else (
        isinstance(value, list) and all(isinstance(name, str) and is_printable(name) for name in value))
    if value is not None and not valid:
        raise ValueError(f"its {key.replace('_', ' ')} cannot be used")
    return value


def is_intact(path: str) -> bool:
    """Return whether a file ends with a correct checksum."""
    with open(path, "rb") as file:
        return _agrees_with_checksum(file.read()) is True


def _agrees_with_checksum(data):
    end = data[-CHECKSUM_SIZE:]
    if len(end) < CHECKSUM_SIZE or not end.startswith(CRC_NAME):
        return None
    return zlib.crc32(memoryview(data)[:-CHECKSUM_SIZE]) == int.from_bytes(end[len(CRC_NAME):], "big")


def check_progress(checkpoint: Checkpoint) -> None:
    """Raise a UserError for momenta or some progress numbers without all numbers, as in a truncated file."""
    missing = PROGRESS - checkpoint.progress.keys()
    if missing and (checkpoint.moments or len(missing) < len(PROGRESS)):
        raise UserError(f"{checkpoint.path} is damaged or another program's: it lacks {', '.join(sorted(missing))}; "
                        "give an earlier checkpoint.")


def write_checkpoint(path: str, tensors: dict[str, Tensor], values: dict | None = None, checksum: bool = True) -> None:
    """Write a checkpoint file with named tensors and named numbers or texts, `values`.

    The file is renamed to `path` when it is complete, on the disk, and its checksum is verified. After a crash or on a full
    disk, the previous file is thus unchanged. The permissions follow the umask. Some programs that read MindSpore's checkpoints
    do not support a checksum. An OSError is raised if the file cannot be written, and a UserError if a tensor has values that are
    not finite.
    """
    for name, tensor in tensors.items():
        if not np.isfinite(tensor.asnumpy()).all():
            raise UserError(f"{path} is not written, as {name} has values that are not finite")
    entries = [{"name": name, "data": tensor} for name, tensor in tensors.items()]
    with atomic_write(path) as temporary:
        with if_supported():  # MindSpore's last call changes the file's mode
            ms.save_checkpoint(entries, temporary, append_dict=values, crc_check=checksum)
        apply_umask(temporary)
        if checksum and not is_intact(temporary):
            raise OSError(f"the disk returns other contents of {path} than were written")


def stored_settings(cfg: Config) -> dict[str, Any]:
    """Return the settings of a training to store in its checkpoints, as nested dicts; data.dataset_dir is absolute."""
    settings = cfg.model_dump(exclude=NOT_STORED | ({"mix_dtype"} if cfg.device_target == "CPU" else set()))
    if folder := cfg.data.dataset_dir:
        settings["data"]["dataset_dir"] = os.path.abspath(os.path.expanduser(folder))
    return settings


def texts_of(settings: dict, class_names: list[str] | None = None, validation_set: str = "") -> dict[str, str]:
    """Return the texts of a checkpoint, {name: text}."""
    texts = {CLASS_NAMES: class_names and json.dumps(class_names), SETTINGS: json.dumps(settings), VALIDATION_SET: validation_set}
    return {"version": __version__, **{name: text for name, text in texts.items() if text}}


def load_weights(network: nn.Cell, checkpoint: Checkpoint, allow_other_classes: bool = False,
                 renamed_classes: bool = False) -> list[str]:
    """Copy the weights of a checkpoint into the network, a FasterRCNN, and return the names of the skipped parameters.
    A UserError is raised if a weight is missing, unknown, or of another shape.

    Args:
        allow_other_classes: skip layers with another number of classes, and name them in the log.
        renamed_classes: skip the class-dependent layers even if their number of classes is the same.
    """
    path, weights = checkpoint.path, checkpoint.weights
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    skipped = []
    for name, parameter in parameters.items():
        if name not in weights:
            raise UserError(f"{path} has no weight {name}; use the config it was trained with.")
        fits = weights[name].shape == parameter.shape
        if name.startswith(CLASS_LAYERS) and (renamed_classes or allow_other_classes and not fits):
            skipped.append(name)
        elif not fits:
            raise UserError(f"{path}: weight {name} has shape {weights[name].shape}, but this network needs "
                            f"{parameter.shape}; use the config and the classes it was trained with.")
        else:
            parameter.set_data(Tensor(weights[name], parameter.dtype))
    for name in weights:
        if name not in parameters and not name.startswith(UNUSED):
            raise UserError(f"{path} has weight {name}, which this network has not; use the config it was trained with.")
    if skipped:
        logger.info("%s was trained with other classes; left at their initial values: %s", path, ", ".join(skipped))
    return skipped


def load_moments(optimizer: nn.Optimizer, checkpoint: Checkpoint) -> None:
    """Copy the momenta of a checkpoint into the optimizer; raise a UserError if one is missing or of another shape."""
    for moment in optimizer.moments:
        stored = checkpoint.moments.get(moment.name)
        if stored is None or stored.shape != moment.shape:
            raise UserError(f"{checkpoint.path} has no momentum {moment.name} of shape {moment.shape}: other layers were "
                            "trained; resume with the config it was trained with.")
        moment.set_data(Tensor(stored, moment.dtype))
