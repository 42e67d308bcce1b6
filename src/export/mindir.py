"""Exports detectors in MindSpore's format MindIR: a graph of plain operators with its weights."""
from __future__ import annotations

import re

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError
from src.run.files import apply_umask

# File names that MindSpore accepts.
NAME = re.compile(r"[0-9a-zA-Z@_\-.:/\\]+")


def check_possible(cfg) -> None:
    """Check that MindSpore accepts the file name cfg.output.

    Raises:
        UserError: the path contains a character that MindSpore rejects.
    """
    if not NAME.fullmatch(cfg.output):
        raise UserError(f"MindSpore cannot export to {cfg.output!r}, whose name has other characters than letters, digits and "
                        "@_-.:/; give another --output.")


def write(path: str, forward: nn.Cell, image: np.ndarray, valid_size: np.ndarray) -> None:
    """Write a network with its weights for inputs of the given shapes.

    Args:
        path: path of the file, which ends with .mindir.
        forward: InferenceForward that consists of plain operators.
        image: (B, H, W, 3) uint8.
        valid_size: (B, 2) float32.
    """
    ms.export(forward, Tensor(image), Tensor(valid_size), file_name=path, file_format="MINDIR")
    apply_umask(path)


def run(path: str, batches: list) -> tuple[np.ndarray, np.ndarray]:
    """Run the network in a file and return its outputs, see `run_cell`."""
    return run_cell(nn.GraphCell(ms.load(path)), batches)


def run_cell(cell: nn.Cell, batches: list) -> tuple[np.ndarray, np.ndarray]:
    """Run a cell on a list of (image, valid_size), and return the joined boxes (n, R, K, 4) and scores (n, R, K)."""
    outputs = [cell(Tensor(image), Tensor(valid_size)) for image, valid_size in batches]
    boxes, scores = zip(*((boxes.asnumpy(), scores.asnumpy()) for boxes, scores in outputs))
    return np.concatenate(boxes), np.concatenate(scores)
