"""Runs a detector that export.py wrote as ONNX. Copy this file into your program; it needs NumPy and ONNX Runtime."""
from __future__ import annotations

import json
import os

import numpy as np
import onnxruntime


class Detector:
    """Detects objects in images of any size.

    Args:
        path: path of the .onnx file.
        threads: number of threads; 0: one per core.
        providers: providers of ONNX Runtime in order of preference, such as CUDAExecutionProvider or OpenVINOExecutionProvider.

    Attributes:
        names: class names by label.

    Raises:
        ValueError: the file cannot be read, or is not a detector.
    """

    def __init__(self, path: str, threads: int = 0, providers: tuple[str, ...] = ("CPUExecutionProvider",)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only, to hide a warning that the thresholds are optional
        if not os.path.isfile(path):
            raise ValueError(f"there is no file {path}")
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # its exception types have no common base class
            raise ValueError(f"{path} cannot be read by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        names = self.session.get_modelmeta().custom_metadata_map.get("names")
        if names is None:
            raise ValueError(f"{path} is not a detector; write it with export.py, without --raw and --mindir")
        self.names: list[str] = json.loads(names)

    def detect(self, image: np.ndarray, score_threshold: float | None = None,
               iou_threshold: float | None = None) -> tuple[np.ndarray, ...]:
        """Detect objects in an image (h, w, 3) uint8 RGB, or with a file of batch size B, in images (B, h, w, 3) of one size.

        Args:
            image: image of any size. OpenCV's images are BGR, so pass image[..., ::-1].
            score_threshold: confidence threshold, exclusive; None: as exported.
            iou_threshold: IoU threshold of NMS; None: as exported.

        Returns:
            boxes (n, 4) float32 (x1, y1, x2, y2) in pixels of the image, scores (n,) float32, descending, labels (n,) int64, and
            for a batch, the image index of each detection (n,) int64.
        """
        given = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
        thresholds = {name: np.array([value], np.float32) for name, value in given.items() if value is not None}
        return tuple(self.session.run(None, {"image": image, **thresholds}))
