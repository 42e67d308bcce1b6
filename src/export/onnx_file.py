"""Exports detectors as ONNX files.

MindSpore 2.10's exporter fails at the operator ResizeBilinearV2, or at ResizeNearestNeighborV2 if
backbone.fpn.upsample_mode is nearest. Therefore this package builds the graph from the network's weights.
"""
from __future__ import annotations

import importlib

import numpy as np
from mindspore import nn

from src.errors import UserError


def check_possible(cfg) -> None:
    """Raise a UserError if the package onnx or onnxruntime is missing, or the configuration asks for mixed precision."""
    if cfg.mix:
        raise UserError("an ONNX file computes in fp32; give --mix False with --file_format ONNX, or --file_format MINDIR for "
                        "fp16 convolutions.")
    for name in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--file_format ONNX needs the package {name}, which cannot be imported ({error}); install it: "
                            "pip install onnx onnxruntime 'numpy<2', or give --file_format MINDIR.") from error


def write(path: str, forward: nn.Cell, image: np.ndarray, valid_size: np.ndarray) -> None:
    """Write a network with its weights for inputs of the given shapes.

    Args:
        path: path of the file.
        forward: InferenceForward that consists of plain operators.
        image: (B, H, W, 3) uint8.
        valid_size: (B, 2) float32.
    """
    from src.export.onnx_detector import detector_model  # imported here because it needs the package onnx
    model = detector_model(forward, len(valid_size), *image.shape[1:3])
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def run(path: str, batches: list) -> tuple[np.ndarray, np.ndarray]:
    """Run a file on the CPU with ONNX Runtime for a list of (image, valid_size). Return boxes (n, R, K, 4), scores (n, R, K)."""
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [session.run(["boxes", "scores"], {"image": image, "valid_size": valid_size}) for image, valid_size in batches]
    boxes, scores = zip(*outputs)
    return np.concatenate(boxes), np.concatenate(scores)
