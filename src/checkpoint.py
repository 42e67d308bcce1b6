"""Checkpoints: MindSpore files with weights, momenta, training progress, and a checksum at the end."""
from __future__ import annotations

import json
import logging
import os
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.checkpoint_file import is_intact, read_checkpoint_file
from src.convert.mindspore_models import from_mindspore_models, has_older_names, older_name
from src.errors import UserError, is_printable
from src.models import CLASS_LAYERS, CLASSES, MOMENTS, UNUSED
from src.run.files import apply_umask, atomic_write, if_supported

logger = logging.getLogger("faster_rcnn")

STATISTICS = "statistics."  # prefix of the names of other ranks' BatchNorm statistics, see src.train.statistics
CLASS_NAMES = "class_names"  # entry with the class names in label order, a JSON list
# The numbers that record the training progress.
PROGRESS = {"epoch", "epoch_images", "global_step", "skipped_steps", "evaluated", "best_ap", "seed", "loss_scale"}


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file. If it has only weights, moments and progress are empty."""
    path: str
    weights: dict[str, np.ndarray]     # of the network
    moments: dict[str, np.ndarray]     # momenta of the optimizer
    statistics: dict[str, np.ndarray]  # of other ranks' BatchNorm
    progress: dict[str, float]         # training progress
    class_names: list[str] | None      # in label order; None if the file has none
    has_checksum: bool                 # whether the file ends with a checksum, which was verified
    has_older_names: bool = False      # whether the weights have the names of the older MindSpore implementation

    @property
    def num_classes(self) -> int:
        """Number of classes K, without background.

        Raises:
            UserError: if the checkpoint is not a detector of this project.
        """
        bias = self.weights.get(f"{CLASSES}bias")
        if bias is None or bias.ndim != 1 or len(bias) < 2:
            raise UserError(f"{self.path} has no weight {self.name_in_file(CLASSES + 'bias')} of two numbers or more: it is not "
                            "a detector of this project.")
        return len(bias) - 1

    def name_in_file(self, name: str) -> str:
        """Return the name that a weight of the network has, or would have, in the file."""
        return older_name(name) if self.has_older_names else name


def read_checkpoint(path: str) -> Checkpoint:
    """Read a checkpoint file once and check it.

    Raises:
        UserError: if the file does not exist, fails its checksum, is not a MindSpore checkpoint, or mixes names of the older
            MindSpore implementation with current names.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path!r}; give the path of a .ckpt file.")
    try:
        arrays, texts, intact = read_checkpoint_file(path)
        class_names = _class_names(texts[CLASS_NAMES]) if CLASS_NAMES in texts else None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or not a MindSpore checkpoint ({error}); give another checkpoint.") from error
    if intact is False:
        raise UserError(f"{path} is damaged: it does not agree with its checksum; give another checkpoint.")
    moments, statistics, numbers, weights = {}, {}, {}, {}
    for name, array in from_mindspore_models(arrays, path).items():
        if name.startswith(MOMENTS):
            moments[name] = array
        elif name.startswith(STATISTICS):
            statistics[name] = array
        elif array.ndim == 0:
            numbers[name] = array.item()
        else:
            weights[name] = array
    progress = numbers if PROGRESS & numbers.keys() else {}  # other programs store other numbers
    return Checkpoint(path, weights, moments, statistics, progress, class_names, intact is not None, has_older_names(arrays))


def _class_names(text):
    try:
        names = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its class names are no JSON list") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and is_printable(name) for name in names):
        raise ValueError("its class names are no list of names")
    return names


def check_progress(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint contains either only weights, or everything that is needed to resume a run.

    Raises:
        UserError: if there are momenta or some progress numbers, but not all numbers, as in a truncated file.
    """
    missing = PROGRESS - checkpoint.progress.keys()
    of_a_run = len(missing) < len(PROGRESS) or checkpoint.moments
    if of_a_run and missing:
        raise UserError(f"{checkpoint.path} is damaged or another program's: it lacks {', '.join(sorted(missing))}; "
                        "give an earlier checkpoint.")


def write_checkpoint(path: str, tensors: dict[str, Tensor], values: dict | None = None, checksum: bool = True) -> None:
    """Write a checkpoint file with named tensors and named numbers or texts, `values`.

    The file is renamed to `path` when it is complete, on the disk, and its checksum is verified. After a crash or on a full
    disk, the previous file is thus unchanged. The permissions follow the umask.

    Args:
        checksum: whether to append a checksum, which some programs that read MindSpore's checkpoints do not support.

    Raises:
        OSError: if the file cannot be written.
        UserError: if a tensor has values that are not finite.
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
            raise OSError(f"what the disk gives back of {path} is not what was written")


def load_weights(network: nn.Cell, checkpoint: Checkpoint, allow_other_classes: bool = False,
                 renamed_classes: bool = False) -> list[str]:
    """Copy the weights of a checkpoint into the network.

    Args:
        network: FasterRCNN.
        checkpoint: from `read_checkpoint`.
        allow_other_classes: skip layers with another number of classes, and name them in the log.
        renamed_classes: skip the class-dependent layers even if their number of classes is the same.

    Returns:
        Names of the skipped parameters.

    Raises:
        UserError: if a weight is missing, unknown, or of another shape.
    """
    path, weights, name_in_file = checkpoint.path, checkpoint.weights, checkpoint.name_in_file
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    skipped = []
    for name, parameter in parameters.items():
        if name not in weights:
            raise UserError(f"{path} has no weight {name_in_file(name)}: it belongs to another network; use the config it was "
                            "trained with.")
        fits = weights[name].shape == parameter.shape
        if name.startswith(CLASS_LAYERS) and (renamed_classes or allow_other_classes and not fits):
            skipped.append(name)
        elif fits:
            parameter.set_data(Tensor(weights[name], parameter.dtype))
        else:
            raise UserError(f"{path}: weight {name_in_file(name)} has shape {weights[name].shape}, but this network needs "
                            f"{parameter.shape}; use the config and the classes it was trained with.")
    unknown = [name for name in weights if name not in parameters and not name.startswith(UNUSED)]
    if unknown:
        raise UserError(f"{path} has weight {name_in_file(unknown[0])}, which this network does not: use the config it was "
                        "trained with.")
    if skipped:
        logger.info("%s was trained with other classes; left at their initial values: %s", path, ", ".join(skipped))
    return skipped


def load_moments(optimizer: nn.Optimizer, checkpoint: Checkpoint) -> None:
    """Copy the momenta of a checkpoint into the optimizer.

    Raises:
        UserError: if a momentum is missing or of another shape.
    """
    for moment in optimizer.moments:
        stored = checkpoint.moments.get(moment.name)
        if stored is None or stored.shape != moment.shape:
            raise UserError(f"{checkpoint.path} has no momentum {moment.name} of shape {moment.shape}: other layers were "
                            "trained; resume with the config it was trained with.")
        moment.set_data(Tensor(stored, moment.dtype))
