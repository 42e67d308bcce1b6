"""Export a detector: python export.py --config CONFIG --checkpoint_path FILE --file_format MINDIR_OR_ONNX --output FILE
--device_target ... (--help lists all).

An ONNX file contains all steps. Its input is an image uint8 (h, w, 3) RGB of any size. Its outputs are boxes (N, 4) in pixels of
the image, scores (N,) and labels (N,), see src/export/onnx_whole.py.
A MindIR file, or an ONNX file with --raw True, contains only the network. Its inputs are images as the data loader prepares them:
image uint8 (B, H, W, 3) RGB and valid_size float32 (B, 2). For every proposal and class, it outputs boxes float32 (B, R, K, 4) in
pixels of the canvas and scores float32 (B, R, K), which src/evaluation/detections.py converts to detections. One such file is
written for each canvas in data.target_size. A file is written only if it computes the same as the network.
"""
import contextlib
import logging
import os
import sys

from src.config.command_line import parse_export_args
from src.errors import UserError
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx"}
MAX_BYTES = 10**9  # limit for weights: MindSpore splits larger ones into several files, and ONNX's limit is not much higher


def main(cfg, group, _):
    """Write the files that the configuration requests, and check them on images.

    Raises:
        UserError: for a mistake that the user can fix, see `src.run.launch.run`.
    """
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.config import with_settings
    from src.detector import class_names
    from src.export.sample_inputs import sample_images
    from src.models.faster_rcnn import to_mixed_precision
    from src.run.device import set_up_device

    if group.size > 1:
        raise UserError("export.py is one process; start it without mpirun or msrun.")
    writer = prepare(cfg)
    images = sample_images(cfg.image, 1 if is_whole(cfg) else cfg.batch_size)
    # The reference network runs operator by operator, because compiling its graph would take longer than running a few images.
    # In half precision it runs as a graph, because other roundings would change the order of proposals.
    asked, cfg = cfg, set_up_device(with_settings(cfg, {"ms_mode": 0 if cfg.mix else 1}), group)
    network, checkpoint = open_network(cfg)
    if asked.mix and cfg.device_target == "CPU":
        # The file uses MindSpore's operators in the requested precision, whatever precision the CPU kernels use.
        if asked.mix_dtype == "bfloat16":
            raise UserError("mix_dtype bfloat16: MindSpore has no such convolution on the CPU, on which the file is checked; "
                            "give -o mix_dtype=float16, or --mix False.")
        to_mixed_precision(network)
    if is_whole(cfg):
        export_whole(cfg, network, class_names(cfg.data, checkpoint), images)
    else:
        export_networks(cfg, network, writer, images)


def is_whole(cfg):
    """Return whether the file contains all steps from an image to detections."""
    return cfg.file_format == "ONNX" and not cfg.raw


def export_whole(cfg, network, names, images):
    """Write the file with all steps; it gets its name only if it detects the same objects on images as infer.py.

    Raises:
        UserError: if its detections differ, or it cannot be written.
    """
    from src.config import with_settings
    from src.detector import Predictor
    from src.export import end_to_end as whole
    from src.run.files import atomic_write

    with written(cfg.output), atomic_write(cfg.output) as temporary:
        whole.write(temporary, network, cfg, names)
        # The file is written first, with plain operators, because Predictor puts the CPU kernels into the network.
        detector, batches = whole.FileDetector(temporary, cfg.batch_size), whole.of_several_sizes(images, cfg.batch_size)
        predictor, threshold = Predictor(network, cfg), cfg.infer.conf_threshold
        result = whole.compare(detector, predictor, batches)
        if not result.found:
            predictor.cfg, threshold = with_settings(cfg, {"infer.conf_threshold": 0.0}), 0.0
            result = whole.compare(detector, predictor, batches)
        whole.require(cfg.output, result)
        logger.info("compared with the network on %s, at scores above %g: %s", shown(cfg), threshold, result)
        if cfg.quantize:
            whole.quantize(temporary, batches[:len(images)])
            result = whole.compare(whole.FileDetector(temporary, cfg.batch_size), predictor, batches, whole.ROUGH)
            whole.require(cfg.output, result, whole.ROUGH)
            logger.info("int8 compared with the network in the same way: %s", result)
    logger.info("%s written", cfg.output)
    batch, images = (f"{cfg.batch_size}, ", ", images int64 (N,)") if cfg.batch_size > 1 else ("", "")
    logger.info("inputs: image uint8 (%sh, w, 3) RGB of any size, score_threshold (%g unless given) and iou_threshold (%g); "
                "outputs: boxes float32 (N, 4), scores float32 (N,), labels int64 (N,)%s", batch, cfg.infer.conf_threshold,
                cfg.infer.nms_threshold, images)


