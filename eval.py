"""Evaluate checkpoints: python eval.py --checkpoint_path FILE_OR_FOLDER --device_target ... (--help lists all).

With several devices: msrun --worker_num=8 --local_worker_num=8 eval.py ..., or mpirun -n 8 python eval.py ...
"""
from __future__ import annotations

import glob
import logging
import os
import re
import sys

from src.config import Config
from src.config.command_line import parse_eval_args, with_checkpoint
from src.errors import UserError
from src.run.distributed import Group
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")


def main(cfg: Config, group: Group, _: object) -> None:
    """Evaluate each checkpoint that the configuration names; on rank 0, write and log the results.

    Raises a UserError after a mistake that the user can fix, see `src.run.launch.run`.
    """
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.checkpoint import load_weights, read_checkpoint
    from src.dataset.loader import EvalLoader
    from src.dataset.splits import open_validation_set
    from src.detector import Predictor, build_empty_detector
    from src.evaluation.evaluate import evaluate, results_folder
    from src.run.compile_cache import inference_graphs, use_compile_cache
    from src.run.device import connect_device, set_up_device
    from src.run.modelarts import Uploads, download_checkpoint, download_dataset
    from src.run.optional import checkpoint_path, evaluation_writer
    from src.train.parallel import broadcast_parameters

    device = connect_device(cfg, group)
    found = find_checkpoints(download_checkpoint(cfg) or checkpoint_path(cfg.checkpoint_path)) if group.rank == 0 else []
    checkpoint = read_checkpoint(found[0]) if found else None
    paths, names, settings = group.broadcast((found, checkpoint and checkpoint.class_names, checkpoint and checkpoint.settings))
    cfg = download_dataset(set_up_device(with_checkpoint(cfg, settings, paths[0]), group, device), group)
    with Uploads(cfg, group):
        dataset = open_validation_set(cfg, group, names)
        write = evaluation_writer(cfg, dataset)
        network = build_empty_detector(cfg, len(dataset.names))
        loader, predictor = EvalLoader(dataset, cfg, group.rank, group.size), Predictor(network, cfg)
        use_compile_cache(cfg, inference_graphs(loader.canvas_order()), len(dataset.names))
        summary = []
        for path in paths:
            logger.info("evaluating %s on %d images", path, len(dataset.records))
            if group.rank == 0:
                checkpoint = checkpoint or read_checkpoint(path)  # the first one has been read
                checkpoint.log_contradictions(cfg)
                if checkpoint.num_classes != len(dataset.names):
                    raise UserError(f"{path} has {checkpoint.num_classes} classes, but {dataset.annotation_path} has "
                                    f"{len(dataset.names)} ({', '.join(dataset.names)}): if the detector has more, give -o "
                                    "data.unite_classes=True; if it has fewer, list them in data.classes.")
                load_weights(network, checkpoint)
                if checkpoint.class_names and checkpoint.class_names != dataset.names:
                    logger.warning("%s was trained with the classes %s, but %s has %s: classes are matched by index", path,
                                   ", ".join(checkpoint.class_names), dataset.annotation_path, ", ".join(dataset.names))
                checkpoint = None
            broadcast_parameters(group, list(network.get_parameters()))
            evaluation = evaluate(predictor, loader, dataset, cfg, group)
            if evaluation:  # on rank 0
                write(results_folder(cfg.save_dir, path, dataset), evaluation, path, of_checkpoint=True)
                summary.append((evaluation.metrics["AP"], evaluation.metrics["AP50"], path))
    for row in summary if len(paths) > 1 else ():
        logger.info("AP %.4f  AP50 %.4f  %s", *row)


def find_checkpoints(path: str) -> list[str]:
    """Return the checkpoint `path`, or all checkpoints in the folder `path` in the order of their epochs and steps."""
    if os.path.isfile(path):
        return [path]
    paths = glob.glob(os.path.join(glob.escape(path), "*.ckpt"))
    if not paths:
        raise UserError(f"there is no checkpoint {path!r}; give a .ckpt file, or a folder of them, with --checkpoint_path.")

    def order(path):
        # The checkpoint of a complete epoch, which has no step in its name, comes after the checkpoints within the epoch.
        name = os.path.basename(path).replace("_rank", "_~rank")
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(paths, key=order)


if __name__ == "__main__":
    sys.exit(launch(main, parse_eval_args))
