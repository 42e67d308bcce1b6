"""How many classes a checkpoint has, and what they are called."""
import logging
import os

from src.checkpoint_file import class_names_of
from src.dataset.annotations import read_class_names
from src.errors import UserError
from src.models.parameter_names import CLASSES

logger = logging.getLogger("faster_rcnn")


def count_classes(stored, path):
    """K, without background, of a checkpoint's contents; path: for the message.

    Raises:
        UserError: it is not one of this project's detectors.
    """
    bias = stored.get(f"{CLASSES}bias")
    if bias is None or bias.ndim != 1 or len(bias) < 2:
        raise UserError(f"{path} has no weight {CLASSES}bias of two numbers or more: it is not a detector of this project.")
    return len(bias) - 1


def names_of_classes(data, path, count):
    """The names of the `count` classes by label, a list of str.

    The first that is there counts: data.names of the configuration; the names that the checkpoint keeps; those of the
    configuration's validation annotations, if they are so many; `class 0`, `class 1`, ..., with a warning.

    Args:
        data: the section `data` of the configuration; path: of the checkpoint.

    Raises:
        UserError: data.names has not `count` names.
    """
    if data.names:
        if len(data.names) != count:
            raise UserError(f"data.names lists {len(data.names)} classes, but {path} has {count}: correct data.names or leave it "
                            "out.")
        return data.names
    names = _kept_names(path) or _annotated_names(data)
    if len(names) == count:
        return names
    logger.warning("the names of the %d classes of %s are not known: neither data.names, nor the checkpoint, nor an annotation "
                   "file tells them; they are called class 0, class 1, ...", count, path)
    return [f"class {label}" for label in range(count)]


def _kept_names(path):
    try:
        return class_names_of(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: its class names cannot be read.") from error


def _annotated_names(data):
    if not data.dataset_dir:
        return []
    try:
        return read_class_names(os.path.join(os.path.expanduser(data.dataset_dir), data.val_anno_path))
    except UserError as error:
        logger.info("no class names from the annotations: %s", error)
        return []