def shown(cfg):
    """Return a description of the images that the file was compared on."""
    return "the images of --image" if cfg.image else "drawn images"


def export_networks(cfg, network, writer, images):
    """Write a file of the network for each canvas; for `writer` and the errors see `export`."""
    from src.export.sample_inputs import batches_of
    from src.models.faster_rcnn import InferenceForward

    for canvas, path in output_paths(cfg).items():
        forward = InferenceForward(network, cfg, canvas).set_train(False)
        result = export(path, writer, forward, batches_of(images, cfg, canvas))
        logger.info("%s written and compared with the network on %s: %s", path, shown(cfg), result)
        batch, proposals, classes = cfg.batch_size, forward.propose.number, network.box_head.classes.out_channels - 1
        logger.info("inputs: image uint8 %s RGB, valid_size float32 %s; outputs: boxes float32 %s, scores float32 %s",
                    (batch, *canvas, 3), (batch, 2), (batch, proposals, classes, 4), (batch, proposals, classes))


def output_paths(cfg):
    """Return {canvas: file} for files of the network alone: cfg.output for a single canvas; for several, its name with the
    canvas's height and width."""
    root, suffix = os.path.splitext(cfg.output)
    canvases = cfg.data.canvases
    return {(height, width): f"{root}_{height}x{width}{suffix}" if len(canvases) > 1 else cfg.output
            for height, width in canvases}


def prepare(cfg):
    """Check before any long computation that the files can be written, and create their folder if it is missing. Return the
    module of src.export that writes them.

    Raises:
        UserError: if the files cannot be written.
    """
    from src.export import mindir, onnx_file
    from src.run.files import prepare_output

    suffix = SUFFIXES[cfg.file_format]
    if cfg.quantize:
        check_quantizable(cfg)
    if not cfg.output.endswith(suffix):
        raise UserError(f"the file to write is {cfg.output!r}; give an --output that ends with {suffix}, or the other "
                        "--file_format.")
    writer = mindir if cfg.file_format == "MINDIR" else onnx_file
    writer.check_possible(cfg)
    for path in [cfg.output] if is_whole(cfg) else output_paths(cfg).values():
        prepare_output(path)
    return writer


def check_quantizable(cfg):
    """Raise a UserError unless the requested file can be quantised."""
    if not is_whole(cfg) or not cfg.image or len(cfg.data.canvases) > 1:
        raise UserError("--quantize True is for --file_format ONNX without --raw, with a single canvas in data.target_size, and "
                        "needs --image: some dozens of images like those that the detector is for, on which int8 is calibrated.")


def open_network(cfg):
    """Return the detector in the checkpoint of cfg, and the checkpoint.

    Raises:
        UserError: if the checkpoint cannot be read, does not fit the configuration, or is too large.
    """
    from src.detector import load_detector

    network, checkpoint = load_detector(cfg)
    size = sum(parameter.nbytes for parameter in network.get_parameters())
    if size > MAX_BYTES:
        raise UserError(f"the weights of {cfg.checkpoint_path} take {size} bytes, but only up to {MAX_BYTES} can be exported to "
                        "one file.")
    return network, checkpoint


@contextlib.contextmanager
def written(path):
    """Turn an OSError of a block that writes the file `path` into a UserError.

    Raises:
        UserError: if the system reports an error.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); make room on the disk, or give another "
                        "--output.") from error


def export(path, writer, forward, batches):
    """Write the file `path`, which gets its name only if it computes the same as `forward`.

    Args:
        writer: the module src.export.mindir or src.export.onnx_file.
        forward: InferenceForward with plain operators.
        batches: list of (image, valid_size) numpy arrays of the same shape.

    Returns:
        The Agreement between file and network on the batches.

    Raises:
        UserError: if its results differ, or it cannot be written.
    """
    from src.export import mindir
    from src.export.agreement import agreement, require_agreement
    from src.run.files import atomic_write

    with written(path), atomic_write(path) as temporary:
        writer.write(temporary, forward, *batches[0])
        result = agreement(writer.run(temporary, batches), mindir.run_cell(forward, batches))
        require_agreement(path, result)
    return result


if __name__ == "__main__":
    sys.exit(launch(main, parse_export_args))
