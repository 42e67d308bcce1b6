"""Checkpoints: MindSpore files with the weights, the momenta, where training stood, and a checksum at the end."""
import json
import logging
import os

import mindspore as ms
from mindspore import Tensor

from src.checkpoint_file import CLASS_NAMES, agrees_with_checksum, load_checkpoint_file
from src.errors import UserError
from src.files import flush_to_disk, whole_file
from src.models.parameter_names import CLASS_LAYERS, UNUSED

logger = logging.getLogger("faster_rcnn")

MOMENTS = "moments."
# BatchNorm's statistics of the other ranks, see src.train.statistics.
STATISTICS = "statistics."
# The numbers that tell where training stood.
PROGRESS = {"epoch", "epoch_images", "global_step", "skipped_steps", "evaluated", "best_ap", "seed", "loss_scale"}


def save_checkpoint(path, network, optimizer, progress, statistics=None, class_names=None):
    """Write weights, momenta, `progress`, a dict of numbers, other ranks' `statistics`, and the names of the classes, a list
    of str, which `src.checkpoint_file.class_names_of` reads; see `write_checkpoint`."""
    tensors = {p.name: p for p in [*network.get_parameters(), *optimizer.moments]}
    texts = {CLASS_NAMES: json.dumps(class_names)} if class_names else {}
    write_checkpoint(path, {**tensors, **(statistics or {})}, {**progress, **texts})


def write_checkpoint(path, tensors, values=None):
    """Write a dict of name -> tensor, and a dict of name -> number or text, to `path`.

    The file gets its name when it is complete, on the disk and found to agree with its checksum, so that a crash or a full
    disk leaves the previous one as it was.

    Raises:
        OSError: it could not be written.
    """
    entries = [{"name": name, "data": tensor} for name, tensor in tensors.items()]
    with whole_file(path) as temporary:
        ms.save_checkpoint(entries, temporary, append_dict=values, crc_check=True)
        os.chmod(temporary, 0o644)  # MindSpore makes it readable for its owner alone
        flush_to_disk(temporary)
        if not agrees_with_checksum(temporary):
            raise OSError(f"what the disk gives back of {path} is not what was written")
    logger.info("saved %s", path)


def read_checkpoint(path):
    """The contents of a checkpoint file but for its texts, a dict of name -> MindSpore parameter.

    Raises:
        UserError: there is no such file, it does not agree with its checksum or is not a MindSpore checkpoint.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path!r}; give the path of a .ckpt file.")
    try:
        if agrees_with_checksum(path) is not False:
            return load_checkpoint_file(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or not a MindSpore checkpoint.") from error
    raise UserError(f"{path} is damaged: it does not agree with its checksum; give another checkpoint.")


def load_weights(network, stored, path, allow_other_classes=False, renamed_classes=False):
    """Copy the weights of a checkpoint into the network.

    Args:
        stored: from `read_checkpoint`; path: for messages;
        allow_other_classes: leave layers whose number of classes differs as they are, and name them in the log;
        renamed_classes: leave the layers of the classes as they are even where their number is the same.

    Returns:
        Names of the parameters left as they were.

    Raises:
        UserError: a weight is missing, of another shape or unknown.
    """
    parameters = {p.name: p for p in network.get_parameters()}
    skipped = []
    for name, parameter in parameters.items():
        if name not in stored:
            raise UserError(f"{path} has no weight {name}: it belongs to another network; use the config it was trained with.")
        if renamed_classes and name.startswith(CLASS_LAYERS):
            skipped.append(name)
        elif stored[name].shape == parameter.shape:
            parameter.set_data(Tensor(stored[name].asnumpy(), parameter.dtype))
        elif allow_other_classes and name.startswith(CLASS_LAYERS):
            skipped.append(name)
        else:
            raise UserError(f"{path}: weight {name} has shape {stored[name].shape}, but this network needs "
                            f"{parameter.shape}; use the config and the classes it was trained with.")
    unknown = [n for n, p in stored.items()
               if n not in parameters and p.ndim > 0 and not n.startswith((MOMENTS, STATISTICS, UNUSED))]
    if unknown:
        raise UserError(f"{path} has weight {unknown[0]}, which this network does not: use the config it was trained with.")
    if skipped:
        logger.info("%s was trained with other classes; left at their initial values: %s", path, ", ".join(skipped))
    return skipped


def load_moments(optimizer, stored, path):
    """Copy the momenta of a checkpoint into the optimizer.

    Raises:
        UserError: one is missing or of another shape.
    """
    for moment in optimizer.moments:
        if moment.name not in stored or stored[moment.name].shape != moment.shape:
            raise UserError(f"{path} has no momentum {moment.name} of shape {moment.shape}: other layers were trained; "
                            "resume with the config it was trained with.")
        moment.set_data(Tensor(stored[moment.name].asnumpy(), moment.dtype))


def progress_of(stored, path):
    """The numbers that `TrainingState` saved beside the weights, a dict; empty for a checkpoint of weights alone.

    Raises:
        UserError: there are momenta, or some of the numbers, but not all of them: the file has lost its end.
    """
    numbers = {name: p.asnumpy().item() for name, p in stored.items() if p.ndim == 0 and not name.startswith(MOMENTS)}
    missing = PROGRESS - numbers.keys()
    of_a_run = len(missing) < len(PROGRESS) or any(name.startswith(MOMENTS) for name in stored)
    if not of_a_run:
        return {}
    if missing:
        raise UserError(f"{path} is damaged or another program's: it lacks {', '.join(sorted(missing))}; "
                        "give an earlier checkpoint.")
    return numbers
