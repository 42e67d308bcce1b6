"""Export a detector: python export.py --checkpoint_path FILE --output FILE (--help lists all).

An ONNX file contains all steps from an image of any size to its detections, see detector_model in src/export/onnx_detector.py.
A MindIR file, or an ONNX file with --raw True, contains only the network, see network_model there. One such file is written for
each canvas in data.target_size. A file is written only if it computes the same as the network.
"""
import sys

from src.config import Config, with_settings
from src.config.command_line import parse_export_args, with_checkpoint
from src.errors import UserError
from src.run.distributed import Group
from src.run.launch import launch

MAX_BYTES = 10**9  # limit for weights: MindSpore splits larger ones into several files, and ONNX's limit is not much higher


def main(cfg: Config, group: Group, _: object) -> None:
    """Write the files that the configuration requests, and check them on images. Raise a UserError after a mistake that the user
    can fix, see `src.run.launch.run`."""
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.checkpoint import read_checkpoint
    from src.export.detector import class_names, load_detector
    from src.export.files import check_possible, export_detector, export_networks, is_whole, sample_images
    from src.models.faster_rcnn import to_mixed_precision
    from src.run.device import set_up_device

    if group.size > 1:
        raise UserError("export.py is one process; start it without mpirun or msrun.")
    checkpoint = read_checkpoint(cfg.checkpoint_path)
    cfg = with_checkpoint(cfg, checkpoint.settings, checkpoint.path)
    check_possible(cfg)
    images = sample_images(cfg.image, 1 if is_whole(cfg) else cfg.batch_size)
    # The reference network runs operator by operator, because compiling its graph would take longer than running a few images.
    # In half precision it runs as a graph, because other roundings would change the order of proposals.
    asked, cfg = cfg, set_up_device(with_settings(cfg, {"ms_mode": 0 if cfg.mix else 1}), group)
    network = load_detector(cfg, checkpoint)
    size = sum(parameter.nbytes for parameter in network.get_parameters())
    if size > MAX_BYTES:
        raise UserError(f"the weights of {cfg.checkpoint_path} take {size} bytes, but only up to {MAX_BYTES} can be exported to "
                        "one file.")
    if asked.mix and cfg.device_target == "CPU":
        # The file uses MindSpore's operators in the requested precision, whatever precision the CPU kernels use.
        if asked.mix_dtype == "bfloat16":
            raise UserError("mix_dtype bfloat16: MindSpore has no such convolution on the CPU, on which the file is checked; "
                            "give -o mix_dtype=float16, or --mix False.")
        to_mixed_precision(network)
    if is_whole(cfg):
        export_detector(cfg, network, class_names(cfg.data, checkpoint), images)
    else:
        export_networks(cfg, network, images)


if __name__ == "__main__":
    sys.exit(launch(main, parse_export_args))
