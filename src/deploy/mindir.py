"""Exported detectors in MindSpore's own format, MindIR: the graph of the plain operators with its weights."""
import os
import re

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError

# What MindSpore takes as the name of a file to export to.
NAME = re.compile(r"[0-9a-zA-Z@_\-.:/\\]+")


def check_name(path):
    """Check that MindSpore can write to the path.

    Raises:
        UserError: it has a character that MindSpore refuses.
    """
    if not NAME.fullmatch(path):
        raise UserError(f"MindSpore cannot export to {path!r}, whose name has other characters than letters, digits and @_-.:/; "
                        "give another --output.")


def write(path, forward, image, valid_size):
    """Write a network with its weights.

    Args:
        path: ends with .mindir; forward: InferenceForward of plain operators; image uint8 (B, H, W, 3) and valid_size float32
        (B, 2), numpy: inputs of the shapes that the file is to take.
    """
    ms.export(forward, Tensor(image), Tensor(valid_size), file_name=path, file_format="MINDIR")
    os.chmod(path, 0o644)  # MindSpore makes it readable for its owner alone


def run(path, batches):
    """What the network in a file gives for each of `batches`; see `run_cell`."""
    return run_cell(nn.GraphCell(ms.load(path)), batches)


def run_cell(cell, batches):
    """What a cell gives for each (image, valid_size) of a list: numpy boxes (n, R, K, 4) and scores (n, R, K) of all."""
    outputs = [cell(Tensor(image), Tensor(valid_size)) for image, valid_size in batches]
    boxes, scores = zip(*((boxes.asnumpy(), scores.asnumpy()) for boxes, scores in outputs))
    return np.concatenate(boxes), np.concatenate(scores)
