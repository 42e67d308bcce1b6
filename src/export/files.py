"""Exports a detector to files. A file gets its name only if it computes the same as the network.

The formats are ONNX, and MindSpore's format MindIR, a graph of plain operators with its weights.
"""
from __future__ import annotations

import importlib
import logging
import os
import re
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from deploy.images import EXTENSIONS, InputError, find_files
from src.config import Config, with_settings
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.shapes import draw_scene
from src.dataset.transforms import apply_to_image
from src.detector import Predictor
from src.errors import UserError
from src.export.agreement import DETECTIONS, INT8_DETECTIONS, PROPOSALS, agreement, compare_detections, require
from src.export.detector import detect
from src.models.faster_rcnn import FasterRCNN, InferenceForward
from src.run.files import apply_umask, atomic_write, prepare_output, writing_into

logger = logging.getLogger("faster_rcnn")

DRAWN_SIZE = (480, 640)  # height and width of synthetic images
LARGE, SMALL = 2.5, 0.4  # scale factors of the enlarged and the reduced copy of the first image


def is_whole(cfg: Config) -> bool:
    """Return whether the file contains all steps from an image to detections."""
    return not cfg.mindir and not cfg.raw


def check_possible(cfg: Config) -> None:
    """Check before any long computation that the files can be written, and create their folder if it is missing.

    Raises:
        UserError: a setting does not fit the file format, a package is missing, or the folder is not writable.
    """
    suffix = ".mindir" if cfg.mindir else ".onnx"
    if cfg.quantize and (not is_whole(cfg) or not cfg.image or len(cfg.data.canvases) > 1):
        raise UserError("--quantize True is for ONNX (without --raw and --mindir), with a single canvas in data.target_size, and "
                        "needs --image: several dozen typical images, on which int8 is calibrated.")
    if not cfg.output.endswith(suffix):
        raise UserError(f"--output is {cfg.output or 'missing'}; give a path that ends with {suffix}, or --mindir "
                        f"{not cfg.mindir}.")
    if cfg.mindir and not re.fullmatch(r"[0-9a-zA-Z@_\-.:/\\]+", cfg.output):
        raise UserError(f"MindSpore cannot write {cfg.output!r}: only letters, digits and @_-.:/ are allowed; give another "
                        "--output.")
    if cfg.mix and not cfg.mindir:
        raise UserError("an ONNX file computes in fp32; leave out --mix True, or give --mindir True for fp16 convolutions.")
    for name in ("onnx", "onnxruntime") * (not cfg.mindir):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"ONNX needs the package {name}, which cannot be imported ({error}); install it: pip install onnx "
                            "onnxruntime 'numpy<2', or write MindIR with --mindir True.") from error
    for path in [cfg.output] if is_whole(cfg) else output_paths(cfg).values():
        prepare_output(path)


def output_paths(cfg: Config) -> dict[tuple[int, int], str]:
    """Return {canvas: file} for files of the network alone: cfg.output for a single canvas; for several, its name with the
    canvas's height and width."""
    root, suffix = os.path.splitext(cfg.output)
    return {(height, width): f"{root}_{height}x{width}{suffix}" if len(cfg.data.canvases) > 1 else cfg.output
            for height, width in cfg.data.canvases}


