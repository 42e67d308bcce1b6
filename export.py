"""Export a detector: python export.py --config CONFIG --checkpoint_path FILE --file_format MINDIR_OR_ONNX --output FILE
--device_target ... (--help lists all).

The file takes images as the data loader makes them, image uint8 (B, H, W, 3) RGB and valid_size float32 (B, 2), and gives
boxes float32 (B, R, K, 4) in pixels of the canvas and scores float32 (B, R, K) of every proposal and class;
src/evaluation/detections.py makes detections of these. It is written only if it computes what the network does.
"""
import logging
import sys

from src.config.command_line import parse_export_args
from src.errors import UserError
from src.launch import launch

logger = logging.getLogger("faster_rcnn")

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx"}
MAX_BYTES = 10**9  # of weights: MindSpore writes more than that in several files, and ONNX takes little more


def main(cfg, group, _):
    """Write the file that the configuration asks for, and check it on images.

    Raises:
        UserError: what the user can mend, see `src.launch.run`.
    """
    # Imported here, as MindSpore reads the environment that `launch` has prepared.
    from src.deploy.sample_inputs import batches_of, sample_images
    from src.device import set_up_device

    if group.size > 1:
        raise UserError("export.py is one process; start it without mpirun.")
    writer = check_output(cfg)
    images = sample_images(cfg.image, cfg.batch_size)
    set_up_device(cfg, group)
    forward = open_forward(cfg)
    result = export(cfg.output, writer, forward, batches_of(images, cfg))
    logger.info("%s written and compared with the network on %s: %s", cfg.output,
                "the images of --image" if cfg.image else "drawn images", result)
    batch, (height, width) = cfg.batch_size, cfg.data.target_size
    proposals, classes = forward.propose.number, forward.network.box_head.classes.out_channels - 1
    logger.info("inputs: image uint8 %s RGB, valid_size float32 %s; outputs: boxes float32 %s, scores float32 %s",
                (batch, height, width, 3), (batch, 2), (batch, proposals, classes, 4), (batch, proposals, classes))


def check_output(cfg):
    """Check, before anything takes time, that the file can be written; -> the module of src.deploy that writes it.

    Raises:
        UserError: it cannot.
    """
    from src.deploy import mindir, onnx_file
    from src.files import check_output_path

    suffix = SUFFIXES[cfg.file_format]
    if not cfg.output.endswith(suffix):
        raise UserError(f"the file to write is {cfg.output!r}; give an --output that ends with {suffix}, or the other "
                        "--file_format.")
    check_output_path(cfg.output)
    writer = mindir if cfg.file_format == "MINDIR" else onnx_file
    writer.check_possible(cfg)
    return writer


def open_forward(cfg):
    """The detector in the checkpoint of cfg, an `InferenceForward` of plain operators.

    Raises:
        UserError: the checkpoint cannot be read, does not fit the configuration or is too large.
    """
    from src.detector import load_detector
    from src.models.faster_rcnn import InferenceForward

    network, _ = load_detector(cfg)
    size = sum(parameter.nbytes for parameter in network.get_parameters())
    if size > MAX_BYTES:
        raise UserError(f"the weights of {cfg.checkpoint_path} take {size} bytes, but only up to {MAX_BYTES} can be exported to "
                        "one file.")
    return InferenceForward(network, cfg).set_train(False)


def export(path, writer, forward, batches):
    """Write the file `path`, which has its name only when it computes what `forward` does.

    Args:
        writer: the module src.deploy.mindir or src.deploy.onnx_file.
        forward: InferenceForward of plain operators.
        batches: list of (image, valid_size) numpy arrays of one shape.

    Returns:
        Agreement on the batches.

    Raises:
        UserError: it computes something else, or cannot be written.
    """
    from src.deploy import mindir
    from src.deploy.agreement import agreement, require_agreement
    from src.files import whole_file

    try:
        with whole_file(path) as temporary:
            writer.write(temporary, forward, *batches[0])
            result = agreement(writer.run(temporary, batches), mindir.run_cell(forward, batches))
            require_agreement(path, result)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); make room on the disk, or give another "
                        "--output.") from error
    return result


if __name__ == "__main__":
    sys.exit(launch(main, parse_export_args))
