"""Exported detectors as ONNX files.

MindSpore's own exporter does not get there: MindSpore 2.10 stops at ResizeBilinearV2, or at ResizeNearestNeighborV2 where
backbone.fpn.upsample_mode is nearest. So the graph is built here from the network's weights.
"""
import importlib

import numpy as np

from src.deploy.onnx_detector import detector_model
from src.errors import UserError


def check_possible(cfg):
    """Check that an ONNX file can be made here with this configuration.

    Raises:
        UserError: the packages onnx and onnxruntime are missing; mixed precision.
    """
    if cfg.mix:
        raise UserError("an ONNX file computes in fp32; give --mix False with --file_format ONNX, or --file_format MINDIR for "
                        "fp16 convolutions.")
    for name in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"--file_format ONNX needs the package {name}, which cannot be imported ({error}); install it: "
                            "pip install onnx onnxruntime 'numpy<2', or give --file_format MINDIR.") from error


def write(path, forward, image, valid_size):
    """Write a network with its weights.

    Args:
        path: of the file; forward: InferenceForward of plain operators; image uint8 (B, H, W, 3) and valid_size float32
        (B, 2), numpy: inputs of the shapes that the file is to take.
    """
    model = detector_model(forward, len(valid_size), *image.shape[1:3])
    with open(path, "wb") as file:
        file.write(model.SerializeToString())


def run(path, batches):
    """What ONNX Runtime computes on the CPU for each (image, valid_size) of a list: numpy boxes (n, R, K, 4) and scores
    (n, R, K) of all."""
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = [session.run(["boxes", "scores"], {"image": image, "valid_size": valid_size}) for image, valid_size in batches]
    boxes, scores = zip(*outputs)
    return np.concatenate(boxes), np.concatenate(scores)