def export_detector(cfg: Config, network: FasterRCNN, names: list[str], images: list[np.ndarray]) -> None:
    """Write the ONNX file of all steps of `network`, of plain operators, if it detects the same objects as infer.py on `images`,
    (h, w, 3) uint8 RGB each. They also calibrate int8. `names` are the class names by label.

    Raises:
        UserError: the detections differ, or the file cannot be written.
    """
    from deploy.detector import Detector  # these two need the packages onnx and onnxruntime
    from src.export.onnx_detector import detector_model

    shown, folder = "the images of --image" if cfg.image else "generated images", os.path.dirname(cfg.output) or os.curdir
    with writing_into(folder, os.path.basename(cfg.output)), atomic_write(cfg.output) as temporary:
        Path(temporary).write_bytes(detector_model(network, cfg, names).SerializeToString())
        # Predictor is built after the file is written, because it puts the CPU kernels into the network.
        predictor, batches = Predictor(network, cfg), batches_of_several_sizes(images, cfg.batch_size)
        result = compare_detections(Detector(temporary), predictor, batches)
        if not result.rows:
            predictor.cfg = with_settings(cfg, {"infer.conf_threshold": 0.0})
            result = compare_detections(Detector(temporary), predictor, batches)
        require(cfg.output, result, DETECTIONS)
        logger.info("compared with the network on %s, at scores above %g: %s", shown, predictor.cfg.infer.conf_threshold, result)
        if cfg.quantize:
            quantize(temporary, batches[:len(images)])
            result = compare_detections(Detector(temporary), predictor, batches, INT8_DETECTIONS)
            if not result.holds(INT8_DETECTIONS.alone):
                os.replace(temporary, kept := "{}_unchecked{}".format(*os.path.splitext(cfg.output)))
                scores = np.concatenate([detect(predictor, image)[1] for image in images])
                low, high = np.percentile(scores, (25, 75)) if len(scores) else (0, 0)
                require(cfg.output, result, INT8_DETECTIONS, "the likely reason is a detector that needs more training: rounding "
                        f"changes the order of scores that are close to each other (half of the network's {len(scores)} scores "
                        f"are from {low:.2g} to {high:.2g}). The int8 file is kept as {kept}; compute its AP with "
                        "tools/score_detections.py before you use it")
            logger.info("int8 compared with the network in the same way: %s", result)
            if not result.rows:
                logger.warning("int8 is not checked: no score is above %g, so the detector probably needs more training",
                               predictor.cfg.infer.conf_threshold + INT8_DETECTIONS.score)
    batch, numbers = (f"{cfg.batch_size}, ", ", images int64 (N,)") if cfg.batch_size > 1 else ("", "")
    logger.info("%s written; inputs: image uint8 (%sh, w, 3) RGB of any size, score_threshold (%g) and iou_threshold (%g); "
                "outputs: boxes float32 (N, 4), scores float32 (N,), labels int64 (N,)%s", cfg.output, batch,
                cfg.infer.conf_threshold, cfg.infer.nms_threshold, numbers)


def export_networks(cfg: Config, network: FasterRCNN, images: list[np.ndarray]) -> None:
    """Write a file of the network for each canvas if it computes the same; for arguments and errors see `export_detector`."""
    for canvas, path in output_paths(cfg).items():
        forward, batches = InferenceForward(network, cfg, canvas).set_train(False), network_batches(images, cfg, canvas)
        with writing_into(os.path.dirname(path) or os.curdir, os.path.basename(path)), atomic_write(path) as temporary:
            write_network(temporary, forward, *batches[0])
            found, expected = run_network(temporary, batches), run_network(forward, batches)
            result = agreement(found, expected)
            require(path, result, PROPOSALS)
        logger.info("%s written and compared with the network on %s: %s", path,
                    "the images of --image" if cfg.image else "generated images", result)
        batch, rows = cfg.batch_size, expected[1].shape[1:]
        logger.info("inputs: image uint8 %s RGB, valid_size float32 %s; outputs: boxes float32 %s, scores float32 %s",
                    (batch, *canvas, 3), (batch, 2), (batch, *rows, 4), (batch, *rows))


def write_network(path: str, forward: InferenceForward, image: np.ndarray, valid_size: np.ndarray) -> None:
    """Write a network of plain operators with its weights, for inputs of the shapes of image (B, H, W, 3) uint8 and valid_size
    (B, 2) float32. `path` ends with .onnx or .mindir."""
    if path.endswith(".mindir"):
        ms.export(forward, Tensor(image), Tensor(valid_size), file_name=path, file_format="MINDIR")
        apply_umask(path)
    else:
        from src.export.onnx_detector import network_model  # imported here because it needs the package onnx
        Path(path).write_bytes(network_model(forward, len(image), (image.shape[1], image.shape[2])).SerializeToString())


def run_network(network: str | nn.Cell, batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Run a cell, or the network in a file, for a list of (image, valid_size), and return the joined boxes (n, R, K, 4) and
    scores (n, R, K)."""
    if isinstance(network, str) and network.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
        outputs = [session.run(["boxes", "scores"], {"image": image, "valid_size": size}) for image, size in batches]
    else:
        cell = nn.GraphCell(ms.load(network)) if isinstance(network, str) else network
        outputs = [[output.asnumpy() for output in cell(Tensor(image), Tensor(size))] for image, size in batches]
    boxes, scores = zip(*outputs)
    return np.concatenate(boxes), np.concatenate(scores)


def sample_images(places: list[str], count: int) -> list[np.ndarray]:
    """Return the images in `places`, see `find_files`, or `count` synthetic images if it is empty, (h, w, 3) uint8 RGB each.

    Raises:
        UserError: a place does not exist or an image cannot be read.
    """
    if not places:
        return [draw_scene(np.random.default_rng([0, number]), *DRAWN_SIZE)[0] for number in range(count)]
    images = []
    try:
        for path in find_files(places, EXTENSIONS, logger.info):
            images.append(read_image(path))
    except InputError as error:
        raise UserError(f"{error}; correct --image.") from error
    except UnreadableImageError as error:
        raise UserError(f"{path}: {error}; give another --image.") from error
    return images


def network_batches(images: list[np.ndarray], cfg: Config, canvas: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the images as inputs for the canvas (H, W), a list of pairs: image (B, H, W, 3) uint8 and valid_size (B, 2) float32.

    Batches have cfg.batch_size images. The last batch is filled up with the first images.
    """
    size, count = cfg.batch_size, len(images)
    canvases = np.empty((-(-count // size) * size, *canvas, 3), np.uint8)
    valid = [apply_to_image(cfg.data.eval_transforms.item_transforms, images[number % count], place)[0]
             for number, place in enumerate(canvases)]
    return [(canvases[start:start + size], np.stack(valid[start:start + size])) for start in range(0, len(canvases), size)]


def batches_of_several_sizes(images: list[np.ndarray], batch: int) -> list[np.ndarray]:
    """Return a batch (B, h, w, 3) for each image, and for a rotated, an enlarged and a reduced copy of the first image. A batch
    contains one image and its mirrored and flipped copies."""
    first = images[0]
    sizes = [np.rot90(first), *(cv2.resize(first, None, fx=factor, fy=factor) for factor in (LARGE, SMALL)
                                if factor * min(first.shape[:2]) >= 1)]
    return [np.stack([(image, image[:, ::-1], image[::-1])[row % 3] for row in range(batch)]) for image in [*images, *sizes]]


def quantize(path: str, batches: list[np.ndarray]) -> None:
    """Quantise a file in place: convolutions and dense layers compute in int8, by ONNX Runtime's static quantisation.

    Weights are scaled per channel, to 7 bits, because 8-bit products saturate on x86 processors without VNNI. The range of each
    activation is measured on the batches (B, h, w, 3) uint8.
    """
    import onnx
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        inputs = iter([{"image": images if len(images) > 1 else images[0]} for images in batches])

        def get_next(self):
            return next(self.inputs, None)

    model = onnx.load(path)
    # Mark the graph as preprocessed to avoid a warning. It needs no preprocessing.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    onnxruntime.set_default_logger_severity(3)  # for the calibration's sessions, see `Detector`
    quantization.quantize_static(model, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                                 op_types_to_quantize=["Conv", "Gemm"], activation_type=quantization.QuantType.QUInt8,
                                 weight_type=quantization.QuantType.QInt8, reduce_range=True)
    onnxruntime.set_default_logger_severity(2)
